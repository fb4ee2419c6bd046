/** All L2 tables of an image, those of snapshots too, read and changed past the cache, while no request is under way. */
import { viewOf } from '../../bytes/big-endian.ts';
import { corruption } from './corruption.ts';
import { checkTable } from './header-checks.ts';
import type { Qcow2Image } from './image.ts';
import { L1_ENTRY_BYTES } from './l1-table.ts';
import { L1_BYTES_MAX } from './layout.ts';
import { writeMetadata } from './metadata-io.ts';
import { MetadataClass } from './overlap.ts';
import { type HostOffset, offsetOf } from './tables.ts';

export interface L2Visit {
  readonly offset: HostOffset;
  readonly bytes: Uint8Array;
  /** Guest offset of its first cluster. */
  readonly guest: number;
  /** Below the active L1 table. */
  readonly active: boolean;
}

/** One that several L1 tables name comes once for each. Throws BlockError. */
export async function visitL2Tables(image: Qcow2Image, visit: (table: L2Visit) => Promise<void>): Promise<void> {
  await visitL1(image, image.l1.bytes, true, visit);
  for (const { l1Offset, l1Entries } of image.snapshots) {
    const length = l1Entries * L1_ENTRY_BYTES;
    checkTable('Snapshot L1 table', l1Offset, length, L1_BYTES_MAX, image.layout.clusterSize);
    const bytes = new Uint8Array(length);
    await image.loadMetadata(undefined, Number(l1Offset), bytes);
    await visitL1(image, bytes, false, visit);
  }
}

async function visitL1(
  image: Qcow2Image,
  l1: Uint8Array,
  active: boolean,
  visit: (table: L2Visit) => Promise<void>,
): Promise<void> {
  const { clusterSize, l2Reach } = image.layout;
  const view = viewOf(l1);
  for (let at = 0; at < l1.length; at += L1_ENTRY_BYTES) {
    const offset = offsetOf(view.getUint32(at), view.getUint32(at + 4));
    if (offset === 0) continue;
    if (offset % clusterSize !== 0) {
      const text = `L2 table offset 0x${offset.toString(16)} unaligned (L1 index: 0x${(at / L1_ENTRY_BYTES).toString(16)})`;
      throw await corruption(image, { fatal: true, text });
    }
    const bytes = new Uint8Array(clusterSize);
    await image.loadMetadata(undefined, offset, bytes);
    await visit({ offset, bytes, guest: (at / L1_ENTRY_BYTES) * l2Reach, active });
  }
}

/** Writes a table that was changed; slices of it that are cached are forgotten. */
export async function writeL2Table(image: Qcow2Image, { offset, bytes }: L2Visit): Promise<void> {
  for (let at = 0; at < bytes.length; at += image.l2.entryBytes) image.l2.drop(offset + at);
  await writeMetadata(image, MetadataClass.activeL2 | MetadataClass.inactiveL2, offset, bytes);
}
