/** Entries in slices: reading, changing, and giving up the storage that one names. */
import { alignDown, alignUp } from '../../bytes/align.ts';
import type { CacheEntry } from './cache.ts';
import type { Qcow2Image } from './image.ts';
import { byteInSlice } from './map.ts';
import type { ReleaseCause } from './releases.ts';
import { clusterKind, compressedPlace, isCompressed, isCopied, Kind, offsetOf } from './tables.ts';

/** An entry's words; those of the bitmap are 0 without subclusters. */
export interface EntryWords {
  readonly high: number;
  readonly low: number;
  /** Subclusters that are zero, and that are allocated (Q-MAP-7). */
  readonly zero: number;
  readonly allocated: number;
}

export function indexOf(image: Qcow2Image, guest: number): number {
  return Math.floor((guest % image.layout.l2Reach) / image.layout.clusterSize);
}

export function readEntry(image: Qcow2Image, { view }: CacheEntry, guest: number): EntryWords {
  const at = byteInSlice(image, indexOf(image, guest));
  const high = view.getUint32(at);
  const low = view.getUint32(at + 4);
  if (!image.layout.extended) return { high, low, zero: 0, allocated: 0 };
  return { high, low, zero: view.getUint32(at + 8), allocated: view.getUint32(at + 12) };
}

export function writeEntry(image: Qcow2Image, slice: CacheEntry, guest: number, entry: EntryWords): void {
  const at = byteInSlice(image, indexOf(image, guest));
  const { view } = slice;
  view.setUint32(at, entry.high);
  view.setUint32(at + 4, entry.low);
  if (image.layout.extended) {
    view.setUint32(at + 8, entry.zero);
    view.setUint32(at + 12, entry.allocated);
  }
  slice.dirty = true;
}

/** Nothing is stored, and no part is known to be zero of its own: the whole reads as zeroes, or as what is below. */
export function isEmptyEntry({ high, low }: EntryWords): boolean {
  return high === 0 && low === 0;
}

export function sameEntry(a: EntryWords, b: EntryWords): boolean {
  return a.high === b.high && a.low === b.low && a.zero === b.zero && a.allocated === b.allocated;
}

/** Whether the entry names storage that is not compressed. */
export function isStored({ layout }: Qcow2Image, { high, low }: EntryWords): boolean {
  const kind = clusterKind(high, low, layout.hasDataFile);
  return kind === Kind.normal || kind === Kind.zeroAllocated;
}

/** Whether data of the cluster can be written where they are (Q-WR-1). */
export function isInPlace(image: Qcow2Image, entry: EntryWords): boolean {
  return isStored(image, entry) && (isCopied(entry.high) || image.layout.hasDataFile);
}

/** Gives up the storage that an entry named, which has been taken out of its table. */
export function releaseEntry(image: Qcow2Image, entry: EntryWords, cause: ReleaseCause): void {
  const { layout, releases } = image;
  if (isCompressed(entry.high)) {
    const { offset, length } = compressedPlace(entry.high, entry.low, layout.clusterBits);
    const from = alignDown(offset, layout.clusterSize);
    releases.add(from, alignUp(offset + length, layout.clusterSize) - from, cause);
    return;
  }
  if (!isStored(image, entry) || layout.hasDataFile) return;
  const offset = offsetOf(entry.high, entry.low);
  // What does not lie where it may is not counted as what it seems to be.
  if (offset % layout.clusterSize === 0) releases.add(offset, layout.clusterSize, cause);
}
