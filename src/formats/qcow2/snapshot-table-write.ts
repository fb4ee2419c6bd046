/** Another snapshot table in a new place (Q-ORD-7). */
import { alignUp } from '../../bytes/align.ts';
import { setU64, viewOf } from '../../bytes/big-endian.ts';
import { allocateClusters } from './free-space.ts';
import { FIELD_AT } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { writeHeaderField, writeMetadata } from './metadata-io.ts';
import { MetadataClass } from './overlap.ts';
import { encodeSnapshotTable, type Snapshot, snapshotTableBytes } from './snapshot-table.ts';
import type { HostOffset } from './tables.ts';

/** Makes these, whose entries are complete, the image's snapshots, durably. Counts of what they name stay as they are. */
export async function replaceSnapshotTable(image: Qcow2Image, snapshots: readonly Snapshot[]): Promise<void> {
  const { header, layout, metadata, releases } = image;
  const bytes = encodeSnapshotTable(snapshots);
  const place = bytes.length === 0 ? 0 : await writeTable(image, bytes);
  const before = { offset: Number(header.snapshotTableOffset), length: snapshotTableBytes(image.snapshots) };
  const field = new Uint8Array(12);
  viewOf(field).setUint32(0, snapshots.length);
  setU64(viewOf(field), 4, place);
  // When this fails the file may name the new table already: it stays counted, a leak at worst.
  await writeHeaderField(image, FIELD_AT.snapshots, field, () => {
    header.snapshotCount = snapshots.length;
    header.snapshotTableOffset = place;
    image.snapshots = snapshots;
  });
  metadata.remove(MetadataClass.snapshotTable, before.offset, before.length);
  metadata.add(MetadataClass.snapshotTable, place, bytes.length);
  if (before.length > 0) releases.add(before.offset, alignUp(before.length, layout.clusterSize), 'other');
}

async function writeTable(image: Qcow2Image, bytes: Uint8Array): Promise<HostOffset> {
  const { layout, refcounts, file } = image;
  const length = alignUp(bytes.length, layout.clusterSize);
  const place = await allocateClusters(refcounts, length / layout.clusterSize);
  try {
    await refcounts.writeBack();
    await file.flush();
    await writeMetadata(image, MetadataClass.snapshotTable, place, bytes);
    await file.flush();
  } catch (error) {
    await refcounts.change(place, length, -1).catch(() => {});
    throw error;
  }
  return place;
}
