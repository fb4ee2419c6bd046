/**
 * Zero writes and discards (V-27, V-28, V-65, V-66): whole blocks give their place up, parts are cleared in the file. In
 * a differencing image, blocks of the parent are hidden whole; parts of them are written over a copy.
 */
import type { ZeroFlags } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { settled } from '../../core/gate.ts';
import { allocate, takeOne } from './allocate.ts';
import type { VdiImage } from './image.ts';
import { isStored, UNALLOCATED, ZEROED } from './map.ts';
import { mustWait } from './write.ts';
import { flush } from './write-back.ts';

/** What is done where a block is not cleared whole. */
interface Partly {
  /** Whole stored blocks may give their place up. */
  readonly giveUp: boolean;
  /** To stored bytes of the file. */
  inFile(position: number, length: number): Promise<void>;
  /** Parts of the parent's blocks must read as zeroes afterwards. */
  readonly copyUp: boolean;
}

export async function writeZeroes(image: VdiImage, offset: number, length: number, flags: ZeroFlags): Promise<void> {
  image.requireSound();
  const inPlace: ZeroFlags = { unmap: flags.unmap === true, noFallback: flags.noFallback === true };
  if (flags.noFallback === true && partlyParents(image, offset, length) > 0) {
    throw new BlockError('ENOTSUP', 'Zeroes in a part of a block need a copy of the rest', { node: image.node });
  }
  await clear(image, offset, length, {
    giveUp: flags.unmap === true,
    inFile: (at, size) => image.file.writeZeroes(at, size, inPlace),
    copyUp: true,
  });
}

export async function discard(image: VdiImage, offset: number, length: number): Promise<void> {
  if (image.refusal !== undefined) throw new BlockError('ENOTSUP', image.refusal, { node: image.node });
  await clear(image, offset, length, {
    giveUp: true,
    inFile: (at, size) => image.file.discard(at, size),
    copyUp: false,
  });
}

async function clear(image: VdiImage, offset: number, length: number, how: Partly): Promise<void> {
  const held = how.giveUp && givesUp(image, offset, length) ? image.event('cluster_free') : undefined;
  if (held !== undefined) await held;
  for (;;) {
    const wait = mustWait(image, offset, length) ?? (how.copyUp ? mustFree(image, offset, length) : undefined);
    if (wait === undefined) break;
    await wait;
  }
  const ticket = image.gate.enter();
  try {
    const pieces: Promise<void>[] = [];
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const entry = image.entry(Math.floor(at / image.blockSize));
      if (isStored(entry)) at += clearStored(image, at, end, how, pieces);
      else if (image.isDifferencing && entry === UNALLOCATED) at += clearParents(image, at, end, how, pieces);
      else at += image.runLength(at, end - at);
    }
    if (pieces.length > 0) image.touch();
    await settled(pieces);
  } finally {
    image.gate.leave(ticket);
  }
}

/** Whether a whole block of the range gives its place up. */
function givesUp(image: VdiImage, offset: number, length: number): boolean {
  if (image.isStatic) return false;
  const { blockSize } = image;
  const end = offset + length;
  for (let block = Math.ceil(offset / blockSize); block * blockSize < end; block++) {
    const at = block * blockSize;
    if (isStored(image.entry(block)) && isWhole(image, at, Math.min(blockSize, end - at))) return true;
  }
  return false;
}

/** One run, or one block where blocks may give their place up. Returns the bytes that are done with. */
function clearStored(image: VdiImage, at: number, end: number, how: Partly, pieces: Promise<void>[]): number {
  const { blockSize } = image;
  const block = Math.floor(at / blockSize);
  const slot = image.entry(block);
  const single = how.giveUp && !image.isStatic;
  const size = single ? Math.min(end, (block + 1) * blockSize) - at : image.runLength(at, end - at);
  if (single && isWhole(image, at, size)) release(image, block, slot);
  else pieces.push(how.inFile(image.position(slot) + (at % blockSize), size));
  return size;
}

/** One block that shows the parent. */
function clearParents(image: VdiImage, at: number, end: number, how: Partly, pieces: Promise<void>[]): number {
  const block = Math.floor(at / image.blockSize);
  const size = Math.min(end, (block + 1) * image.blockSize) - at;
  if (isWhole(image, at, size)) {
    image.touch();
    image.setEntry(block, ZEROED);
  } else if (how.copyUp) pieces.push(allocate(image, takeOne(image, at, size), undefined));
  return size;
}

/** Of the last block, the disk may have only a part. */
function isWhole(image: VdiImage, at: number, size: number): boolean {
  return at % image.blockSize === 0 && (size === image.blockSize || at + size === image.length);
}

/** How many blocks at the ends of the range are the parent's and only partly in it. */
function partlyParents(image: VdiImage, offset: number, length: number): number {
  const { blockSize } = image;
  const first = Math.floor(offset / blockSize);
  const last = Math.floor((offset + length - 1) / blockSize);
  let count = 0;
  for (const block of first === last ? [first] : [first, last]) {
    const from = Math.max(offset, block * blockSize);
    const to = Math.min(offset + length, (block + 1) * blockSize);
    const parents = image.isDifferencing && image.entry(block) === UNALLOCATED;
    if (parents && !isWhole(image, from, to - from)) count++;
  }
  return count;
}

/** Places that have been given up are free once the map is durable: a copy may need them. */
function mustFree(image: VdiImage, offset: number, length: number): Promise<void> | undefined {
  const { slots } = image;
  if (slots.pending === 0 || slots.available >= 2) return undefined;
  return partlyParents(image, offset, length) > slots.available ? flush(image) : undefined;
}

function release(image: VdiImage, block: number, slot: number): void {
  image.touch();
  image.setEntry(block, ZEROED);
  image.slots.release(slot);
}
