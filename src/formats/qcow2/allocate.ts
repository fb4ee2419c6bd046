/** Giving guest clusters storage: written whole, with what is around the data, and linked afterwards (Q-WR-3 to Q-WR-7). */
import { alignDown, alignUp } from '../../bytes/align.ts';
import { BlockError } from '../../core/errors.ts';
import type { Allocation } from './allocations.ts';
import { corruption } from './corruption.ts';
import { type CopyPlan, writeWithCopies } from './cow.ts';
import { type EntryWords, isInPlace, isStored, readEntry, releaseEntry, writeEntry } from './entries.ts';
import { allocateClusters } from './free-space.ts';
import type { Qcow2Image } from './image.ts';
import { sliceToChange } from './l2-tables.ts';
import { SUBCLUSTERS } from './layout.ts';
import { findRun, sliceOffset, spotOf } from './map.ts';
import { type HostOffset, highWord, isCompressed, Kind, lowWord, offsetOf } from './tables.ts';

/** Guest clusters side by side that get storage, or whose storage comes into use. */
export interface AllocationPlan {
  readonly guest: number;
  /** Bytes of the request. */
  readonly length: number;
  /** Guest offset of the first cluster. */
  readonly start: number;
  readonly clusters: number;
  /** Storage that is there already; undefined: it must be taken. */
  readonly host: HostOffset | undefined;
  /** Guest bytes that will be stored: those of the request and what is copied around them. */
  readonly copy: CopyPlan;
  /** Nobody else may touch these meanwhile. */
  readonly held: Allocation;
}

/**
 * Decides how the next bytes are stored, and holds others off their clusters. The table is writable and the first slice at
 * hand, and nothing is waited for.
 */
export function planAllocation(image: Qcow2Image, guest: number, limit: number): AllocationPlan {
  const { clusterSize, extended } = image.layout;
  const start = alignDown(guest, clusterSize);
  const first = entryAt(image, start);
  if (first === undefined) throw new TypeError('the slice was loaded before');
  if (isInPlace(image, first)) {
    const run = findRun(image, guest, limit);
    const length = extended || run === undefined ? Math.min(limit, start + clusterSize - guest) : run.length;
    const copy = copyIntoExisting(image, guest, length);
    const clusters = (alignUp(guest + length, clusterSize) - start) / clusterSize;
    const held = image.allocations.begin(copy.from, copy.to);
    return { guest, length, start, clusters, host: offsetOf(first.high, first.low), copy, held };
  }
  let clusters = 1;
  let last = first;
  while (start + clusters * clusterSize < guest + limit) {
    const next = entryAt(image, start + clusters * clusterSize);
    if (next === undefined || isInPlace(image, next)) break;
    last = next;
    clusters++;
  }
  const length = Math.min(limit, start + clusters * clusterSize - guest);
  const copy = copyIntoNew(image, guest, length, first, last);
  const held = image.allocations.begin(start, start + clusters * clusterSize);
  return { guest, length, start, clusters, host: image.layout.hasDataFile ? start : undefined, copy, held };
}

/** The entry, if its slice is at hand and belongs to the same writable table. */
function entryAt(image: Qcow2Image, guest: number): EntryWords | undefined {
  const { l1Index, l2Offset, index } = spotOf(image, guest);
  if (l2Offset === 0 || !image.l1.isCopied(l1Index)) return undefined;
  const slice = image.l2.peek(sliceOffset(image, l2Offset, index));
  return slice && readEntry(image, slice, guest);
}

/** In storage that is there: up to the edges of subclusters that hold no data yet. */
function copyIntoExisting(image: Qcow2Image, guest: number, length: number): CopyPlan {
  const { subclusterSize } = image.layout;
  const end = guest + length;
  const isNormal = (at: number) => findRun(image, at, 1)?.kind === Kind.normal;
  return {
    from: isNormal(guest) ? guest : alignDown(guest, subclusterSize),
    to: isNormal(end - 1) ? end : alignUp(end, subclusterSize),
  };
}

/**
 * In new storage: where a cluster held data, all of them are copied; else up to the edges of subclusters. Without
 * subclusters that is the whole cluster either way.
 */
function copyIntoNew(image: Qcow2Image, guest: number, length: number, first: EntryWords, last: EntryWords): CopyPlan {
  const { clusterSize, subclusterSize } = image.layout;
  const end = guest + length;
  const start = alignDown(guest, clusterSize);
  const stop = alignUp(end, clusterSize);
  let from = alignDown(guest, subclusterSize);
  let to = alignUp(end, subclusterSize);
  if (isCompressed(first.high)) from = start;
  else if (isStored(image, first)) from = Math.min(from, start + firstNormal(first.allocated) * subclusterSize);
  if (isCompressed(last.high)) to = stop;
  else if (isStored(image, last)) {
    to = Math.max(to, stop - clusterSize + (lastNormal(last.allocated) + 1) * subclusterSize);
  }
  return { from, to };
}

/** The lowest bit that is set; past the end if none is. */
function firstNormal(allocated: number): number {
  return allocated === 0 ? SUBCLUSTERS : 31 - Math.clz32(allocated & -allocated);
}

/** The highest bit that is set; -1 if none is. */
function lastNormal(allocated: number): number {
  return 31 - Math.clz32(allocated);
}

/** Takes storage, writes and links it. A failure leaves the mapping as it was (Q-WR-7). */
export async function allocateAndWrite(image: Qcow2Image, plan: AllocationPlan, source: Uint8Array): Promise<void> {
  const { clusterSize } = image.layout;
  let taken: HostOffset | undefined;
  let linked = 0;
  try {
    let { host } = plan;
    if (host === undefined) {
      taken = await allocateClusters(image.refcounts, plan.clusters);
      if (taken === 0) {
        const text = 'Preventing invalid allocation of data cluster at offset 0';
        throw await corruption(image, { fatal: true, text });
      }
      host = taken;
    } else if (host % clusterSize !== 0) {
      const text = `Preallocated zero cluster offset 0x${host.toString(16)} unaligned (guest offset: 0x${plan.start.toString(16)})`;
      throw await corruption(image, { fatal: true, text });
    }
    await writeWithCopies(image, plan, host, source);
    for (; linked < plan.clusters; linked++) await link(image, plan, host, linked);
  } catch (error) {
    if (taken !== undefined && linked < plan.clusters) {
      const from = taken + linked * clusterSize;
      const unlinked = (plan.clusters - linked) * clusterSize;
      await image.refcounts.change(from, unlinked, -1).catch(ignoreBlockError);
    }
    throw error;
  } finally {
    image.allocations.end(plan.held);
  }
}

function ignoreBlockError(error: unknown): void {
  if (!(error instanceof BlockError)) throw error;
}

/** Puts the entry of one cluster of the plan into its table, and gives up what it named before (Q-WR-5). */
async function link(image: Qcow2Image, plan: AllocationPlan, host: HostOffset, number: number): Promise<void> {
  const { clusterSize, extended } = image.layout;
  const guest = plan.start + number * clusterSize;
  const slice = await sliceToChange(image, guest);
  const old = readEntry(image, slice, guest);
  const place = host + number * clusterSize;
  const entry = { high: highWord(place, true), low: lowWord(place), zero: 0, allocated: 0 };
  writeEntry(image, slice, guest, extended ? { ...entry, ...bitmapAfter(image, plan, guest, old) } : entry);
  const isNew = !isStored(image, old) || offsetOf(old.high, old.low) !== place;
  if (isNew) releaseEntry(image, old, 'never');
}

/** Subclusters that are written or copied hold data from now on; others stay as they were, in a new place without data. */
function bitmapAfter(
  image: Qcow2Image,
  { copy }: AllocationPlan,
  guest: number,
  old: EntryWords,
): { zero: number; allocated: number } {
  const { subclusterSize } = image.layout;
  const from = Math.max(0, Math.floor((copy.from - guest) / subclusterSize));
  const to = Math.min(SUBCLUSTERS, Math.ceil((copy.to - guest) / subclusterSize));
  const mask = maskOf(from, to);
  if (isCompressed(old.high)) return { zero: 0, allocated: mask };
  const kept = isInPlace(image, old) ? old.allocated : 0;
  return { zero: (old.zero & ~mask) >>> 0, allocated: (kept | mask) >>> 0 };
}

/** Bits `from` up to, not including, `to`. */
export function maskOf(from: number, to: number): number {
  if (to <= from) return 0;
  const below = (count: number) => (count >= 32 ? 0xffffffff : 2 ** count - 1);
  return (below(to) & ~below(from)) >>> 0;
}
