/** Storage that data share with metadata, or with other data of the same L1 table: each is to have its own (Q-CHK-6). */
import { viewOf } from '../../bytes/big-endian.ts';
import { BlockError } from '../../core/errors.ts';
import type { Walk } from './check-walk.ts';
import type { Qcow2Image } from './image.ts';
import { classText, MetadataMap } from './overlap.ts';
import { readInside } from './read.ts';
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

/**
 * Tells of all that is shared and not counted as such, with guest ranges. What snapshots share with the disk, and
 * compressed clusters with one another, is as it must be.
 */
export async function findShared(walk: Walk): Promise<SharedCluster[]> {
  if (!walk.doubtful || walk.image.layout.hasDataFile) return [];
  const { image, references, report } = walk;
  const metadata = metadataOf(image);
  const owners = { whole: new Map<number, number>(), packed: new Map<number, number>() };
  const shared = new Map<number, SharedCluster>();
  await eachStored(walk, async (guest, cluster, isWhole) => {
    const counted = references.get(cluster);
    if (counted < 2) return;
    const classes = metadata.classesIn(cluster * image.layout.clusterSize, 1, ALL);
    const owner = owners.whole.get(cluster) ?? (isWhole ? owners.packed.get(cluster) : undefined);
    owners[isWhole ? 'whole' : 'packed'].set(cluster, guest);
    const isToldByCounts = (await image.refcounts.get(cluster).catch(() => 0)) < counted;
    if (classes === 0 && (owner === undefined || owner === guest || !isToldByCounts)) return;
    const partner = classes === 0 ? `data of guest offset 0x${(owner ?? 0).toString(16)}` : `the ${classText(classes)}`;
    walk.detail(`cluster ${cluster} holds data of guest offset 0x${guest.toString(16)} and ${partner}`);
    if (shared.has(guest)) return;
    if (!isToldByCounts) report.corruptions++;
    shared.set(guest, { guest, isCorruption: !isToldByCounts });
  });
  return [...shared.values()];
}

function metadataOf(image: Qcow2Image): MetadataMap {
  const kept = image.metadata;
  const found = new MetadataMap(image.layout.clusterSize);
  image.metadata = found;
  image.indexMetadata();
  image.metadata = kept;
  return found;
}

/** Every host cluster that the active L2 tables name, as far as they can be read. */
async function eachStored(
  { image, signal }: Walk,
  visit: (guest: number, cluster: number, isWhole: boolean) => Promise<void>,
): Promise<void> {
  const { l1, file, layout } = image;
  const { clusterSize, clusterBits, entryBytes, l2Reach } = layout;
  const table = new Uint8Array(clusterSize);
  const view = viewOf(table);
  for (let index = 0; index < l1.entries; index++) {
    const l2 = l1.l2Offset(index);
    if (l2 === 0 || l2 % clusterSize !== 0 || l2 >= file.length()) continue;
    signal?.throwIfAborted();
    await file.read(l2, table);
    for (let at = 0; at < clusterSize; at += entryBytes) {
      const [high, low] = [view.getUint32(at), view.getUint32(at + 4)];
      const guest = index * l2Reach + (at / entryBytes) * clusterSize;
      if (isCompressed(high)) {
        const { offset, length } = compressedPlace(high, low, clusterBits);
        const last = Math.floor((offset + length - 1) / clusterSize);
        for (let each = Math.floor(offset / clusterSize); each <= last; each++) await visit(guest, each, false);
        continue;
      }
      const kind = clusterKind(high, low, false);
      const offset = offsetOf(high, low);
      // What lies between clusters is told of, and cannot be read.
      if ((kind === Kind.normal || kind === Kind.zeroAllocated) && offset % clusterSize === 0) {
        await visit(guest, offset / clusterSize, true);
      }
    }
  }
}

/**
 * Gives clusters storage of their own, once counts and copied bits are right: their content is written anew. Resolves with
 * the corruptions that are mended by that.
 */
export async function separate({ image, report }: Walk, shared: readonly SharedCluster[]): Promise<number> {
  let mended = 0;
  for (const { guest, isCorruption } of shared) {
    const content = new Uint8Array(Math.min(image.layout.clusterSize, image.length - guest));
    if (content.length <= 0) continue;
    try {
      await readInside(image, guest, content);
      await write(image, guest, content);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      report.checkErrors++;
      continue;
    }
    report.corruptionsFixed++;
    if (isCorruption) mended++;
  }
  await flushAll(image);
  return mended;
}
