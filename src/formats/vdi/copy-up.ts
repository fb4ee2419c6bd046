/**
 * New blocks of a differencing image (V-50): what the request does not cover of them is copied up from the parent, in one
 * write with the data where that is small. Where the parent is zero, a hole of the file will do.
 */
import { isZero } from '../../bytes/zero.ts';
import { settled } from '../../core/gate.ts';
import type { Run } from './allocate.ts';
import type { VdiImage } from './image.ts';
import { makeRoom } from './write-back.ts';

/** What has become of the blocks: written to their places, known to be zero, or as they were. */
export type Outcome = 'stored' | 'zero' | 'unchanged';

/** Data and what is copied around them are put together in memory up to this many bytes. */
const MERGE_MAX = 4 << 20;
/** Bytes copied at a time where there are more. */
const COPY_BYTES = 1 << 20;
/** Zeroes at the ends are left out in multiples of this. */
const GRAIN = 4096;

/** Bytes of the disk, half open. */
interface DiskRange {
  readonly from: number;
  readonly to: number;
}

/** Fills the places of a run. Without a source its range is zero; such a run is one block. */
export async function fillOverParent(image: VdiImage, run: Run, source: Uint8Array | undefined): Promise<Outcome> {
  const { head, tail } = parentsPart(image, run);
  if (source === undefined && (await isZeroBelow(image, { from: run.offset, to: run.offset + run.length }))) {
    return 'unchanged';
  }
  if (tail.to - head.from <= MERGE_MAX) return fillMerged(image, run, source, { from: head.from, to: tail.to });
  await fillInPieces(image, run, source, head, tail);
  return 'stored';
}

/** What must be copied before and behind the range of the request: the disk's own part only, and what the parent has. */
function parentsPart(image: VdiImage, run: Run): { head: DiskRange; tail: DiskRange } {
  const { blockSize } = image;
  const parent = image.requireParent();
  const has = Math.min(parent?.length() ?? 0, image.length);
  const end = run.offset + run.length;
  const start = run.firstBlock * blockSize;
  const head = image.showsParent(run.firstBlock) ? start : run.offset;
  const stop = (run.firstBlock + run.count) * blockSize;
  const tail = image.showsParent(run.firstBlock + run.count - 1) ? Math.max(end, Math.min(stop, has)) : end;
  return { head: { from: head, to: run.offset }, tail: { from: end, to: tail } };
}

async function readParent(image: VdiImage, offset: number, target: Uint8Array): Promise<void> {
  const parent = image.requireParent();
  if (parent === undefined) target.fill(0);
  else if (target.length > 0) await image.after('cow_read', () => parent.read(offset, target));
}

/** Whether the parent reads as zeroes there already. */
async function isZeroBelow(image: VdiImage, { from, to }: DiskRange): Promise<boolean> {
  const buffer = new Uint8Array(Math.min(COPY_BYTES, to - from));
  for (let at = from; at < to; at += buffer.length) {
    const piece = buffer.subarray(0, Math.min(buffer.length, to - at));
    await readParent(image, at, piece);
    if (!isZero(piece)) return false;
  }
  return true;
}

/** Everything in one write, less the zeroes at its ends that come from the parent. */
async function fillMerged(
  image: VdiImage,
  run: Run,
  source: Uint8Array | undefined,
  { from, to }: DiskRange,
): Promise<Outcome> {
  const bytes = new Uint8Array(to - from);
  const dataStart = run.offset - from;
  const dataEnd = dataStart + run.length;
  await settled([
    readParent(image, from, bytes.subarray(0, dataStart)),
    readParent(image, run.offset + run.length, bytes.subarray(dataEnd)),
  ]);
  if (source !== undefined) bytes.set(source, dataStart);
  else if (isZero(bytes)) return 'zero';
  let start = 0;
  while (start + GRAIN <= (source === undefined ? bytes.length : dataStart) && isZero(bytes, start, start + GRAIN)) {
    start += GRAIN;
  }
  let end = bytes.length;
  while (end - GRAIN >= (source === undefined ? start : dataEnd) && isZero(bytes, end - GRAIN, end)) end -= GRAIN;
  await makeRoom(image, run.firstSlot + run.count);
  const place = placeOf(image, run, from);
  if (run.length < bytes.length) await image.event('cow_write');
  const pieces = [image.after('write_aio', () => image.file.write(place + start, bytes.subarray(start, end)))];
  clearAround(image, run, place + start, place + end, pieces);
  await settled(pieces);
  return 'stored';
}

async function fillInPieces(
  image: VdiImage,
  run: Run,
  source: Uint8Array | undefined,
  head: DiskRange,
  tail: DiskRange,
): Promise<void> {
  await makeRoom(image, run.firstSlot + run.count);
  const data = placeOf(image, run, run.offset);
  const pieces = [copyRange(image, run, head), copyRange(image, run, tail)];
  if (source !== undefined) pieces.push(image.after('write_aio', () => image.file.write(data, source)));
  else if (!run.fresh) pieces.push(image.file.writeZeroes(data, run.length, { unmap: true }));
  clearAround(image, run, placeOf(image, run, head.from), placeOf(image, run, tail.to), pieces);
  await settled(pieces);
}

/** Copies from the parent into the run's places, a piece at a time. */
async function copyRange(image: VdiImage, run: Run, { from, to }: DiskRange): Promise<void> {
  const buffer = new Uint8Array(Math.min(COPY_BYTES, to - from));
  for (let at = from; at < to; at += buffer.length) {
    const piece = buffer.subarray(0, Math.min(buffer.length, to - at));
    await readParent(image, at, piece);
    const place = placeOf(image, run, at);
    await image.event('cow_write');
    if (!isZero(piece)) await image.file.write(place, piece);
    else if (!run.fresh) await image.file.writeZeroes(place, piece.length, { unmap: true });
  }
}

/** Position in the file of a byte of the disk that lies in the run. Blocks of a run of several lie side by side. */
function placeOf(image: VdiImage, { firstBlock, firstSlot }: Run, offset: number): number {
  return image.position(firstSlot) + (offset - firstBlock * image.blockSize);
}

/** What the run's places hold outside [from, to) must be zero, and is by itself only in a file that grows by them. */
export function clearAround(image: VdiImage, run: Run, from: number, to: number, pieces: Promise<void>[]): void {
  if (run.fresh) return;
  const start = image.startOf(run.firstSlot);
  const end = image.startOf(run.firstSlot + run.count);
  if (from > start) pieces.push(image.file.writeZeroes(start, from - start, { unmap: true }));
  if (to < end) pieces.push(image.file.writeZeroes(to, end - to, { unmap: true }));
}
