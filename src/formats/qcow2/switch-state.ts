/**
 * The switch from one state of an image to another by one write of the header's sector: size, L1 table, refcount table and
 * snapshot table lie side by side in it. Whenever the power goes, the image is as it was or as it is to be, without leaks.
 */
import { setU64, viewOf } from '../../bytes/big-endian.ts';
import { BlockError } from '../../core/errors.ts';
import { FIELD_AT, type Qcow2Header } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { indexInactiveTables } from './inactive-tables.ts';
import type { L1Table } from './l1-table.ts';
import { writeHeaderField } from './metadata-io.ts';
import type { NextCounts, NextTable } from './next-counts.ts';
import { MetadataMap } from './overlap.ts';
import type { Snapshot } from './snapshot-table.ts';
import type { HostOffset } from './tables.ts';

/** What lies in the file already, in places that nothing else uses. */
export interface NextState {
  /** Bytes of the disk. */
  readonly size: number;
  readonly l1: L1Table;
  readonly snapshots: readonly Snapshot[];
  readonly snapshotTableOffset: HostOffset;
}

/** Bytes of the header's fields from the size to the snapshot table. */
const FIELDS = 48;

/** Makes the next state the one that holds, durably. Throws BlockError; the image is then as it was. */
export async function switchState(image: Qcow2Image, counts: NextCounts, next: NextState): Promise<void> {
  const refcountTable = await counts.finish();
  await image.file.flush();
  const header = { ...image.header };
  Object.assign(header, {
    size: next.size,
    l1Entries: next.l1.entries,
    l1Offset: next.l1.offset,
    refcountTableOffset: refcountTable.offset,
    refcountTableClusters: refcountTable.clusters,
    snapshotCount: next.snapshots.length,
    snapshotTableOffset: next.snapshotTableOffset,
  });
  await writeFields(image, header, () => adopt(image, header, refcountTable, next));
  await indexInactiveTables(image);
  await giveBack(image, counts);
}

async function writeFields(image: Qcow2Image, header: Qcow2Header, written: () => void): Promise<void> {
  await image.raise('l1_update');
  try {
    await writeHeaderField(image, FIELD_AT.size, fieldsOf(header), written);
  } catch (error) {
    // Which fields the file has now is not known, and both may not be used at once.
    await writeHeaderField(image, FIELD_AT.size, fieldsOf(image.header)).catch(() => {
      const text = 'Writing the header failed: the image must be opened again before it can be used';
      image.broken ??= new BlockError('EIO', text, { node: image.node, cause: error });
    });
    throw error;
  }
}

function fieldsOf(header: Qcow2Header): Uint8Array {
  const bytes = new Uint8Array(FIELDS);
  const view = viewOf(bytes);
  const at = (field: number) => field - FIELD_AT.size;
  setU64(view, 0, header.size);
  view.setUint32(at(FIELD_AT.cryptMethod), header.cryptMethod);
  view.setUint32(at(FIELD_AT.l1), header.l1Entries);
  setU64(view, at(FIELD_AT.l1) + 4, header.l1Offset);
  setU64(view, at(FIELD_AT.refcountTable), header.refcountTableOffset);
  view.setUint32(at(FIELD_AT.refcountTable) + 8, header.refcountTableClusters);
  view.setUint32(at(FIELD_AT.snapshots), header.snapshotCount);
  setU64(view, at(FIELD_AT.snapshots) + 4, header.snapshotTableOffset);
  return bytes;
}

/** All that is known of the state before is forgotten. */
function adopt(image: Qcow2Image, header: Qcow2Header, { blocks }: NextTable, { l1, snapshots }: NextState): void {
  Object.assign(image.header, header);
  image.l1 = l1;
  image.snapshots = snapshots;
  image.l2.forgetAll();
  image.decompressed.forget();
  image.refcounts.useStructure(blocks);
  image.preallocated = undefined;
  image.metadata = new MetadataMap(image.layout.clusterSize);
  image.indexMetadata();
}

/** A hint to the host: what cannot be given back just stays. */
async function giveBack(image: Qcow2Image, { freed }: NextCounts): Promise<void> {
  if (!image.settings.passDiscard.snapshot) return;
  for (const { offset, length } of freed) {
    await image.file.discard(offset, length).catch((error: unknown) => {
      if (!(error instanceof BlockError)) throw error;
    });
  }
}
