/**
 * Storage that data of a snapshot share with other data of it, or with metadata (Q-CHK-6): each entry is to have its own, for
 * all who have its table, so that what snapshots rightly share stays shared. A power cut leaves leaks at worst.
 */
import { setU64, viewOf } from '../../bytes/big-endian.ts';
import { BlockError } from '../../core/errors.ts';
import { inactiveL1s, metadataOf, type NamedL1, newOwners, ownerBefore, storedClusters } from './check-shared.ts';
import type { Walk } from './check-walk.ts';
import { copyBytes } from './compact-holes.ts';
import { l2Tables } from './compact-tables.ts';
import { allocateClusters } from './free-space.ts';
import type { Qcow2Image } from './image.ts';
import { L1_ENTRY_BYTES, type L1Table } from './l1-table.ts';
import { writeMetadata } from './metadata-io.ts';
import { MetadataClass, type MetadataMap } from './overlap.ts';
import { compressedPlace, type HostOffset, highWord, isCompressed, lowWord, offsetOf } from './tables.ts';
import { flushAll } from './write-back.ts';

const L2_CLASSES = MetadataClass.activeL2 | MetadataClass.inactiveL2;

/** Clusters that are crossed, and whether each was counted as a corruption. */
export type Crossed = ReadonlyMap<number, boolean>;

/** Once counts are right. Resolves with the corruptions that are mended by that. */
export async function separateInactive(walk: Walk, crossed: Crossed): Promise<number> {
  const { image } = walk;
  // From here on tables are read and written past the cache.
  await flushAll(image);
  const before = walk.report.checkErrors;
  await separateTables(walk, crossed);
  const uses = await l2Tables(image);
  const metadata = await metadataOf(image);
  const moved = new Set<number>();
  for await (const { l1, name } of inactiveL1s(image)) {
    const owners = newOwners();
    for (let index = 0; index < l1.entries; index++) {
      const offset = l1.l2Offset(index);
      if (!isTable(image, metadata, offset)) continue;
      walk.signal?.throwIfAborted();
      const table = { offset, guest: index * image.layout.l2Reach, uses: uses.get(offset)?.uses ?? 1, name };
      await counted(walk, () => separateBelow(walk, table, { crossed, metadata, owners, moved }));
    }
  }
  image.decompressed.forget();
  image.l2.forgetAll();
  await flushAll(image);
  if (walk.report.checkErrors > before) return 0;
  return [...moved].filter((cluster) => crossed.get(cluster) === true).length;
}

/** What cannot be done is an error of the check, and the rest goes on. */
async function counted({ report }: Walk, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    report.checkErrors++;
  }
}

/** Whether an L2 table can be there, and is nothing else besides. */
function isTable({ layout, file }: Qcow2Image, metadata: MetadataMap, offset: HostOffset): boolean {
  if (offset === 0 || offset % layout.clusterSize !== 0 || offset >= file.length()) return false;
  return metadata.classesIn(offset, layout.clusterSize, ~L2_CLASSES) === 0;
}

/** Tables that one snapshot names twice get a copy for the second place. */
async function separateTables(walk: Walk, crossed: Crossed): Promise<void> {
  const { image } = walk;
  const metadata = await metadataOf(image);
  const seen = new Map<HostOffset, number>();
  for (const { l1Offset } of image.snapshots) seen.set(Number(l1Offset), (seen.get(Number(l1Offset)) ?? 0) + 1);
  for await (const named of inactiveL1s(image)) {
    const { offset, bytes } = named.l1;
    const uses = seen.get(offset) ?? 0;
    // The same table of several snapshots is changed for all of them at once.
    seen.delete(offset);
    if (uses === 0 || metadata.classesIn(offset, bytes.length, ~MetadataClass.inactiveL1) !== 0) continue;
    await counted(walk, () => copyTables(walk, named, { crossed, metadata, uses }));
  }
}

interface Tables {
  readonly crossed: Crossed;
  readonly metadata: MetadataMap;
  /** L1 tables at this place. */
  readonly uses: number;
}

async function copyTables(walk: Walk, { l1, name }: NamedL1, { crossed, metadata, uses }: Tables): Promise<void> {
  const { image } = walk;
  const { clusterSize, l2Reach } = image.layout;
  const seen = new Set<HostOffset>();
  for (let index = 0; index < l1.entries; index++) {
    const from = l1.l2Offset(index);
    if (!isTable(image, metadata, from) || !crossed.has(from / clusterSize)) continue;
    if (!seen.has(from)) {
      seen.add(from);
      continue;
    }
    const to = await newCluster(image, uses, async (place) => {
      await copyBytes(image, [{ from, to: place, length: clusterSize }]);
    });
    image.metadata.add(MetadataClass.inactiveL2, to, clusterSize);
    await writeL1Entry(image, l1, index, to);
    await image.file.flush();
    await image.refcounts.change(from, clusterSize, -uses);
    walk.detail(
      `Repairing guest offset 0x${(index * l2Reach).toString(16)} of ${name}: it has an L2 table of its own now`,
    );
    walk.report.corruptionsFixed++;
  }
}

async function writeL1Entry(image: Qcow2Image, l1: L1Table, index: number, to: HostOffset): Promise<void> {
  const entry = new Uint8Array(L1_ENTRY_BYTES);
  setU64(viewOf(entry), 0, to);
  await writeMetadata(image, MetadataClass.inactiveL1, l1.offset + index * L1_ENTRY_BYTES, entry);
}

/** A cluster with so many references, filled; both durable. After a failure it is free again. */
async function newCluster(
  image: Qcow2Image,
  uses: number,
  fill: (place: HostOffset) => Promise<void>,
): Promise<HostOffset> {
  const { refcounts, layout, file } = image;
  const place = await allocateClusters(refcounts, 1);
  let had = 1;
  try {
    if (uses > 1) await refcounts.change(place, layout.clusterSize, uses - 1);
    had = uses;
    await fill(place);
    await refcounts.writeBack();
    await file.flush();
  } catch (error) {
    await refcounts.change(place, layout.clusterSize, -had).catch(() => {});
    throw error;
  }
  return place;
}

interface L2Below {
  readonly offset: HostOffset;
  /** Guest offset of its first cluster. */
  readonly guest: number;
  /** L1 entries that name it. */
  readonly uses: number;
  readonly name: string | undefined;
}

interface Separation {
  readonly crossed: Crossed;
  readonly metadata: MetadataMap;
  readonly owners: ReturnType<typeof newOwners>;
  /** Clusters that an entry has left. */
  readonly moved: Set<number>;
}

async function separateBelow(walk: Walk, table: L2Below, separation: Separation): Promise<void> {
  const { image } = walk;
  const { clusterSize, entryBytes } = image.layout;
  const bytes = new Uint8Array(clusterSize);
  await image.file.read(table.offset, bytes);
  for (let at = 0; at < clusterSize; at += entryBytes) {
    const guest = table.guest + (at / entryBytes) * clusterSize;
    const entry = bytes.subarray(at, at + entryBytes);
    if (!isToMove(image, entry, guest, separation)) continue;
    const [high, low] = [viewOf(entry).getUint32(0), viewOf(entry).getUint32(4)];
    await moveEntry(image, { ...table, at, guest }, entry);
    for (const { cluster } of storedClusters(image, high, low)) separation.moved.add(cluster);
    walk.detail(`Repairing guest offset 0x${guest.toString(16)} of ${table.name}: it has storage of its own now`);
    walk.report.corruptionsFixed++;
  }
}

/** The first of several entries keeps what they share, unless it is metadata. */
function isToMove(image: Qcow2Image, entry: Uint8Array, guest: number, separation: Separation): boolean {
  const { crossed, metadata, owners } = separation;
  const view = viewOf(entry);
  let result = false;
  for (const { cluster, isWhole } of storedClusters(image, view.getUint32(0), view.getUint32(4))) {
    if (!crossed.has(cluster)) continue;
    const owner = ownerBefore(owners, guest, cluster, isWhole);
    const classes = metadata.classesIn(cluster * image.layout.clusterSize, 1, -1);
    if (classes !== 0 || (owner !== undefined && owner !== guest)) result = true;
  }
  return result;
}

/** Gives an entry a cluster of its own with the same content, and changes it in the file. */
async function moveEntry(
  image: Qcow2Image,
  { offset, at, guest, uses }: L2Below & { readonly at: number },
  entry: Uint8Array,
): Promise<void> {
  const { layout, file, cipher, refcounts } = image;
  const { clusterSize, clusterBits, extended } = layout;
  const view = viewOf(entry);
  const [high, low] = [view.getUint32(0), view.getUint32(4)];
  const packed = isCompressed(high) ? compressedPlace(high, low, clusterBits) : undefined;
  const from = packed ?? { offset: offsetOf(high, low), length: clusterSize };
  const to = await newCluster(image, uses, async (place) => {
    if (packed === undefined) {
      await copyBytes(image, [{ from: from.offset, to: place, length: clusterSize }], cipher?.moved);
      return;
    }
    const bytes = await image.decompressed.get(packed);
    await file.write(place, cipher === undefined ? bytes : cipher.encrypt(bytes, place, guest));
  });
  // Copied bits below snapshots mean nothing, and where the disk has the table too, it has it not alone.
  view.setUint32(0, highWord(to, false));
  view.setUint32(4, lowWord(to, packed === undefined && !extended && (low & 1) !== 0));
  if (extended && packed !== undefined) {
    view.setUint32(8, 0);
    view.setUint32(12, 0xffffffff);
  }
  await writeMetadata(image, L2_CLASSES, offset + at, entry);
  await file.flush();
  await refcounts.change(from.offset, from.length, -uses);
}
