/** What is mended in tables before references are counted: bits that must be zero, storage that cannot be (Q-CHK-4, Q-CHK-6). */
import { viewOf } from '../../bytes/big-endian.ts';
import { BlockError } from '../../core/errors.ts';
import type { CheckRun } from './check-passes.ts';
import { exactPlace, nameOf } from './check-walk.ts';
import type { Qcow2Image } from './image.ts';
import { L1_ENTRY_BYTES } from './l1-table.ts';
import { L1_BYTES_MAX } from './layout.ts';
import { writeMetadata } from './metadata-io.ts';
import { MetadataClass } from './overlap.ts';
import {
  clusterKind,
  compressedPlace,
  entryHex,
  type HostOffset,
  isCompressed,
  isCopied,
  Kind,
  l1Reserved,
  l2Reserved,
  offsetOf,
  withCopied,
} from './tables.ts';

/** High and low words of entries without the bits that must be zero. */
const L1_KEPT = [0x80ffffff, 0xfffffe00] as const;
const L2_KEPT = [0xc0ffffff, 0xfffffe01] as const;

/** Tells of each. What cannot be read is left as it is. Throws BlockError when one cannot be written. */
export async function mendTables(run: CheckRun): Promise<void> {
  const { image, report } = run;
  const { clusterSize } = image.layout;
  await mendL1({ ...run, whose: '' }, image.l1.offset, image.l1.bytes, MetadataClass.activeL1);
  for (const snapshot of image.snapshots) {
    const { l1Offset, l1Entries } = snapshot;
    const mending = { ...run, whose: ` of ${nameOf(snapshot)}` };
    const [offset, length] = [Number(l1Offset), l1Entries * L1_ENTRY_BYTES];
    const isThere = offset % clusterSize === 0 && offset + length <= image.file.length();
    if (!isThere || length > L1_BYTES_MAX) continue;
    const bytes = new Uint8Array(length);
    if (!(await readTable(mending, offset, bytes))) continue;
    await mendL1(mending, offset, bytes, MetadataClass.inactiveL1);
  }
  if (report.corruptionsFixed > 0) await image.file.flush();
}

interface Mending extends CheckRun {
  /** Which snapshot's tables these are; empty for the disk. */
  readonly whose: string;
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
  const { image, options, step } = mending;
  const { clusterSize, l2Reach } = image.layout;
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
    const guest = (at / L1_ENTRY_BYTES) * l2Reach;
    if (isBeyond(image, l2, clusterSize) && mayZero(mending, guest, l2, false)) {
      view.setUint32(at, 0);
      view.setUint32(at + 4, 0);
      image.metadata.remove(MetadataClass.activeL2 | MetadataClass.inactiveL2, l2, clusterSize);
      await writeMetadata(image, ownClass, offset + at, bytes.slice(at, at + L1_ENTRY_BYTES));
    }
    if (l2 === 0 || l2 % clusterSize !== 0 || l2 + clusterSize > image.file.length()) continue;
    options.signal?.throwIfAborted();
    step(clusterSize);
    if (!(await readTable(mending, l2, table)) || !mendL2(mending, table, guest)) continue;
    for (let byte = 0; byte < clusterSize; byte += image.l2.entryBytes) image.l2.drop(l2 + byte);
    await writeMetadata(image, MetadataClass.activeL2 | MetadataClass.inactiveL2, l2, table);
  }
}

/** Nothing of it is in the file, or less than could be of its last cluster (Q-CHK-3). */
function isBeyond({ layout, file }: Qcow2Image, offset: HostOffset, length: number): boolean {
  const { clusterSize } = layout;
  const end = Math.ceil(file.length() / clusterSize);
  if (offset === 0) return false;
  const start = Math.floor(offset / clusterSize) * clusterSize;
  return start >= file.length() || Math.floor((offset + length - 1) / clusterSize) > end;
}

/**
 * Whether storage past the end of the file is to be given up, which is told. Only on demand: the rest of the file may turn
 * up. `asZeroes`: the entry can say that there are zeroes; else nothing may show through from below.
 */
function mayZero(mending: Mending, guest: number, offset: HostOffset, asZeroes: boolean): boolean {
  const { image, options, whose } = mending;
  if (options.zeroBeyondEnd !== true) return false;
  const [at, host] = [`guest offset 0x${guest.toString(16)}${whose}`, `host offset 0x${offset.toString(16)}`];
  if (!asZeroes && image.hasBacking) {
    options.detail?.(
      `${at} is left with what is past the end of the file at ${host}: else the backing file would show there`,
    );
    return false;
  }
  tell(mending, `${at}: ${host} is past the end of the file, so it reads as zeroes now`);
  return true;
}

/** Whether anything had to be. `guest`: offset of its first cluster. */
function mendL2(mending: Mending, table: Uint8Array, guest: number): boolean {
  const { clusterSize, entryBytes, extended, hasDataFile } = mending.image.layout;
  const view = viewOf(table);
  const inCluster = clusterSize - 1;
  let changed = false;
  for (let at = 0; at < table.length; at += entryBytes) {
    let high = view.getUint32(at);
    let low = view.getUint32(at + 4);
    if (mending.options.zeroBeyondEnd === true && zeroBeyond(mending, view, at, guest)) {
      changed = true;
      continue;
    }
    if ((high & 0x7f000000) === 0 && (low & inCluster) === 0) continue;
    if (isCompressed(high)) {
      if (mendCompressed(mending, view, at)) changed = true;
      continue;
    }
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

/** Whether anything had to be: what is read does not depend on such bits. */
function mendCompressed(mending: Mending, view: DataView, at: number): boolean {
  const { clusterBits, entryBytes, extended, hasDataFile } = mending.image.layout;
  if (hasDataFile) return false;
  const [high, low] = [view.getUint32(at), view.getUint32(at + 4)];
  const uncopied = withCopied(high, false);
  if (isCopied(high)) {
    const { offset } = exactPlace(high, low, clusterBits);
    tell(mending, `coffset=0x${offset}: copied flag must never be set for compressed clusters`);
    view.setUint32(at, uncopied);
  }
  const hasBitmap = extended && (view.getUint32(at + 8) | view.getUint32(at + 12)) !== 0;
  if (hasBitmap) {
    const what = `with non-zero subcluster allocation bitmap, entry=0x${entryHex(uncopied, low)}`;
    tell(mending, `compressed cluster ${at / entryBytes} ${what}`);
    view.setBigUint64(at + 8, 0n);
  }
  return isCopied(high) || hasBitmap;
}

/** Whether the entry has been made one of zeroes, as what it names is not there. */
function zeroBeyond(mending: Mending, view: DataView, at: number, first: number): boolean {
  const { image } = mending;
  const { clusterSize, clusterBits, entryBytes, extended, hasDataFile, version } = image.layout;
  const [high, low] = [view.getUint32(at), view.getUint32(at + 4)];
  const isPacked = isCompressed(high);
  if (hasDataFile || (high === 0 && low === 0)) return false;
  const { offset, length } = isPacked
    ? compressedPlace(high, low, clusterBits)
    : { offset: offsetOf(high, low), length: clusterSize };
  const guest = first + (at / entryBytes) * clusterSize;
  if (!isBeyond(image, offset, length) || !mayZero(mending, guest, offset, version >= 3)) return false;
  view.setUint32(at, 0);
  view.setUint32(at + 4, version >= 3 && !extended ? 1 : 0);
  if (extended) {
    view.setUint32(at + 8, 0xffffffff);
    view.setUint32(at + 12, 0);
  }
  return true;
}
