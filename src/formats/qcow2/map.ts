/** Where guest data are: runs of one kind, contiguous in the host file (Q-MAP, Q-READ-1), across slices of L2 tables that are at hand. */
import type { CacheEntry } from './cache.ts';
import type { Qcow2Image } from './image.ts';
import type { Layout } from './layout.ts';
import { SUBCLUSTERS } from './layout.ts';
import {
  type CompressedPlace,
  clusterKind,
  compressedPlace,
  type HostOffset,
  hasZeroFlag,
  hexOffset,
  isCopied,
  Kind,
  offsetOf,
  subclusterKind,
} from './tables.ts';

export interface Run {
  readonly kind: Kind;
  /** Of the run's first byte; 0 where nothing is stored. */
  readonly host: HostOffset;
  /** Bytes, at most as many as asked for. */
  length: number;
  /** The storage is this table's alone (Q-REF-2). */
  readonly copied: boolean;
  /** Of a compressed cluster. */
  readonly compressed?: CompressedPlace;
  /** Of an invalid entry: what is wrong (Q-MAP-8). */
  readonly problem?: string;
}

/** A place in an L2 table. */
export interface Spot {
  readonly l1Index: number;
  /** Of the table. */
  readonly l2Offset: HostOffset;
  /** Of the entry in the table. */
  readonly index: number;
}

export function spotOf(image: Qcow2Image, guest: number): Spot {
  const { l2Reach, clusterSize } = image.layout;
  const l1Index = Math.floor(guest / l2Reach);
  return {
    l1Index,
    l2Offset: image.l1.l2Offset(l1Index),
    index: Math.floor((guest - l1Index * l2Reach) / clusterSize),
  };
}

/** Offset of the slice that holds an entry. */
export function sliceOffset(image: Qcow2Image, l2Offset: HostOffset, index: number): HostOffset {
  const byte = index * image.layout.entryBytes;
  return l2Offset + byte - (byte % image.l2.entryBytes);
}

/** Byte of an entry in its slice. */
export function byteInSlice(image: Qcow2Image, index: number): number {
  return (index * image.layout.entryBytes) % image.l2.entryBytes;
}

/** The run from `guest` on; undefined: a slice must be loaded first. `guest` may be past the disk's end (VM state). */
export function findRun(image: Qcow2Image, guest: number, limit: number): Run | undefined {
  const { l1Index, l2Offset, index } = spotOf(image, guest);
  if (l2Offset === 0) return emptyTables(image, guest, l1Index, limit);
  if (l2Offset % image.layout.clusterSize !== 0) {
    const problem = `L2 table offset ${hexOffset(l2Offset)} unaligned (L1 index: ${hexOffset(l1Index)})`;
    return { kind: Kind.invalid, host: 0, length: limit, copied: false, problem };
  }
  const slice = image.l2.peek(sliceOffset(image, l2Offset, index));
  if (slice === undefined) return undefined;
  const run = image.layout.extended
    ? subclusterRun(image, slice, { l1Index, l2Offset, index }, guest, limit)
    : clusterRun(image, slice, { l1Index, l2Offset, index }, guest, limit);
  if (run.length < limit) extend(image, run, guest, limit);
  return run;
}

/** The same, with slices read as needed. Rejects with BlockError when metadata cannot be read. */
export async function loadRun(image: Qcow2Image, guest: number, limit: number): Promise<Run> {
  for (;;) {
    const run = findRun(image, guest, limit);
    if (run !== undefined) return run;
    const { l2Offset, index } = spotOf(image, guest);
    await image.l2.get(sliceOffset(image, l2Offset, index));
  }
}

/** Nothing as far as there are no L2 tables. */
function emptyTables(image: Qcow2Image, guest: number, l1Index: number, limit: number): Run {
  const { l2Reach } = image.layout;
  let length = (l1Index + 1) * l2Reach - guest;
  for (let next = l1Index + 1; length < limit && image.l1.l2Offset(next) === 0; next++) length += l2Reach;
  return { kind: Kind.unallocated, host: 0, length: Math.min(length, limit), copied: false };
}

/** Goes on in the slices that follow, while they are at hand and continue the run. */
function extend(image: Qcow2Image, run: Run, guest: number, limit: number): void {
  if (run.kind === Kind.compressed || run.kind === Kind.invalid) return;
  const { clusterSize, entryBytes } = image.layout;
  const sliceReach = (image.l2.entryBytes / entryBytes) * clusterSize;
  for (;;) {
    const at = guest + run.length;
    // Only the end of a slice, not that of the run, is a place to go on at.
    if (run.length >= limit || at % sliceReach !== 0) return;
    const spot = spotOf(image, at);
    if (spot.l2Offset === 0 || spot.l2Offset % clusterSize !== 0) return;
    const slice = image.l2.peek(sliceOffset(image, spot.l2Offset, spot.index));
    if (slice === undefined) return;
    const next = image.layout.extended
      ? subclusterRun(image, slice, spot, at, limit - run.length)
      : clusterRun(image, slice, spot, at, limit - run.length);
    if (next.kind !== run.kind || next.copied !== run.copied) return;
    if (isStoredKind(run.kind) && next.host !== run.host + run.length) return;
    run.length += next.length;
  }
}

/** Kinds whose runs must be contiguous in the host file. */
function isStoredKind(kind: Kind): boolean {
  return kind === Kind.normal || kind === Kind.zeroAllocated || kind === Kind.unallocatedAllocated;
}

function clusterRun(image: Qcow2Image, slice: CacheEntry, spot: Spot, guest: number, limit: number): Run {
  const { layout } = image;
  const { clusterSize, hasDataFile } = layout;
  const { view } = slice;
  let at = byteInSlice(image, spot.index);
  const high = view.getUint32(at);
  const low = view.getUint32(at + 4);
  const kind = clusterKind(high, low, hasDataFile);
  const inCluster = guest % clusterSize;
  let length = Math.min(clusterSize - inCluster, limit);
  const copied = isCopied(high);
  if (kind === Kind.compressed) return compressedRun(layout, spot, high, low, length);
  if ((kind === Kind.zeroPlain || kind === Kind.zeroAllocated) && layout.version < 3) {
    const problem = `Zero cluster entry found in pre-v3 image (${place(spot)})`;
    return { kind: Kind.invalid, host: 0, length, copied, problem };
  }
  if (kind === Kind.unallocated || kind === Kind.zeroPlain) {
    for (at += 8; length < limit && at < view.byteLength; at += 8) {
      if (clusterKind(view.getUint32(at), view.getUint32(at + 4), hasDataFile) !== kind) break;
      length += clusterSize;
    }
    return { kind, host: 0, length: Math.min(length, limit), copied };
  }
  const cluster = offsetOf(high, low);
  const problem = storedProblem(layout, spot, cluster, guest - inCluster);
  if (problem !== undefined) return { kind: Kind.invalid, host: 0, length, copied, problem };
  // The entries of a run count up from the first.
  let expected = cluster + clusterSize;
  const flags = (high & 0xff000000) >>> 0;
  for (at += 8; length < limit && at < view.byteLength; at += 8) {
    const nextHigh = view.getUint32(at);
    const nextLow = view.getUint32(at + 4);
    if ((nextHigh & 0xff000000) >>> 0 !== flags || offsetOf(nextHigh, nextLow) !== expected) break;
    if (hasZeroFlag(nextLow) !== hasZeroFlag(low)) break;
    expected += clusterSize;
    length += clusterSize;
  }
  return { kind, host: cluster + inCluster, length: Math.min(length, limit), copied };
}

function place({ l2Offset, index }: Spot): string {
  return `L2 offset: ${hexOffset(l2Offset)}, L2 index: ${hexOffset(index)}`;
}

function compressedRun(layout: Layout, spot: Spot, high: number, low: number, length: number): Run {
  if (layout.hasDataFile) {
    const problem = `Compressed cluster entry found in image with external data file (${place(spot)})`;
    return { kind: Kind.invalid, host: 0, length, copied: false, problem };
  }
  const compressed = compressedPlace(high, low, layout.clusterBits);
  return { kind: Kind.compressed, host: 0, length, copied: false, compressed };
}

/** What is wrong about the place of a stored cluster. */
function storedProblem(layout: Layout, spot: Spot, cluster: HostOffset, guest: number): string | undefined {
  if (cluster % layout.clusterSize !== 0) {
    return `Cluster allocation offset ${hexOffset(cluster)} unaligned (${place(spot)})`;
  }
  if (layout.hasDataFile && cluster !== guest) {
    return (
      `External data file host cluster offset ${hexOffset(cluster)} does not match guest cluster offset: ` +
      `${hexOffset(guest)}, L2 index: ${hexOffset(spot.index)})`
    );
  }
  return undefined;
}

interface ClusterState {
  readonly kind: Kind;
  readonly copied: boolean;
  readonly host: HostOffset;
}

function subclusterRun(image: Qcow2Image, slice: CacheEntry, spot: Spot, guest: number, limit: number): Run {
  const { layout } = image;
  const { clusterSize, subclusterSize, hasDataFile } = layout;
  const { view } = slice;
  const start = byteInSlice(image, spot.index);
  const high = view.getUint32(start);
  const low = view.getUint32(start + 4);
  const inCluster = guest % clusterSize;
  const sub = Math.floor(inCluster / subclusterSize);
  const kind = subclusterKind(high, low, view.getUint32(start + 12), view.getUint32(start + 8), sub, hasDataFile);
  const copied = isCopied(high);
  const toClusterEnd = Math.min(clusterSize - inCluster, limit);
  if (kind === Kind.compressed) return compressedRun(layout, spot, high, low, toClusterEnd);
  if (kind === Kind.invalid) {
    const problem = `Invalid cluster entry found  (${place(spot)})`;
    return { kind, host: 0, length: Math.min(limit, subclusterSize - (guest % subclusterSize)), copied, problem };
  }
  const cluster = isStoredKind(kind) ? offsetOf(high, low) : 0;
  if (isStoredKind(kind)) {
    const problem = storedProblem(layout, spot, cluster, guest - inCluster);
    if (problem !== undefined) return { kind: Kind.invalid, host: 0, length: toClusterEnd, copied, problem };
  }
  const run = { kind, host: isStoredKind(kind) ? cluster + inCluster : 0, length: 0, copied };
  run.length = subclusterLength(image, view, start, { kind, copied, host: cluster }, sub, limit, guest);
  return run;
}

/** Bytes from `guest` on over subclusters like the first, in this and the following entries of the slice. */
function subclusterLength(
  image: Qcow2Image,
  view: DataView,
  start: number,
  first: ClusterState,
  firstSub: number,
  limit: number,
  guest: number,
): number {
  const { clusterSize, subclusterSize, hasDataFile } = image.layout;
  let length = -(guest % subclusterSize);
  let expected = first.host;
  let sub = firstSub;
  for (let at = start; at < view.byteLength; at += 16) {
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    if (at !== start && isCopied(high) !== first.copied) break;
    if (at !== start && isStoredKind(first.kind) && offsetOf(high, low) !== expected) break;
    const zero = view.getUint32(at + 8);
    const allocated = view.getUint32(at + 12);
    for (; sub < SUBCLUSTERS; sub++) {
      if (subclusterKind(high, low, allocated, zero, sub, hasDataFile) !== first.kind) return Math.min(length, limit);
      length += subclusterSize;
      if (length >= limit) return limit;
    }
    sub = 0;
    expected += clusterSize;
  }
  return Math.min(length, limit);
}
