/** Moving stored blocks to other places in the file: each copy is durable before the map names it (V-51, V-67). */
import { settled } from '../../core/gate.ts';
import type { VdiImage } from './image.ts';
import { isStored } from './map.ts';
import { extendFile, writeBack } from './write-back.ts';

export interface Move {
  readonly block: number;
  readonly to: number;
}

/** Bytes that are copied between two write-backs of the map. */
const BATCH_BYTES = 64 << 20;
/** Bytes in memory. */
const COPY_BYTES = 4 << 20;

export interface MoveOptions {
  readonly signal?: AbortSignal | undefined;
  /** Told of each block moved. */
  readonly moved?: (() => void) | undefined;
  /** Other blocks are in the places left behind, which so stay taken. */
  readonly keepSources?: boolean;
}

/**
 * Carries moves into slots that are taken already; the places left behind are given up. Nobody else uses the image
 * meanwhile. After a failure or an abort, slots not used are free again.
 */
export async function moveBlocks(
  image: VdiImage,
  moves: Iterable<Move>,
  { signal, moved, keepSources = false }: MoveOptions = {},
): Promise<void> {
  const batchLength = Math.max(1, Math.floor(BATCH_BYTES / image.stride));
  let batch: Move[] = [];
  const carryOut = async () => {
    const part = batch;
    batch = [];
    await copyBatch(image, part, moved);
    for (const { block, to } of part) {
      if (!keepSources) image.slots.release(image.entry(block));
      image.setEntry(block, to);
      image.readable = Math.max(image.readable, to + 1);
    }
    await writeBack(image);
  };
  for (const move of moves) {
    batch.push(move);
    if (batch.length < batchLength) continue;
    await carryOut();
    signal?.throwIfAborted();
  }
  if (batch.length > 0) await carryOut();
}

async function copyBatch(image: VdiImage, batch: readonly Move[], moved: (() => void) | undefined): Promise<void> {
  const together = Math.max(1, Math.floor(COPY_BYTES / image.stride));
  try {
    if (!image.file.growable) await extendFile(image);
    for (let first = 0; first < batch.length; first += together) {
      await settled(batch.slice(first, first + together).map((move) => copySlot(image, move)));
      for (let i = first; i < Math.min(batch.length, first + together); i++) moved?.();
    }
  } catch (error) {
    for (const { to } of batch) image.slots.giveBack(to);
    throw error;
  }
}

/** The block with its extra bytes. In a rehearsal only the file's length changes. */
async function copySlot(image: VdiImage, { block, to }: Move): Promise<void> {
  const { file, stride } = image;
  const from = image.startOf(image.entry(block));
  const target = image.startOf(to);
  if (image.rehearsing) {
    if (file.length() < target + stride) await file.truncate(target + stride);
    return;
  }
  const buffer = new Uint8Array(Math.min(stride, COPY_BYTES));
  for (let at = 0; at < stride; at += buffer.length) {
    const piece = buffer.subarray(0, Math.min(buffer.length, stride - at));
    await file.read(from + at, piece);
    await file.write(target + at, piece);
  }
}

/** Moves every block from a slot at or above `limit` into a free slot below it, as long as there are any. */
async function moveBelow(image: VdiImage, limit: number, options: MoveOptions = {}): Promise<void> {
  await moveBlocks(image, movesBelow(image, limit), options);
}

function* movesBelow(image: VdiImage, limit: number): Generator<Move> {
  for (let block = 0; block < image.map.length; block++) {
    const from = image.entry(block);
    if (!isStored(from) || from < limit) continue;
    const to = image.slots.takeFreeBelow(limit);
    if (to < 0) return;
    yield { block, to };
  }
}

/** How many blocks are stored. */
export function countStored(image: VdiImage): number {
  let count = 0;
  for (let block = 0; block < image.map.length; block++) if (isStored(image.entry(block))) count++;
  return count;
}

/** Moves the last blocks into the free places before them, and ends the file behind the last block. */
export async function closeGaps(image: VdiImage, options: MoveOptions = {}): Promise<void> {
  await moveBelow(image, countStored(image), options);
}
