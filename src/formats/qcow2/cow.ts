/** What is written around data in new storage: copies of what the guest sees there, in one write if possible (Q-WR-3, Q-WR-4). */
import { alignUp } from '../../bytes/align.ts';
import { codeOf } from '../../core/errors.ts';
import { settled } from '../../core/gate.ts';
import { SECTOR } from '../../crypto/sector-cipher.ts';
import type { AllocationPlan } from './allocate.ts';
import type { Qcow2Image } from './image.ts';
import { findRun } from './map.ts';
import { requireNoOverlap } from './metadata-io.ts';
import { readInside } from './read.ts';
import { type HostOffset, Kind } from './tables.ts';
import { writeInPlace } from './write.ts';

/** Guest bytes, half open, around the request's. */
export interface CopyPlan {
  readonly from: number;
  readonly to: number;
}

/** Data and what is copied around them are put together in memory up to this many bytes. */
const MERGE_MAX = 1 << 20;

/** Writes the request's bytes and what is around them into the plan's storage, which begins at `host`. */
export async function writeWithCopies(
  image: Qcow2Image,
  plan: AllocationPlan,
  host: HostOffset,
  source: Uint8Array,
): Promise<void> {
  const { guest, length, start, copy } = plan;
  const at = (offset: number) => host + (offset - start);
  const end = guest + length;
  const hasCopies = copy.from < guest || copy.to > end;
  if (!hasCopies) return writeInPlace(image, at(guest), guest, source);
  // What is stored as zeroes does not read as zeroes where it is encrypted.
  const isZeroAround =
    image.cipher === undefined && readsZero(image, copy.from, guest) && readsZero(image, end, copy.to);
  if (isZeroAround && (await zeroAround(image, plan, host))) return writeInPlace(image, at(guest), guest, source);
  await image.raise('cow_read');
  const total = copy.to - copy.from;
  if (total <= MERGE_MAX) {
    const merged = new Uint8Array(total);
    await settled([
      readGuest(image, copy.from, merged.subarray(0, guest - copy.from)),
      readGuest(image, end, merged.subarray(end - copy.from)),
    ]);
    merged.set(source, guest - copy.from);
    await image.raise('cow_write');
    return writeInPlace(image, at(copy.from), copy.from, merged);
  }
  const head = new Uint8Array(guest - copy.from);
  const tail = new Uint8Array(copy.to - end);
  await settled([readGuest(image, copy.from, head), readGuest(image, end, tail)]);
  await image.raise('cow_write');
  const pieces = [writeInPlace(image, at(guest), guest, source)];
  if (head.length > 0) pieces.push(writeInPlace(image, at(copy.from), copy.from, head));
  if (tail.length > 0) pieces.push(writeInPlace(image, at(end), end, tail));
  await settled(pieces);
}

/** What the guest sees; behind the disk's end there are zeroes, whatever a longer backing file has there. */
async function readGuest(image: Qcow2Image, guest: number, target: Uint8Array): Promise<void> {
  // VM state lies behind the end, in clusters that no disk data share.
  const inside = guest >= image.length ? target.length : Math.min(target.length, image.length - guest);
  // What is encrypted is read by sectors.
  const read = image.cipher === undefined ? inside : alignUp(inside, SECTOR);
  if (read > 0) await readInside(image, guest, target.subarray(0, read));
  target.fill(0, inside);
}

/** Whether a range is known to read as zeroes, without asking any file. */
function readsZero(image: Qcow2Image, from: number, to: number): boolean {
  const shown = image.backing?.length() ?? 0;
  for (let at = from; at < to; ) {
    const run = findRun(image, at, to - at);
    if (run === undefined || run.kind === Kind.normal || run.kind === Kind.compressed || run.kind === Kind.invalid) {
      return false;
    }
    const isBacked = run.kind === Kind.unallocated || run.kind === Kind.unallocatedAllocated;
    if (isBacked && at < shown) return false;
    at += run.length;
  }
  return true;
}

/** Makes what is around the data read as zeroes without writing them; false: it cannot be done so. */
async function zeroAround(image: Qcow2Image, plan: AllocationPlan, host: HostOffset): Promise<boolean> {
  const { guest, length, start, copy } = plan;
  const at = (offset: number) => host + (offset - start);
  // New storage nobody sees yet, so one call does for all of it. In storage that is there the data may replace others.
  if (plan.host === undefined) return zeroSpan(image, at(copy.from), copy.to - copy.from);
  const end = guest + length;
  const head = copy.from === guest || (await zeroSpan(image, at(copy.from), guest - copy.from));
  return head && (copy.to === end || (await zeroSpan(image, at(end), copy.to - end)));
}

/** The same of a place in the file. */
async function zeroSpan(image: Qcow2Image, host: HostOffset, length: number): Promise<boolean> {
  const { data, file } = image;
  await image.raise('cluster_alloc_space');
  // Behind the file's end everything is zero as soon as the file is longer.
  if (data.growable && host >= data.length()) return true;
  if (data === file) await requireNoOverlap(image, host, length, 0);
  try {
    await data.writeZeroes(host, length, { noFallback: true });
    return true;
  } catch (error) {
    if (codeOf(error) === 'ENOTSUP') return false;
    throw error;
  }
}
