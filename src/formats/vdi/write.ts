/** Writing (V-22, V-23, V-26): in place where a block is stored, else into a new place that the map names afterwards. */
import { isZero } from '../../bytes/zero.ts';
import { BlockError } from '../../core/errors.ts';
import { settled } from './gate.ts';
import type { VdiImage } from './image.ts';
import { isStored } from './map.ts';
import { extendFile, flush } from './write-back.ts';

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
      pieces.push(image.file.write(place, part(source, done, length)));
    } else {
      length = zeroBlocks(image, at, source, done);
      if (length === 0) {
        const run = takeRun(image, at, source, done);
        length = run.length;
        pieces.push(allocate(image, run, part(source, done, length)));
      }
    }
    done += length;
  }
  return pieces;
}

function part(source: Uint8Array, start: number, length: number): Uint8Array {
  return length === source.length ? source : source.subarray(start, start + length);
}

/** A whole block of zeroes where nothing is stored needs no place (V-66): its length, else 0. */
function zeroBlocks(image: VdiImage, offset: number, source: Uint8Array, start: number): number {
  const inBlock = offset % image.blockSize;
  const size = Math.min(image.blockSize, image.length - offset);
  if (inBlock !== 0 || source.length - start < size) return 0;
  return isZero(source, start, start + size) ? size : 0;
}

/** Blocks that get places side by side, and the range of the request that lies in them. */
interface Run {
  readonly offset: number;
  readonly length: number;
  readonly firstBlock: number;
  readonly firstSlot: number;
  readonly count: number;
  /** The places lie behind the file's end, and so read as zeroes when it grows. */
  readonly fresh: boolean;
}

/** Takes slots for as many of the blocks from `offset` on as can lie side by side. */
function takeRun(image: VdiImage, offset: number, source: Uint8Array, start: number): Run {
  const { slots, blockSize, stride, file } = image;
  const firstBlock = Math.floor(offset / blockSize);
  const firstSlot = slots.takeAny();
  if (firstSlot < 0) {
    throw new BlockError('ENOSPC', `No place is left in '${file.filename()}' for block ${firstBlock}`, {
      node: image.node,
    });
  }
  const limit = source.length - start;
  let length = blockSize - (offset % blockSize);
  let count = 1;
  while (length < limit && stride === blockSize) {
    const block = firstBlock + count;
    if (isStored(image.entry(block)) || image.allocating.has(block)) break;
    if (zeroBlocks(image, offset + length, source, start + length) > 0 || !slots.take(firstSlot + count)) break;
    count++;
    length += blockSize;
  }
  const fresh = image.startOf(firstSlot) >= file.length() && file.zeroInit();
  return { offset, length: Math.min(length, limit), firstBlock, firstSlot, count, fresh };
}

/** Writes the run's blocks whole and then names them in the map. Others that want the blocks wait (V-23). */
async function allocate(image: VdiImage, run: Run, source: Uint8Array): Promise<void> {
  const { firstBlock, firstSlot, count } = run;
  let over = () => {};
  const ended = new Promise<void>((resolve) => {
    over = resolve;
  });
  for (let i = 0; i < count; i++) image.allocating.set(firstBlock + i, ended);
  try {
    await fill(image, run, source);
    for (let i = 0; i < count; i++) image.setEntry(firstBlock + i, firstSlot + i);
    image.readable = Math.max(image.readable, firstSlot + count);
  } catch (error) {
    // No map has named them (V-26). Last first, so that the end comes back too.
    for (let i = count - 1; i >= 0; i--) image.slots.giveBack(firstSlot + i);
    throw error;
  } finally {
    for (let i = 0; i < count; i++) image.allocating.delete(firstBlock + i);
    over();
  }
}

/** Data, with zeroes around it where the file does not have them by itself (V-22). */
async function fill(image: VdiImage, run: Run, source: Uint8Array): Promise<void> {
  const { file } = image;
  const start = image.startOf(run.firstSlot);
  const data = image.position(run.firstSlot) + (run.offset % image.blockSize);
  const end = image.startOf(run.firstSlot + run.count);
  if (end > file.length() && !(image.fileGrows && file.growable)) {
    // A file that cannot grow says so here, and not when the map names the block.
    await extendFile(image);
    image.fileGrows = true;
  }
  const pieces = [file.write(data, source)];
  if (!run.fresh) {
    const dataEnd = data + source.length;
    if (data > start) pieces.push(file.writeZeroes(start, data - start, { unmap: true }));
    if (dataEnd < end) pieces.push(file.writeZeroes(dataEnd, end - dataEnd, { unmap: true }));
  }
  await settled(pieces);
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
