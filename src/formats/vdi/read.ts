/** Reading (V-20): blocks that lie side by side in the file are read as one piece, and the pieces at the same time. */
import type { VdiImage } from './image.ts';
import { isStored } from './map.ts';

export async function read(image: VdiImage, offset: number, target: Uint8Array): Promise<void> {
  const { slots } = image;
  const generation = slots.enter();
  try {
    const length = stretch(image, offset, target.length);
    if (length === target.length) return await readStretch(image, offset, target);
    const pieces: Promise<void>[] = [readStretch(image, offset, target.subarray(0, length))];
    for (let done = length; done < target.length; ) {
      const next = stretch(image, offset + done, target.length - done);
      pieces.push(readStretch(image, offset + done, target.subarray(done, done + next)));
      done += next;
    }
    await settled(pieces);
  } finally {
    slots.leave(generation);
  }
}

/** At once or not at all; nothing is allocated for a request inside one stretch. */
export function tryReadNow(image: VdiImage, offset: number, target: Uint8Array): boolean {
  if (image.damage.any) return false;
  const length = stretch(image, offset, target.length);
  if (length === target.length) return readStretchNow(image, offset, target);
  if (!readStretchNow(image, offset, target.subarray(0, length))) return false;
  for (let done = length; done < target.length; ) {
    const next = stretch(image, offset + done, target.length - done);
    if (!readStretchNow(image, offset + done, target.subarray(done, done + next))) return false;
    done += next;
  }
  return true;
}

/** How many bytes from `offset`, at most `limit`, are in one place in the file, or are zero together. */
function stretch(image: VdiImage, offset: number, limit: number): number {
  const { blockSize, stride } = image;
  let block = Math.floor(offset / blockSize);
  let length = (block + 1) * blockSize - offset;
  const first = image.entry(block);
  const stored = isStored(first);
  // Bytes of extra data between blocks keep them apart.
  if (stored && stride !== blockSize) return Math.min(length, limit);
  for (let next = first + 1; length < limit; next++) {
    block++;
    const entry = image.entry(block);
    if (stored ? entry !== next || !isStored(entry) : isStored(entry)) break;
    length += blockSize;
  }
  return Math.min(length, limit);
}

async function readStretch(image: VdiImage, offset: number, target: Uint8Array): Promise<void> {
  const block = Math.floor(offset / image.blockSize);
  const slot = image.entry(block);
  if (!isStored(slot)) {
    target.fill(0);
    return;
  }
  if (image.damage.any) requireReadable(image, offset, target.length);
  await image.file.read(image.position(slot) + (offset - block * image.blockSize), target);
}

function requireReadable(image: VdiImage, offset: number, length: number): void {
  const last = Math.floor((offset + length - 1) / image.blockSize);
  for (let block = Math.floor(offset / image.blockSize); block <= last; block++) image.requireReadable(block);
}

function readStretchNow(image: VdiImage, offset: number, target: Uint8Array): boolean {
  const block = Math.floor(offset / image.blockSize);
  const slot = image.entry(block);
  if (!isStored(slot)) {
    target.fill(0);
    return true;
  }
  return image.file.tryReadNow(image.position(slot) + (offset - block * image.blockSize), target);
}

/** Waits for all, also when one fails: no piece may still be under way when the request has ended. */
export async function settled(pieces: readonly Promise<void>[]): Promise<void> {
  const results = await Promise.allSettled(pieces);
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}
