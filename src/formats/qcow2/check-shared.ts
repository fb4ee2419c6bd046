/** Storage that data share with metadata, or with other data of the same L1 table: each is to have its own (Q-CHK-6). */
import { viewOf } from '../../bytes/big-endian.ts';
import type { CheckReport } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { nameOf, type Walk } from './check-walk.ts';
import type { Qcow2Image } from './image.ts';
import type { L1Table } from './l1-table.ts';
import { classText, MetadataClass, MetadataMap } from './overlap.ts';
import { readInside } from './read.ts';
import { readSnapshotL1 } from './snapshot-l1.ts';
import { clusterKind, compressedPlace, isCompressed, Kind, offsetOf } from './tables.ts';
import { write } from './write.ts';
import { flushAll } from './write-back.ts';

/** Every class of metadata. */
const ALL = -1;

export interface SharedCluster {
  /** Guest offset of data that are to get storage of their own. */
  readonly guest: number;
  /** It was counted as a corruption here; else wrong counts tell of it. */
  readonly isCorruption: boolean;
}

export interface SharedData {
  /** Of the disk, by guest offset. */
  readonly active: Map<number, SharedCluster>;
  /**
   * Clusters of the image file that data of one snapshot share with other data of it or with metadata, and L2 tables that it
   * has twice; whether that was counted as a corruption here.
   */
  readonly crossed: Map<number, boolean>;
}

/** How what is found is told and remembered. */
export interface SharedSearch {
  /** Counts corruptions that wrong counts do not tell of. */
  readonly report: CheckReport;
  readonly shared: SharedData;
  /** The range of the references has counts that are too low. */
  readonly countsTooLow: boolean;
  /** Shared clusters that may be remembered. */
  readonly limit: number;
}

/**
 * Tells of all that is shared and not counted as such, with guest ranges. What snapshots share with the disk and with one
 * another, and compressed clusters among themselves, is as it must be. Throws BlockError ENOMEM where a repair would have
 * too much of it to remember.
 */
export async function findShared(walk: Walk, search: SharedSearch): Promise<void> {
  const { image } = walk;
  if (image.layout.hasDataFile) return;
  const isDoubtful = walk.doubtful || (image.snapshots.length > 0 && search.countsTooLow);
  if (!isDoubtful) return;
  const metadata = await metadataOf(image);
  await findSharedBy(walk, search, metadata, { l1: image.l1, name: undefined });
  for await (const inactive of inactiveL1s(image)) await findSharedBy(walk, search, metadata, inactive);
}

async function findSharedBy(
  walk: Walk,
  search: SharedSearch,
  metadata: MetadataMap,
  { l1, name }: NamedL1,
): Promise<void> {
  const { image, references } = walk;
  const { report, shared } = search;
  const whose = name === undefined ? '' : ` of ${name}`;
  const isToldByCounts = async (cluster: number) =>
    (await image.refcounts.get(cluster).catch(() => 0)) < references.get(cluster);
  if (name !== undefined) await findTablesNamedTwice(walk, search, { l1, name }, isToldByCounts);
  const owners = newOwners();
  await eachStored(walk, l1, async (guest, cluster, isWhole) => {
    if (references.get(cluster) < 2) return;
    const classes = metadata.classesIn(cluster * image.layout.clusterSize, 1, ALL);
    const isTold = await isToldByCounts(cluster);
    // Where counts say that two have it, nothing is wrong about that.
    if (classes === 0 && !isTold) return;
    const owner = ownerBefore(owners, guest, cluster, isWhole);
    if (classes === 0 && (owner === undefined || owner === guest)) return;
    const partner = classes === 0 ? `data of guest offset 0x${(owner ?? 0).toString(16)}` : `the ${classText(classes)}`;
    walk.detail(`cluster ${cluster} holds data of guest offset 0x${guest.toString(16)}${whose} and ${partner}`);
    const isKnown = name === undefined ? shared.active.has(guest) : shared.crossed.has(cluster);
    if (isKnown) return;
    if (!isTold) report.corruptions++;
    if (!mayRemember(walk, search)) return;
    if (name === undefined) shared.active.set(guest, { guest, isCorruption: !isTold });
    else shared.crossed.set(cluster, !isTold);
  });
}

/** L2 tables of a snapshot, so that all data below them would be at two places of its disk. */
async function findTablesNamedTwice(
  walk: Walk,
  search: SharedSearch,
  { l1, name }: NamedL1,
  isToldByCounts: (cluster: number) => Promise<boolean>,
): Promise<void> {
  const { clusterSize, l2Reach } = walk.image.layout;
  const seen = new Set<number>();
  for (let index = 0; index < l1.entries; index++) {
    const cluster = l1.l2Offset(index) / clusterSize;
    if (cluster === 0 || walk.references.get(cluster) < 2 || !(await isToldByCounts(cluster))) continue;
    if (seen.has(cluster)) {
      walk.detail(
        `cluster ${cluster} is the L2 table of guest offset 0x${(index * l2Reach).toString(16)} of ${name} and of another`,
      );
      if (mayRemember(walk, search)) search.shared.crossed.set(cluster, false);
    }
    seen.add(cluster);
  }
}

/** Throws BlockError ENOMEM where a repair would need what cannot be remembered. */
function mayRemember({ image, repairing }: Walk, { shared, limit }: SharedSearch): boolean {
  if (shared.active.size + shared.crossed.size < limit) return true;
  if (!repairing) return false;
  const text = `More than ${limit} clusters are shared by data: to repair that takes more memory than is given for it`;
  throw new BlockError('ENOMEM', text, { node: image.node });
}

/** Who was seen first to have a cluster, as guest offsets: of one L1 table. */
export interface Owners {
  readonly whole: Map<number, number>;
  readonly packed: Map<number, number>;
}

export function newOwners(): Owners {
  return { whole: new Map(), packed: new Map() };
}

/** Whoever has it besides; undefined: nobody before. Compressed clusters may share. */
export function ownerBefore(owners: Owners, guest: number, cluster: number, isWhole: boolean): number | undefined {
  const owner = owners.whole.get(cluster) ?? (isWhole ? owners.packed.get(cluster) : undefined);
  if (owner === undefined) owners[isWhole ? 'whole' : 'packed'].set(cluster, guest);
  return owner;
}

/** All metadata that can be found, L2 tables of snapshots too. */
export async function metadataOf(image: Qcow2Image): Promise<MetadataMap> {
  const kept = image.metadata;
  const found = new MetadataMap(image.layout.clusterSize);
  image.metadata = found;
  image.indexMetadata();
  image.metadata = kept;
  for await (const { l1 } of inactiveL1s(image)) {
    for (let index = 0; index < l1.entries; index++) {
      const offset = l1.l2Offset(index);
      if (offset !== 0) found.add(MetadataClass.inactiveL2, offset, image.layout.clusterSize);
    }
  }
  return found;
}

export interface NamedL1 {
  readonly l1: L1Table;
  /** The snapshot's; undefined: it is the disk's. */
  readonly name: string | undefined;
}

/** L1 tables of snapshots, as far as they can be read; the others are told of elsewhere. */
export async function* inactiveL1s(image: Qcow2Image): AsyncGenerator<NamedL1> {
  for (const snapshot of image.snapshots) {
    try {
      yield { l1: await readSnapshotL1(image, snapshot), name: nameOf(snapshot) };
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
    }
  }
}

/** Every host cluster that the L2 tables below an L1 table name, as far as they can be read. */
async function eachStored(
  { image, signal, step }: Walk,
  l1: L1Table,
  visit: (guest: number, cluster: number, isWhole: boolean) => Promise<void>,
): Promise<void> {
  const { file, layout } = image;
  const { clusterSize, entryBytes, l2Reach } = layout;
  const table = new Uint8Array(clusterSize);
  const view = viewOf(table);
  for (let index = 0; index < l1.entries; index++) {
    const l2 = l1.l2Offset(index);
    if (l2 === 0 || l2 % clusterSize !== 0 || l2 >= file.length()) continue;
    signal?.throwIfAborted();
    step(clusterSize);
    await file.read(l2, table);
    for (let at = 0; at < clusterSize; at += entryBytes) {
      const guest = index * l2Reach + (at / entryBytes) * clusterSize;
      for (const { cluster, isWhole } of storedClusters(image, view.getUint32(at), view.getUint32(at + 4))) {
        await visit(guest, cluster, isWhole);
      }
    }
  }
}

/** Clusters that an entry names. */
export function storedClusters({ layout }: Qcow2Image, high: number, low: number): StoredCluster[] {
  const { clusterSize, clusterBits } = layout;
  if (isCompressed(high)) {
    const { offset, length } = compressedPlace(high, low, clusterBits);
    const first = Math.floor(offset / clusterSize);
    const last = Math.floor((offset + length - 1) / clusterSize);
    return Array.from({ length: last - first + 1 }, (_, i) => ({ cluster: first + i, isWhole: false }));
  }
  const kind = clusterKind(high, low, false);
  const offset = offsetOf(high, low);
  // What lies between clusters is told of, and cannot be read.
  const isThere = (kind === Kind.normal || kind === Kind.zeroAllocated) && offset % clusterSize === 0;
  return isThere ? [{ cluster: offset / clusterSize, isWhole: true }] : [];
}

export interface StoredCluster {
  readonly cluster: number;
  /** It holds nothing else; not so where compressed data lie. */
  readonly isWhole: boolean;
}

/**
 * Gives clusters storage of their own, once counts and copied bits are right: their content is written anew. Resolves with
 * the corruptions that are mended by that.
 */
export async function separate(
  { image, report, signal, detail }: Walk,
  shared: Iterable<SharedCluster>,
): Promise<number> {
  let mended = 0;
  for (const { guest, isCorruption } of shared) {
    signal?.throwIfAborted();
    const { clusterSize } = image.layout;
    // Machine state lies behind the disk.
    const content = new Uint8Array(guest < image.length ? Math.min(clusterSize, image.length - guest) : clusterSize);
    try {
      await readInside(image, guest, content);
      await write(image, guest, content);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      report.checkErrors++;
      continue;
    }
    detail(`Repairing guest offset 0x${guest.toString(16)}: it has storage of its own now`);
    report.corruptionsFixed++;
    if (isCorruption) mended++;
  }
  await flushAll(image);
  return mended;
}
