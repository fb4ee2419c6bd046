/** Writing (V-22, V-23, V-26): in place where a block is stored, else into a new place that the map names afterwards. */

import { settled } from '../../core/gate.ts';
import { allocate, takeRun } from './allocate.ts';
import type { VdiImage } from './image.ts';
import { isStored, UNALLOCATED, ZEROED } from './map.ts';
import { zeroBlocks } from './whole-zeroes.ts';
import { flush } from './write-back.ts';

export async function write(image: VdiImage, offset: number, source: Uint8Array): Promise<void> {
  image.requireSound();
  for (;;) {
    const wait =
      mustWait(image, offset, source.length) ?? (needsFlush(image, offset, source.length) ? flush(image) : undefined);
    if (wait === undefined) break;
    await wait;
  }
  // From here to the last piece's beginning nothing waits, so that what was looked at stays so.
  const ticket = image.gate.enter();
  image.touch();
  try {
    const pieces = begin(image, offset, source);
    if (pieces.length === 1) await pieces[0];
    else await settled(pieces);
  } finally {
    image.gate.leave(ticket);
  }
}

/** What a change of the range must wait for: blocks being moved, or a block of the range being allocated (V-23). */
export function mustWait(image: VdiImage, offset: number, length: number): Promise<void> | undefined {
  if (image.gate.closed) return image.gate.opened();
  if (image.allocating.size === 0) return undefined;
  const last = Math.floor((offset + length - 1) / image.blockSize);
  for (let block = Math.floor(offset / image.blockSize); block <= last; block++) {
    const other = image.allocating.get(block);
    if (other !== undefined) return other;
  }
  return undefined;
}

/** Whether free slots may run out although some have been given up: those are free once the map is durable. */
function needsFlush(image: VdiImage, offset: number, length: number): boolean {
  const { slots, blockSize } = image;
  if (slots.pending === 0) return false;
  const first = Math.floor(offset / blockSize);
  const last = Math.floor((offset + length - 1) / blockSize);
  if (slots.available > last - first) return false;
  let needed = 0;
  for (let block = first; block <= last; block++) if (!isStored(image.entry(block))) needed++;
  return needed > slots.available;
}

/** Begins the writes of a request: one for each run of the file. */
function begin(image: VdiImage, offset: number, source: Uint8Array): Promise<void>[] {
  const pieces: Promise<void>[] = [];
  for (let done = 0; done < source.length; ) {
    const at = offset + done;
    const slot = image.entry(Math.floor(at / image.blockSize));
    let length: number;
    if (isStored(slot)) {
      length = image.runLength(at, source.length - done);
      const place = image.position(slot) + (at % image.blockSize);
      const data = part(source, done, length);
      pieces.push(image.after('write_aio', () => image.file.write(place, data)));
    } else {
      length = zeroBlocks(image, at, source, done);
      if (length > 0) hide(image, Math.floor(at / image.blockSize));
      else {
        const run = takeRun(image, at, source, done);
        length = run.length;
        pieces.push(allocate(image, run, part(source, done, length)));
      }
    }
    done += length;
  }
  return pieces;
}

/** A block that holds nothing is zero from now on, whatever the parent has there (V-66). */
function hide(image: VdiImage, block: number): void {
  if (image.isDifferencing && image.entry(block) === UNALLOCATED) image.setEntry(block, ZEROED);
}

function part(source: Uint8Array, start: number, length: number): Uint8Array {
  return length === source.length ? source : source.subarray(start, start + length);
}

/** At once or not at all: in place, or into one new place behind the end of the file. */
export function tryWriteNow(image: VdiImage, offset: number, source: Uint8Array): boolean {
  if (image.refusal !== undefined || image.gate.closed) return false;
  const { blockSize } = image;
  const block = Math.floor(offset / blockSize);
  const slot = image.entry(block);
  const inBlock = offset - block * blockSize;
  if (!isStored(slot)) return allocateNow(image, block, inBlock, source);
  if (image.runLength(offset, source.length) < source.length) return false;
  if (!image.file.tryWriteNow(image.position(slot) + inBlock, source)) return false;
  image.touch();
  return true;
}

function allocateNow(image: VdiImage, block: number, inBlock: number, source: Uint8Array): boolean {
  const { slots, file } = image;
  const slot = slots.end;
  // What the parent has around it must be copied.
  if (image.showsParent(block)) return false;
  // A whole block may be zeroes, which are looked for elsewhere (V-66).
  if (inBlock + source.length > image.blockSize || source.length >= image.blockSize) return false;
  if (!image.fileGrows || slots.free > 0 || slot >= slots.capacity || image.allocating.size > 0) return false;
  if (image.startOf(slot) < file.length()) return false;
  if (!file.tryWriteNow(image.position(slot) + inBlock, source)) return false;
  slots.take(slot);
  image.readable = Math.max(image.readable, slot + 1);
  image.touch();
  image.setEntry(block, slot);
  return true;
}
