/** Moving stored blocks to other places in the file: each copy is durable before the map names it (V-67). */
import type { VdiImage } from './image.ts';
import { isStored, UNALLOCATED } from './map.ts';
import type { WriteBack } from './write-back.ts';

export interface Move {
  readonly block: number;
  readonly from: number;
  readonly to: number;
}

/** Bytes that are copied between two write-backs of the map. */
const BATCH_BYTES = 64 << 20;

/** Carries the moves out, in order; nobody else uses the image meanwhile. The places left behind are given up. */
export async function moveBlocks(
  image: VdiImage,
  writeBack: WriteBack,
  moves: readonly Move[],
  moved: (count: number) => void,
  signal?: AbortSignal,
): Promise<void> {
  const { file, blockSize, slots } = image;
  const buffer = new Uint8Array(Math.min(blockSize, 4 << 20));
  const batch = Math.max(1, Math.floor(BATCH_BYTES / blockSize));
  for (let start = 0; start < moves.length; start += batch) {
    signal?.throwIfAborted();
    const part = moves.slice(start, start + batch);
    for (const { from, to } of part) {
      for (let at = 0; at < blockSize; at += buffer.length) {
        await file.read(image.position(from) + at, buffer);
        await file.write(image.position(to) + at, buffer);
      }
      moved(1);
    }
    for (const { block, from, to } of part) {
      image.setEntry(block, to);
      slots.giveUp(from);
    }
    await writeBack.flush();
  }
}

/** Which block uses each slot up to `count`; UNALLOCATED where none does. */
export function slotOwners(image: VdiImage, count: number): Uint32Array {
  const owners = new Uint32Array(count).fill(UNALLOCATED);
  image.map.forEach((slot, block) => {
    if (isStored(slot) && slot < count) owners[slot] = block;
  });
  return owners;
}

/**
 * Moves the last blocks into the free places before them, so that all stored blocks lie side by side at the beginning.
 * What is given up must be durable before (a flush). Resolves with the number of blocks moved.
 */
export async function fillHoles(
  image: VdiImage,
  writeBack: WriteBack,
  options: { readonly signal?: AbortSignal | undefined; readonly moved?: (count: number) => void } = {},
): Promise<number> {
  const stored = image.countStored();
  const free = image.slots.takeAllFree();
  const moves = movesBelow(
    image,
    stored,
    free.filter((slot) => slot < stored),
  );
  let done = 0;
  try {
    await moveBlocks(
      image,
      writeBack,
      moves,
      () => {
        done++;
        options.moved?.(done);
      },
      options.signal,
    );
  } finally {
    const used = new Set(moves.slice(0, done).map((move) => move.to));
    for (const slot of free) if (!used.has(slot)) image.slots.putBack(slot);
  }
  image.headerDirty = true;
  await writeBack.flush();
  return done;
}

/** Moves that bring every block from a slot at or above `limit` into the given free slots below it. */
function movesBelow(image: VdiImage, limit: number, free: readonly number[]): Move[] {
  const moves: Move[] = [];
  let next = 0;
  const owners = slotOwners(image, image.slots.next);
  for (let from = limit; from < owners.length; from++) {
    const block = owners[from] ?? UNALLOCATED;
    const to = free[next];
    if (block === UNALLOCATED || to === undefined) continue;
    moves.push({ block, from, to });
    next++;
  }
  return moves;
}
