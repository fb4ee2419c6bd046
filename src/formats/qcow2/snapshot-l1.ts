/** The L1 table of a snapshot, read from the file. */
import { alignUp } from '../../bytes/align.ts';
import { BlockError } from '../../core/errors.ts';
import { checkTable } from './header-checks.ts';
import type { Qcow2Image } from './image.ts';
import { L1_ENTRY_BYTES, L1Table } from './l1-table.ts';
import { L1_BYTES_MAX } from './layout.ts';
import type { Snapshot } from './snapshot-table.ts';

/** Throws BlockError where the table cannot be one (Q-HDR-6), or cannot be read. */
export async function readSnapshotL1(image: Qcow2Image, { l1Offset, l1Entries }: Snapshot): Promise<L1Table> {
  const { clusterSize } = image.layout;
  const length = l1Entries * L1_ENTRY_BYTES;
  checkTable('Snapshot L1 table', l1Offset, length, L1_BYTES_MAX, clusterSize);
  const offset = Number(l1Offset);
  if (offset + length > alignUp(image.file.length(), clusterSize)) {
    throw new BlockError('EIO', 'Failed to read l1 table for snapshot', { node: image.node });
  }
  const bytes = new Uint8Array(length);
  if (length > 0) await image.file.read(offset, bytes);
  return new L1Table(offset, bytes);
}
