/** New clusters for someone else to fill: behind the end of the file, side by side, given out in order. */
import { isZero } from '../../bytes/zero.ts';
import { BlockError } from '../../core/errors.ts';
import type { NewStorage, PartRun } from '../../core/new-storage.ts';
import type { CacheEntry } from './cache.ts';
import { readEntry, releaseEntry, writeEntry } from './entries.ts';
import { type FreeRange, rangeAtEnd } from './free-space.ts';
import { CryptMethod } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { sliceToChange } from './l2-tables.ts';
import { findRun } from './map.ts';
import { highWord, Kind, lowWord } from './tables.ts';

/** Bytes that can be given out at a time, or more: the refcount blocks for them are there beforehand, for so many and no more. */
const GIVEN_OUT = 512 << 20;
/** Fewer are given out only if that spares the image a longer refcount table for now. */
const WORTHWHILE = 64 << 20;
/** With smaller clusters those would be many blocks. */
const CLUSTER_MIN = 4096;
/** Numbers of storage are 32-bit integers. */
const NUMBER_MAX = 2 ** 31 - 1;
const WORD = 2 ** 32;

/** Undefined where a cluster is more than what is written to it: over a backing file, encrypted, in a data file. */
export async function newStorage(image: Qcow2Image): Promise<NewStorage | undefined> {
  const { file, layout, header, refcounts } = image;
  if (image.broken !== undefined || !image.writable || image.hasBacking || layout.hasDataFile) return undefined;
  if (layout.clusterSize < CLUSTER_MIN) return undefined;
  if (header.cryptMethod !== CryptMethod.none || !file.growable || !file.zeroInit()) return undefined;
  if (image.allocations.size > 0 || image.gate.closed) return undefined;
  const least = WORTHWHILE / layout.clusterSize;
  const range = await rangeAtEnd(refcounts, GIVEN_OUT / layout.clusterSize, least);
  const { first } = range;
  const end = Math.min(range.end, NUMBER_MAX);
  if (end < first + least) return undefined;
  return {
    unit: layout.clusterSize,
    at: { child: file.name, offset: 0 },
    next: first,
    limit: end,
    numbers: (part, target) => numbers(image, part, target),
    adopt: (parts) => adopt(image, { first, end }, parts),
  };
}

/** Where parts are stored. Those without a table, all of a new image, are told at a glance. */
function numbers(image: Qcow2Image, first: number, target: Int32Array): boolean {
  const { clusterSize, l2Reach } = image.layout;
  const perTable = l2Reach / clusterSize;
  for (let index = 0; index < target.length; ) {
    const table = Math.floor((first + index) / perTable);
    const end = Math.min(target.length, (table + 1) * perTable - first);
    if (image.l1.l2Offset(table) === 0) target.fill(-1, index, end);
    else {
      for (let at = index; at < end; at++) {
        const number = numberOf(image, first + at);
        if (number === undefined) return false;
        target[at] = number;
      }
    }
    index = end;
  }
  return true;
}

/** -1 where a part is not stored, undefined where that cannot be told, or the cluster is not simply one of data. */
function numberOf(image: Qcow2Image, part: number): number | undefined {
  const { clusterSize } = image.layout;
  const guest = part * clusterSize;
  const length = Math.min(clusterSize, image.length - guest);
  const run = findRun(image, guest, length);
  if (run === undefined || run.length < length) return undefined;
  if (run.kind === Kind.unallocated || run.kind === Kind.zeroPlain) return -1;
  return run.kind === Kind.normal && run.copied ? run.host / clusterSize : undefined;
}

/** Counts the clusters first, since a table that is made for them takes what is free. What cannot be linked is free again. */
async function adopt(image: Qcow2Image, { first, end }: FreeRange, parts: readonly PartRun[]): Promise<void> {
  const { refcounts, layout } = image;
  const { clusterSize } = layout;
  const count = parts.reduce((sum, run) => sum + run.count, 0);
  if (count === 0) return;
  if (first + count > end) throw new BlockError('ENOSPC', 'More storage was used than was given out');
  await refcounts.change(first * clusterSize, count * clusterSize, 1);
  image.preallocated = undefined;
  const progress = { linked: 0 };
  try {
    await link(image, first, parts, progress);
  } catch (error) {
    const rest = (count - progress.linked) * clusterSize;
    await refcounts.change((first + progress.linked) * clusterSize, rest, -1).catch(() => {});
    throw error;
  }
}

/** Links all parts, to clusters from `first` on, slice of an L2 table by slice. */
async function link(
  image: Qcow2Image,
  first: number,
  parts: readonly PartRun[],
  progress: { linked: number },
): Promise<void> {
  const { clusterSize, extended, entryBytes } = image.layout;
  const reach = image.l2.entryBytes / entryBytes;
  let slice: CacheEntry | undefined;
  let sliceStart = 0;
  // In the table of a new image there is nothing to give up.
  let isNew = false;
  for (const run of parts) {
    const end = run.first + run.count;
    for (let part = run.first; part < end; ) {
      if (slice === undefined || part >= sliceStart + reach) {
        slice = await sliceToChange(image, part * clusterSize);
        sliceStart = part - (part % reach);
        isNew = !extended && isZero(slice.bytes);
      }
      const count = Math.min(end, sliceStart + reach) - part;
      const host = (first + progress.linked) * clusterSize;
      if (isNew) writeRun(slice, (part - sliceStart) * entryBytes, host, count, clusterSize);
      else for (let i = 0; i < count; i++) linkPart(image, slice, (part + i) * clusterSize, host + i * clusterSize);
      progress.linked += count;
      part += count;
    }
  }
}

/** Entries of clusters side by side, from byte `at` of a slice on: all there is to do for most clusters of a copy. */
function writeRun(slice: CacheEntry, at: number, host: number, count: number, clusterSize: number): void {
  const { view } = slice;
  let high = highWord(host, true);
  let low = lowWord(host);
  for (const end = at + count * 8; at < end; at += 8) {
    view.setUint32(at, high);
    view.setUint32(at + 4, low);
    low += clusterSize;
    if (low === WORD) {
      low = 0;
      high++;
    }
  }
  slice.dirty = true;
}

function linkPart(image: Qcow2Image, slice: CacheEntry, guest: number, host: number): void {
  const old = readEntry(image, slice, guest);
  const allocated = image.layout.extended ? 0xffffffff : 0;
  writeEntry(image, slice, guest, { high: highWord(host, true), low: lowWord(host), zero: 0, allocated });
  releaseEntry(image, old, 'never');
}
