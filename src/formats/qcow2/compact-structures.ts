/** Moving tables that lie in one piece, for a compaction: L1 tables, the refcount table, the snapshot table. */
import { alignUp } from '../../bytes/align.ts';
import { setU64, viewOf } from '../../bytes/big-endian.ts';
import { copyBytes, type Holes } from './compact-holes.ts';
import { allocateAtEnd, allocateClusters } from './free-space.ts';
import { switchL1 } from './grow-l1.ts';
import { FIELD_AT } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { L1_ENTRY_BYTES, L1Table } from './l1-table.ts';
import { writeHeaderField, writeMetadata } from './metadata-io.ts';
import { MetadataClass } from './overlap.ts';
import { switchTable } from './refcount-growth.ts';
import { snapshotTableBytes } from './snapshot-table.ts';
import type { HostOffset } from './tables.ts';
import { flush } from './write-back.ts';

interface Structure {
  /** Where it is now. */
  readonly offset: () => HostOffset;
  readonly clusters: number;
  /** Lets it be known at another place, where its copy is, durably; the original is given up. */
  readonly switchTo: (place: HostOffset) => Promise<void>;
}

export interface StructurePlan {
  /** Of several clusters, which are to lie side by side at the end. */
  readonly long: readonly Structure[];
  readonly short: readonly Structure[];
  /** All else fits below this cluster. */
  readonly limit: number;
}

/** What is to be moved when all fits into `used` clusters. */
export async function planStructures(image: Qcow2Image, used: number): Promise<StructurePlan> {
  const { clusterSize } = image.layout;
  const all = await structures(image);
  const end = ({ offset, clusters }: Structure) => offset() / clusterSize + clusters;
  let long: readonly Structure[] = [];
  for (let limit = used; ; ) {
    const behind = all.filter((each) => each.clusters > 1 && end(each) > limit);
    limit = used - behind.reduce((sum, { clusters }) => sum + clusters, 0);
    if (behind.length === long.length) {
      return { long, short: all.filter((each) => each.clusters === 1 && end(each) > limit), limit };
    }
    long = behind;
  }
}

/** What only one reference names, and can be moved by changing that. */
async function structures(image: Qcow2Image): Promise<Structure[]> {
  const { header, layout, refcounts, snapshots } = image;
  const { clusterSize } = layout;
  const all: Structure[] = [];
  const add = async (offset: () => HostOffset, bytes: number, switchTo: Structure['switchTo']) => {
    if (bytes === 0 || (await refcounts.get(offset() / clusterSize)) !== 1) return;
    all.push({ offset, clusters: Math.ceil(bytes / clusterSize), switchTo });
  };
  await add(
    () => image.l1.offset,
    image.l1.bytes.length,
    (place) => switchL1(image, new L1Table(place, image.l1.bytes)),
  );
  await add(
    () => Number(header.refcountTableOffset),
    header.refcountTableClusters * clusterSize,
    (place) => switchTable(refcounts, place, header.refcountTableClusters),
  );
  await add(
    () => Number(header.snapshotTableOffset),
    snapshotTableBytes(snapshots),
    (place) => switchSnapshotTable(image, place),
  );
  for (const [index, { l1Entries }] of snapshots.entries()) {
    await add(
      () => Number(image.snapshots[index]?.l1Offset ?? 0),
      l1Entries * L1_ENTRY_BYTES,
      (place) => switchSnapshotL1(image, index, place),
    );
  }
  return all;
}

async function switchSnapshotTable(image: Qcow2Image, place: HostOffset): Promise<void> {
  const { header, snapshots, metadata, layout } = image;
  const bytes = snapshotTableBytes(snapshots);
  const before = Number(header.snapshotTableOffset);
  const field = new Uint8Array(12);
  viewOf(field).setUint32(0, snapshots.length);
  setU64(viewOf(field), 4, place);
  await writeHeaderField(image, FIELD_AT.snapshots, field);
  header.snapshotTableOffset = place;
  metadata.remove(MetadataClass.snapshotTable, before, bytes);
  metadata.add(MetadataClass.snapshotTable, place, bytes);
  image.releases.add(before, Math.ceil(bytes / layout.clusterSize) * layout.clusterSize, 'other');
}

/** The offset is the first field of an entry, which begins at a multiple of 8: it is in one sector. */
async function switchSnapshotL1(image: Qcow2Image, index: number, place: HostOffset): Promise<void> {
  const { header, metadata, layout, file } = image;
  const snapshot = image.snapshots[index];
  if (snapshot === undefined) throw new RangeError(`there is no snapshot ${index}`);
  const bytes = snapshot.l1Entries * L1_ENTRY_BYTES;
  const field = new Uint8Array(8);
  setU64(viewOf(field), 0, place);
  const at = Number(header.snapshotTableOffset) + alignUp(snapshotTableBytes(image.snapshots.slice(0, index)), 8);
  await writeMetadata(image, MetadataClass.snapshotTable, at, field);
  image.snapshots = image.snapshots.with(index, { ...snapshot, l1Offset: place });
  metadata.add(MetadataClass.inactiveL1, place, bytes);
  await file.flush();
  metadata.remove(MetadataClass.inactiveL1, Number(snapshot.l1Offset), bytes);
  const clusters = Math.ceil(bytes / layout.clusterSize);
  image.releases.add(Number(snapshot.l1Offset), clusters * layout.clusterSize, 'other');
}

/** Takes those that begin below `used` out of the way, behind everything. */
export async function placeApart(image: Qcow2Image, long: readonly Structure[], used: number): Promise<void> {
  for (const each of long) {
    if (each.offset() >= used * image.layout.clusterSize) continue;
    await relocate(image, each, await allocateAtEnd(image.refcounts, each.clusters));
  }
}

/** Into holes. Resolves with how many were moved. */
export async function moveShort(image: Qcow2Image, holes: Holes, short: readonly Structure[]): Promise<number> {
  const { refcounts, layout } = image;
  let moved = 0;
  for (const each of short) {
    const hole = await holes.next();
    if (hole < 0) break;
    await refcounts.change(hole * layout.clusterSize, layout.clusterSize, 1);
    await relocate(image, each, hole * layout.clusterSize);
    moved++;
  }
  return moved;
}

/** To the first places where they fit. Resolves with how many clusters were moved. */
export async function placeBack(image: Qcow2Image, long: readonly Structure[]): Promise<number> {
  const { refcounts, layout } = image;
  let moved = 0;
  for (const each of long) {
    const place = await allocateClusters(refcounts, each.clusters);
    if (place < each.offset()) {
      await relocate(image, each, place);
      moved += each.clusters;
    } else await refcounts.change(place, each.clusters * layout.clusterSize, -1);
  }
  return moved;
}

/** Copies it to a place that is counted already, and makes that known. A failure before that gives the place back. */
async function relocate(
  image: Qcow2Image,
  { offset, clusters, switchTo }: Structure,
  place: HostOffset,
): Promise<void> {
  const { refcounts, layout, file } = image;
  const length = clusters * layout.clusterSize;
  try {
    await refcounts.writeBack();
    await copyBytes(image, [{ from: offset(), to: place, length }]);
    await file.flush();
  } catch (error) {
    await refcounts.change(place, length, -1).catch(() => {});
    throw error;
  }
  await switchTo(place);
  await flush(image);
}
