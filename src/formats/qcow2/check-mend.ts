/** What is mended in tables before references are counted: bits that must be zero, storage that cannot be (Q-CHK-4, Q-CHK-6). */
import { viewOf } from '../../bytes/big-endian.ts';
import type { CheckOptions, CheckReport } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import type { Qcow2Image } from './image.ts';
import { L1_ENTRY_BYTES } from './l1-table.ts';
import { L1_BYTES_MAX } from './layout.ts';
import { writeMetadata } from './metadata-io.ts';
import { MetadataClass } from './overlap.ts';
import { clusterKind, entryHex, isCompressed, Kind, l1Reserved, l2Reserved, offsetOf } from './tables.ts';

/** High and low words of entries without the bits that must be zero. */
const L1_KEPT = [0x80ffffff, 0xfffffe00] as const;
const L2_KEPT = [0xc0ffffff, 0xfffffe01] as const;

interface Mending {
  readonly image: Qcow2Image;
  readonly report: CheckReport;
  readonly options: CheckOptions;
}

/** Tells of each. What cannot be read is left as it is. Throws BlockError when one cannot be written. */
export async function mendTables(image: Qcow2Image, report: CheckReport, options: CheckOptions): Promise<void> {
  const mending = { image, report, options };
  const { clusterSize } = image.layout;
  await mendL1(mending, image.l1.offset, image.l1.bytes, MetadataClass.activeL1);
  for (const { l1Offset, l1Entries } of image.snapshots) {
    const [offset, length] = [Number(l1Offset), l1Entries * L1_ENTRY_BYTES];
    const isThere = offset % clusterSize === 0 && offset + length <= image.file.length();
    if (!isThere || length > L1_BYTES_MAX) continue;
    const bytes = new Uint8Array(length);
    if (!(await readTable(mending, offset, bytes))) continue;
    await mendL1(mending, offset, bytes, MetadataClass.inactiveL1);
  }
  if (report.corruptionsFixed > 0) await image.file.flush();
}

/** False: it cannot be read, which is told. */
async function readTable({ image, report, options }: Mending, offset: number, table: Uint8Array): Promise<boolean> {
  try {
    if (!image.file.tryReadNow(offset, table)) await image.file.read(offset, table);
    return true;
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    options.finding('ERROR: I/O error in check_refcounts_l1');
    report.checkErrors++;
    return false;
  }
}

function tell({ report, options }: Mending, line: string): void {
  options.finding(`Repairing ${line}`);
  report.corruptionsFixed++;
}

async function mendL1(mending: Mending, offset: number, bytes: Uint8Array, ownClass: number): Promise<void> {
  const { image, options } = mending;
  const { clusterSize } = image.layout;
  const view = viewOf(bytes);
  const table = new Uint8Array(bytes.length === 0 ? 0 : clusterSize);
  for (let at = 0; at < bytes.length; at += L1_ENTRY_BYTES) {
    const [high, low] = [view.getUint32(at), view.getUint32(at + 4)];
    if (high === 0 && low === 0) continue;
    if (l1Reserved(high, low)) {
      tell(mending, `found L1 entry with reserved bits set: ${entryHex(high, low)}`);
      view.setUint32(at, high & L1_KEPT[0]);
      view.setUint32(at + 4, low & L1_KEPT[1]);
      await writeMetadata(image, ownClass, offset + at, bytes.slice(at, at + L1_ENTRY_BYTES));
    }
    const l2 = offsetOf(high, low);
    if (l2 === 0 || l2 % clusterSize !== 0 || l2 + clusterSize > image.file.length()) continue;
    options.signal?.throwIfAborted();
    if (!(await readTable(mending, l2, table)) || !mendL2(mending, table)) continue;
    for (let byte = 0; byte < clusterSize; byte += image.l2.entryBytes) image.l2.drop(l2 + byte);
    await writeMetadata(image, MetadataClass.activeL2 | MetadataClass.inactiveL2, l2, table);
  }
}

/** Whether anything had to be. */
function mendL2(mending: Mending, table: Uint8Array): boolean {
  const { clusterSize, entryBytes, extended, hasDataFile } = mending.image.layout;
  const view = viewOf(table);
  const inCluster = clusterSize - 1;
  let changed = false;
  for (let at = 0; at < table.length; at += entryBytes) {
    let high = view.getUint32(at);
    let low = view.getUint32(at + 4);
    if ((high & 0x7f000000) === 0 && (low & inCluster) === 0) continue;
    if (isCompressed(high)) continue;
    if (l2Reserved(high, low)) {
      tell(mending, `found l2 entry with reserved bits set: ${entryHex(high, low)}`);
      high &= L2_KEPT[0];
      low &= L2_KEPT[1];
      changed = true;
    }
    const holdsData = extended ? view.getUint32(at + 12) !== 0 : clusterKind(high, low, hasDataFile) === Kind.normal;
    const offset = offsetOf(high, low);
    if (!holdsData && offset % clusterSize !== 0) {
      const hex = offset.toString(16);
      tell(mending, `offset=${hex}: Preallocated cluster is not properly aligned; L2 entry corrupted.`);
      high = 0;
      low = extended ? 0 : 1;
      if (extended) view.setUint32(at + 8, 0xffffffff);
      changed = true;
    }
    view.setUint32(at, high >>> 0);
    view.setUint32(at + 4, low >>> 0);
  }
  return changed;
}
