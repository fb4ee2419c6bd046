/** New clusters for someone else to fill: behind the end of the file, side by side, given out in order. */
import { BlockError } from '../../core/errors.ts';
import type { NewStorage } from '../../core/new-storage.ts';
import { readEntry, releaseEntry, writeEntry } from './entries.ts';
import { type FreeRange, rangeAtEnd } from './free-space.ts';
import { CryptMethod } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { sliceToChange } from './l2-tables.ts';
import { findRun } from './map.ts';
import { highWord, Kind, lowWord } from './tables.ts';

/** Bytes that can be given out at a time: the refcount blocks for them are there beforehand. */
const GIVEN_OUT = 512 << 20;
/** With smaller clusters those would be many blocks. */
const CLUSTER_MIN = 4096;
/** Numbers of storage are 32-bit integers. */
const NUMBER_MAX = 2 ** 31 - 1;

/** Undefined where a cluster is more than what is written to it: over a backing file, encrypted, in a data file. */
export async function newStorage(image: Qcow2Image): Promise<NewStorage | undefined> {
  const { file, layout, header, refcounts } = image;
  if (image.broken !== undefined || !image.writable || image.hasBacking || layout.hasDataFile) return undefined;
  if (layout.clusterSize < CLUSTER_MIN) return undefined;
  if (header.cryptMethod !== CryptMethod.none || !file.growable || !file.zeroInit()) return undefined;
  if (image.allocations.size > 0 || image.gate.closed) return undefined;
  const { first, end } = await rangeAtEnd(refcounts, GIVEN_OUT / layout.clusterSize);
  if (end > NUMBER_MAX) return undefined;
  return {
    unit: layout.clusterSize,
    at: { child: file.name, offset: 0 },
    next: first,
    limit: end,
    numberOf: (part) => numberOf(image, part),
    adopt: (parts) => adopt(image, { first, end }, parts),
  };
}

/** -1 where nothing is stored, undefined where it cannot be told or the cluster is not simply one of data. */
function numberOf(image: Qcow2Image, part: number): number | undefined {
  const { clusterSize } = image.layout;
  const guest = part * clusterSize;
  if (image.l1.l2Offset(Math.floor(guest / image.layout.l2Reach)) === 0) return -1;
  const length = Math.min(clusterSize, image.length - guest);
  const run = findRun(image, guest, length);
  if (run === undefined || run.length < length) return undefined;
  if (run.kind === Kind.unallocated || run.kind === Kind.zeroPlain) return -1;
  return run.kind === Kind.normal && run.copied ? run.host / clusterSize : undefined;
}

/** Counts the clusters first, since a table that is made for them takes what is free. What cannot be linked is free again. */
async function adopt(image: Qcow2Image, { first, end }: FreeRange, parts: readonly number[]): Promise<void> {
  if (parts.length === 0) return;
  const { refcounts, layout } = image;
  const { clusterSize } = layout;
  if (first + parts.length > end) throw new BlockError('ENOSPC', 'More storage was used than was given out');
  await refcounts.change(first * clusterSize, parts.length * clusterSize, 1);
  image.preallocated = undefined;
  let linked = 0;
  try {
    while (linked < parts.length) linked = await linkSlice(image, first, parts, linked);
  } catch (error) {
    const rest = (parts.length - linked) * clusterSize;
    await refcounts.change((first + linked) * clusterSize, rest, -1).catch(() => {});
    throw error;
  }
}

/** Links all parts in one slice of an L2 table; they come in ascending order. Resolves with the index of the next. */
async function linkSlice(image: Qcow2Image, first: number, parts: readonly number[], from: number): Promise<number> {
  const { clusterSize, extended, entryBytes } = image.layout;
  const start = parts[from] ?? 0;
  const slice = await sliceToChange(image, start * clusterSize);
  const reach = image.l2.entryBytes / entryBytes;
  const sliceEnd = (Math.floor(start / reach) + 1) * reach;
  const allocated = extended ? 0xffffffff : 0;
  let index = from;
  for (let part = parts[index]; part !== undefined && part < sliceEnd; part = parts[++index]) {
    const guest = part * clusterSize;
    const host = (first + index) * clusterSize;
    const old = readEntry(image, slice, guest);
    writeEntry(image, slice, guest, { high: highWord(host, true), low: lowWord(host), zero: 0, allocated });
    releaseEntry(image, old, 'never');
  }
  return index;
}
