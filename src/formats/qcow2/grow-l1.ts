/** Another L1 table in a new place: a longer one, or a copy (Q-ORD-7). */
import { alignUp } from '../../bytes/align.ts';
import { setU64, viewOf } from '../../bytes/big-endian.ts';
import { codeOf, withErrno } from '../../core/errors.ts';
import { allocateClusters } from './free-space.ts';
import { FIELD_AT } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { L1_ENTRY_BYTES, L1Table } from './l1-table.ts';
import { writeHeaderField, writeMetadata } from './metadata-io.ts';
import { MetadataClass } from './overlap.ts';

export const GROWN_L1 = 'Failed to grow the L1 table';

/** An L1 table of at least so many entries, in a new place (Q-ORD-7). */
export async function growL1(image: Qcow2Image, entries: number): Promise<void> {
  const { l1, layout, refcounts, file } = image;
  if (entries <= l1.entries) return;
  try {
    await image.raise('l1_grow_alloc_table');
    const bytes = new Uint8Array(entries * L1_ENTRY_BYTES);
    bytes.set(l1.bytes);
    const clusters = alignUp(bytes.length, layout.clusterSize) / layout.clusterSize;
    const place = await allocateClusters(refcounts, clusters);
    try {
      await refcounts.writeBack();
      await file.flush();
      await image.raise('l1_grow_write_table');
      await writeMetadata(image, MetadataClass.activeL1, place, bytes);
      await file.flush();
    } catch (error) {
      await refcounts.change(place, bytes.length, -1).catch(() => {});
      throw error;
    }
    await image.raise('l1_grow_activate_table');
    await switchL1(image, new L1Table(place, bytes));
  } catch (error) {
    throw withErrno(codeOf(error), GROWN_L1, { cause: error, node: image.node });
  }
}

/** Points the header to another L1 table, durably, and gives up the one before. */
export async function switchL1(image: Qcow2Image, table: L1Table): Promise<void> {
  const { l1, metadata, header, layout, releases } = image;
  const field = new Uint8Array(12);
  viewOf(field).setUint32(0, table.entries);
  setU64(viewOf(field), 4, table.offset);
  await writeHeaderField(image, FIELD_AT.l1, field, () => {
    image.l1 = table;
    header.l1Entries = table.entries;
    header.l1Offset = table.offset;
  });
  metadata.remove(MetadataClass.activeL1, l1.offset, l1.bytes.length);
  metadata.add(MetadataClass.activeL1, table.offset, table.bytes.length);
  if (l1.entries > 0) releases.add(l1.offset, alignUp(l1.bytes.length, layout.clusterSize), 'other');
}
