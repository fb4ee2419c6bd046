/** Reading (V-20): blocks that lie side by side in the file are read as one piece, and the pieces at the same time. */
import { settled } from '../../core/gate.ts';
import type { VdiImage } from './image.ts';
import { isStored, UNALLOCATED } from './map.ts';

export async function read(image: VdiImage, offset: number, target: Uint8Array): Promise<void> {
  const { gate } = image;
  const ticket = gate.closed ? await gate.enterWhenOpen() : gate.enter();
  try {
    const first = image.runLength(offset, target.length);
    if (first === target.length) return await readRun(image, offset, target);
    const pieces = [readRun(image, offset, target.subarray(0, first))];
    for (let done = first; done < target.length; ) {
      const length = image.runLength(offset + done, target.length - done);
      pieces.push(readRun(image, offset + done, target.subarray(done, done + length)));
      done += length;
    }
    await settled(pieces);
  } finally {
    gate.leave(ticket);
  }
}

async function readRun(image: VdiImage, offset: number, target: Uint8Array): Promise<void> {
  const block = Math.floor(offset / image.blockSize);
  const slot = image.entry(block);
  if (!isStored(slot)) {
    // Behind the parent's end there are zeroes.
    const parent = slot === UNALLOCATED && image.isDifferencing ? image.requireParent() : undefined;
    if (parent !== undefined) return image.after('read_backing_aio', () => parent.read(offset, target));
    target.fill(0);
    return;
  }
  const at = image.position(slot) + (offset - block * image.blockSize);
  if (!image.isSound(slot) && !isThere(image, slot, at + target.length)) throw image.unreadable(block);
  await image.after('read_aio', () => image.file.read(at, target));
}

/**
 * Whether bytes of an unsound block can be had all the same. The file's last block may be cut short: what is there is
 * read, and what is not is zero for one who salvages (V-63). Of a shared block, only he takes what there is.
 */
function isThere(image: VdiImage, slot: number, end: number): boolean {
  if (slot >= image.map.length) return false;
  if (slot < image.readable) return image.salvage;
  const fileEnd = image.file.length();
  return end <= fileEnd || (image.salvage && image.position(slot) < fileEnd);
}

/** At once or not at all; a request inside one run allocates nothing. */
export function tryReadNow(image: VdiImage, offset: number, target: Uint8Array): boolean {
  if (image.gate.closed) return false;
  const first = image.runLength(offset, target.length);
  if (first === target.length) return readRunNow(image, offset, target);
  if (!readRunNow(image, offset, target.subarray(0, first))) return false;
  for (let done = first; done < target.length; ) {
    const length = image.runLength(offset + done, target.length - done);
    if (!readRunNow(image, offset + done, target.subarray(done, done + length))) return false;
    done += length;
  }
  return true;
}

function readRunNow(image: VdiImage, offset: number, target: Uint8Array): boolean {
  const block = Math.floor(offset / image.blockSize);
  const slot = image.entry(block);
  if (!isStored(slot)) {
    if (slot === UNALLOCATED && image.isDifferencing) return readParentNow(image, offset, target);
    target.fill(0);
    return true;
  }
  if (!image.isSound(slot)) return false;
  return image.file.tryReadNow(image.position(slot) + (offset - block * image.blockSize), target);
}

function readParentNow(image: VdiImage, offset: number, target: Uint8Array): boolean {
  const parent = image.parent();
  if (parent === undefined ? image.orphaned !== undefined : image.eventsHeard()) return false;
  const inside = Math.max(0, Math.min(target.length, (parent?.length() ?? 0) - offset));
  if (parent !== undefined && inside > 0) {
    if (!parent.tryReadNow(offset, inside === target.length ? target : target.subarray(0, inside))) return false;
  }
  if (inside < target.length) target.fill(0, inside);
  return true;
}
