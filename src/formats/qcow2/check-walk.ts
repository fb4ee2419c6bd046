/** Counting what an image's tables refer to, and telling what is wrong with them (Q-CHK-1, Q-CHK-3). */
import { alignUp } from '../../bytes/align.ts';
import { getU64, viewOf } from '../../bytes/big-endian.ts';
import type { CheckReport } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { walkBitmaps } from './bitmaps/check.ts';
import { encryptionRange } from './check-ranges.ts';
import type { Step } from './check-steps.ts';
import type { Qcow2Image } from './image.ts';
import { L1_ENTRY_BYTES } from './l1-table.ts';
import { L1_BYTES_MAX } from './layout.ts';
import { ClusterMarks, type ReferenceCounts } from './reference-counts.ts';
import { type Snapshot, snapshotTableBytes } from './snapshot-table.ts';
import {
  clusterKind,
  compressedPlace,
  entryHex,
  isCompressed,
  isCopied,
  Kind,
  l1Reserved,
  l2Reserved,
  offsetOf,
  withCopied,
} from './tables.ts';

/** A walk under way: where findings go, and what is counted. */
export interface Walk {
  readonly image: Qcow2Image;
  readonly references: ReferenceCounts;
  readonly report: CheckReport;
  /** The same for what is found in the range of the references only: in each of several passes something else. */
  readonly inRange: { readonly report: CheckReport; tell(line: string): void };
  /** Unaligned preallocated clusters are made plain zeroes, and blocks outside are told as repaired. */
  readonly repairing: boolean;
  readonly signal: AbortSignal | undefined;
  tell(line: string): void;
  /** The same for what qemu-img does not tell. */
  detail(line: string): void;
  readonly step: Step;
  /** The refcount structure can only be built anew. */
  rebuild: boolean;
  /** Something is used more often than it may be, so that it is worth a look at what (Q-CHK-6). */
  doubtful: boolean;
  /** Entries of the active tables that name storage without saying that it is theirs alone. */
  uncopied: number;
  /** Behind all clusters past the end of the file that are named, and that a file of this disk could have; 0: there are none. */
  strayEnd: number;
  /** Clusters of the range that compressed data were seen in; made when there are such. */
  packed: ClusterMarks | undefined;
  /** Those that metadata were seen in. Undefined without snapshots: then nothing else is used twice, and a count tells. */
  readonly metadata: ClusterMarks | undefined;
}

/** What a use is of. Shared: snapshots and the disk may have it together. */
type UsedAs = 'metadata' | 'data' | 'sharedMetadata' | 'sharedData';

/** Clusters that the image file has, the last one maybe in part. */
export function clustersOf({ file, layout }: Qcow2Image): number {
  return Math.ceil(file.length() / layout.clusterSize);
}

/** Counts everything. Throws what the signal holds when it is aborted. */
export async function walkImage(walk: Walk): Promise<void> {
  const { image } = walk;
  const { header, layout, extensions } = image;
  use(walk, 0, layout.clusterSize);
  const l1 = { offset: Number(header.l1Offset), entries: header.l1Entries, bytes: image.l1.bytes };
  await walkL1(walk, l1, true);
  if (layout.hasDataFile && image.snapshots.length > 0) {
    corrupt(walk, `ERROR ${image.snapshots.length} snapshots in image with data file`);
  }
  for (const snapshot of image.snapshots) await walkSnapshot(walk, snapshot);
  use(walk, Number(header.snapshotTableOffset), snapshotTableBytes(image.snapshots));
  use(walk, Number(header.refcountTableOffset), header.refcountTableClusters * layout.clusterSize);
  const encryption = encryptionRange(extensions, layout.clusterSize);
  use(walk, encryption.offset, encryption.length);
  await walkBitmaps(walk);
  await walkBlocks(walk);
}

/** Counts the clusters of a range once each. */
export function use(walk: Walk, offset: number, length: number, as: UsedAs = 'metadata'): void {
  if (length <= 0) return;
  const { image, references } = walk;
  const { clusterSize } = image.layout;
  const start = Math.floor(offset / clusterSize);
  const last = Math.floor((offset + length - 1) / clusterSize);
  if (start * clusterSize >= image.file.length() || last > clustersOf(image)) {
    pastEnd(walk, offset.toString(16), length.toString(16));
    // A part of it may be in the file all the same.
    if (isMetadata(as)) walk.doubtful = true;
    if (last < straysMax(image)) walk.strayEnd = Math.max(walk.strayEnd, last + 1);
    return;
  }
  // Nor may a repair put anything where this ends.
  if (last === clustersOf(image)) walk.strayEnd = Math.max(walk.strayEnd, last + 1);
  for (let cluster = start; cluster <= last; cluster++) {
    const count = references.add(cluster);
    noteUse(walk, cluster, count, as);
    if (count > image.refcounts.width.max) overflow(walk, cluster);
  }
}

function isMetadata(as: UsedAs): boolean {
  return as === 'metadata' || as === 'sharedMetadata';
}

/** Metadata and data have no cluster in common, though snapshots have each in common with the disk: counts may hide it. */
function noteUse(walk: Walk, cluster: number, count: number, as: UsedAs): void {
  if (count > 1 && (as === 'metadata' || as === 'data')) walk.doubtful = true;
  if (count === 0 || walk.metadata === undefined) return;
  const isCrossed = isMetadata(as) ? walk.metadata.add(cluster) : walk.metadata.has(cluster);
  if (count > 1 && isCrossed) walk.doubtful = true;
}

/** No cluster from here on can be the lost end of a file: far more than the disk takes. */
function straysMax({ file, length, layout }: Qcow2Image): number {
  return Math.ceil((4 * (file.length() + length)) / layout.clusterSize);
}

/** Both in hexadecimal. */
function pastEnd(walk: Walk, offset: string, length: string): void {
  corrupt(
    walk,
    'ERROR: counting reference for region exceeding the end of the file by one cluster or more: ' +
      `offset 0x${offset} size 0x${length}`,
  );
}

/** More uses than a count can hold. */
function overflow(walk: Walk, cluster: number): void {
  walk.references.undo(cluster);
  corruptInRange(walk, `ERROR: overflow cluster offset=0x${(cluster * walk.image.layout.clusterSize).toString(16)}`);
  walk.inRange.tell(
    'Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a clean copy if the image cannot be opened for writing',
  );
}

interface L1 {
  readonly offset: number;
  readonly entries: number;
  readonly bytes: Uint8Array;
}

/** As messages name it. */
export function nameOf({ id, name }: Snapshot): string {
  const text = new TextDecoder();
  return `snapshot ${text.decode(id)} (${text.decode(name)})`;
}

async function walkSnapshot(walk: Walk, snapshot: Snapshot): Promise<void> {
  const { image } = walk;
  const { clusterSize } = image.layout;
  const { l1Offset, l1Entries: entries } = snapshot;
  const name = `ERROR ${nameOf(snapshot)}`;
  if (BigInt(l1Offset) % BigInt(clusterSize) !== 0n) {
    const what = `l1_offset=0x${l1Offset.toString(16)}: L1 table is not cluster aligned; snapshot table entry corrupted`;
    return misplaced(walk, `${name} ${what}`);
  }
  if (entries * L1_ENTRY_BYTES > L1_BYTES_MAX) {
    const what = `l1_size=0x${entries.toString(16)}: L1 table is too large; snapshot table entry corrupted`;
    return misplaced(walk, `${name} ${what}`);
  }
  const offset = Number(l1Offset);
  const length = entries * L1_ENTRY_BYTES;
  // What lies past the end is told of, and there is nothing to look at.
  if (offset + length > alignUp(image.file.length(), clusterSize)) return use(walk, offset, length);
  const bytes = new Uint8Array(length);
  await image.file.read(offset, bytes);
  await walkL1(walk, { offset, entries, bytes }, false);
}

async function walkL1(walk: Walk, { offset, entries, bytes }: L1, isActive: boolean): Promise<void> {
  const { image, report } = walk;
  const { clusterSize } = image.layout;
  use(walk, offset, entries * 8);
  const view = viewOf(bytes);
  const table = new Uint8Array(entries > 0 ? clusterSize : 0);
  let behind = 0;
  for (let index = 0; index < entries && index * 8 < bytes.length; index++) {
    const high = view.getUint32(index * 8);
    const low = view.getUint32(index * 8 + 4);
    if (high === 0 && low === 0) continue;
    walk.signal?.throwIfAborted();
    walk.step((isActive ? 1 : index + 1 - behind) * clusterSize);
    behind = index + 1;
    if (l1Reserved(high, low)) corrupt(walk, `ERROR found L1 entry with reserved bits set: ${entryHex(high, low)}`);
    // An entry of nothing but flags names what is at 0.
    const l2 = offsetOf(high, low);
    use(walk, l2, clusterSize, isActive ? 'metadata' : 'sharedMetadata');
    if (isActive && !isCopied(high)) walk.uncopied++;
    if (l2 % clusterSize !== 0) {
      const hex = l2.toString(16);
      corrupt(walk, `ERROR l2_offset=${hex}: Table is not cluster aligned; L1 entry corrupted`);
    }
    // There is nothing to look at past the end.
    if (l2 >= image.file.length()) continue;
    try {
      if (!image.file.tryReadNow(l2, table)) await image.file.read(l2, table);
      walkL2(walk, table, isActive);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      walk.tell('ERROR: I/O error in check_refcounts_l1');
      report.checkErrors++;
    }
  }
}

function corrupt(walk: Walk, line: string): void {
  walk.tell(line);
  walk.report.corruptions++;
}

/** Metadata that have no count, as they cannot be there: whoever looks at what is shared finds them, in whichever pass. */
function misplaced(walk: Walk, line: string): void {
  corrupt(walk, line);
  walk.doubtful = true;
}

function corruptInRange({ inRange }: Walk, line: string): void {
  inRange.tell(line);
  inRange.report.corruptions++;
}

function walkL2(walk: Walk, table: Uint8Array, isActive: boolean): void {
  const { entryBytes, extended } = walk.image.layout;
  const view = viewOf(table);
  let expected = 0;
  for (let at = 0; at < table.length; at += entryBytes) {
    if (!extended) {
      const run = walkOrdinary(walk, view, at, isActive, expected);
      at = run.at;
      expected = run.expected;
      if (at >= table.length) break;
    }
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    const zero = extended ? view.getUint32(at + 8) : 0;
    const allocated = extended ? view.getUint32(at + 12) : 0;
    if (high === 0 && low === 0 && allocated === 0) continue;
    expected = walkEntry(walk, { index: at / entryBytes, high, low, zero, allocated }, isActive, expected);
  }
}

/** Entries from `at` on that nothing is to be said of: empty ones, and whole clusters inside the file. The bulk of them all. */
function walkOrdinary(
  walk: Walk,
  view: DataView,
  at: number,
  isActive: boolean,
  expected: number,
): { at: number; expected: number } {
  const { image, references, report } = walk;
  const { clusterSize, clusterBits, hasDataFile } = image.layout;
  const held = clustersOf(image);
  const inCluster = clusterSize - 1;
  const perHigh = 2 ** (32 - clusterBits);
  const { byteLength } = view;
  const { max } = image.refcounts.width;
  // By cluster numbers, and signed words, which are quicker than offsets.
  let next = expected / clusterSize;
  let allocated = 0;
  let fragmented = 0;
  let uncopied = 0;
  let place = at;
  for (; !hasDataFile && place < byteLength; place += 8) {
    const high = view.getInt32(place);
    const low = view.getInt32(place + 4);
    if ((high | low) === 0) continue;
    // Reserved bits, compressed, zero flag, between clusters.
    if (((high & 0x7f000000) | (low & inCluster)) !== 0) break;
    const cluster = (high & 0x00ffffff) * perHigh + (low >>> clusterBits);
    if (cluster === 0 || cluster >= held) break;
    const count = references.add(cluster);
    if (count > max) overflow(walk, cluster);
    if (!isActive) {
      if (count > 1) noteUse(walk, cluster, count, 'sharedData');
      continue;
    }
    if (count > 1) walk.doubtful = true;
    // The copied bit is the sign.
    if (high >= 0) uncopied++;
    allocated++;
    if (next !== cluster && next !== 0) fragmented++;
    next = cluster + 1;
  }
  walk.uncopied += uncopied;
  report.allocatedClusters = (report.allocatedClusters ?? 0) + allocated;
  report.fragmentedClusters = (report.fragmentedClusters ?? 0) + fragmented;
  return { at: place, expected: next * clusterSize };
}

interface Entry {
  /** In its table. */
  readonly index: number;
  readonly high: number;
  readonly low: number;
  readonly zero: number;
  readonly allocated: number;
}

/** Returns where the next cluster would lie if it were adjacent. */
function walkEntry(walk: Walk, entry: Entry, isActive: boolean, expected: number): number {
  const { image, report } = walk;
  const { layout } = image;
  const { high, low } = entry;
  if (isCompressed(high)) {
    walkCompressed(walk, entry, isActive);
    return expected;
  }
  if (l2Reserved(high, low)) {
    corrupt(walk, `ERROR found l2 entry with reserved bits set: ${entryHex(high, low)}`);
  }
  const offset = offsetOf(high, low);
  const kind = clusterKind(high, low, layout.hasDataFile);
  if (kind === Kind.unallocated || kind === Kind.zeroPlain) {
    if (entry.allocated !== 0) corrupt(walk, 'ERROR: Unallocated cluster has non-zero subcluster allocation map');
    return expected;
  }
  if ((entry.allocated & entry.zero) !== 0) {
    const hex = offset.toString(16);
    corrupt(walk, `ERROR offset=${hex}: Allocated cluster has corrupted subcluster allocation bitmap`);
  }
  let next = expected;
  if (isActive) {
    report.allocatedClusters = (report.allocatedClusters ?? 0) + 1;
    if (expected !== 0 && expected !== offset) report.fragmentedClusters = (report.fragmentedClusters ?? 0) + 1;
    next = offset + layout.clusterSize;
    if (!isCopied(high)) walk.uncopied++;
  }
  if (offset % layout.clusterSize !== 0) {
    const holdsData = layout.extended ? entry.allocated !== 0 : kind !== Kind.zeroAllocated;
    const what = holdsData ? 'Data' : 'Preallocated';
    corrupt(walk, `ERROR offset=${offset.toString(16)}: ${what} cluster is not properly aligned; L2 entry corrupted.`);
  }
  if (!layout.hasDataFile) use(walk, offset, layout.clusterSize, isActive ? 'data' : 'sharedData');
  return next;
}

function walkCompressed(walk: Walk, { index, high, low, zero, allocated }: Entry, isActive: boolean): void {
  const { image, report } = walk;
  const { clusterBits, hasDataFile } = image.layout;
  const { offset, length } = compressedPlace(high, low, clusterBits);
  const hex = entryHex(withCopied(high, false), low);
  if (isCopied(high)) {
    const exact = exactPlace(high, low, clusterBits).offset;
    corrupt(walk, `ERROR: coffset=0x${exact}: copied flag must never be set for compressed clusters`);
  }
  if (hasDataFile) {
    corrupt(walk, `ERROR compressed cluster ${index} with data file, entry=0x${hex}`);
    return;
  }
  if ((zero | allocated) !== 0) {
    corrupt(walk, `ERROR compressed cluster ${index} with non-zero subcluster allocation bitmap, entry=0x${hex}`);
    // qemu-img counts no use then, and takes for leaked what can be read; whoever may write must not give it up.
    if (!image.writable) return;
  }
  if (isActive) {
    report.allocatedClusters = (report.allocatedClusters ?? 0) + 1;
    report.compressedClusters = (report.compressedClusters ?? 0) + 1;
    report.fragmentedClusters = (report.fragmentedClusters ?? 0) + 1;
  }
  if (Number.isSafeInteger(offset)) {
    use(walk, offset, length, 'sharedData');
    if (isActive) notePacked(walk, offset, length);
  } else {
    const exact = exactPlace(high, low, clusterBits);
    pastEnd(walk, exact.offset, exact.length);
  }
}

/** As text, since there may be more digits than a number holds. */
export function exactPlace(high: number, low: number, clusterBits: number): { offset: string; length: string } {
  const bits = BigInt(62 - (clusterBits - 8));
  const entry = (BigInt(high & 0x3fffffff) << 32n) | BigInt(low >>> 0);
  const offset = entry & ((1n << bits) - 1n);
  const length = ((entry >> bits) + 1n) * 512n - (offset & 511n);
  return { offset: offset.toString(16), length: length.toString(16) };
}

/** Compressed data share clusters with one another only. */
function notePacked(walk: Walk, offset: number, length: number): void {
  const { references, image } = walk;
  const { clusterSize } = image.layout;
  const { from, to } = references;
  walk.packed ??= new ClusterMarks(from, to);
  const last = Math.min(to - 1, Math.floor((offset + length - 1) / clusterSize));
  for (let cluster = Math.max(from, Math.floor(offset / clusterSize)); cluster <= last; cluster++) {
    if (walk.packed.add(cluster) && references.get(cluster) > 1) walk.doubtful = true;
  }
}

/** The refcount blocks, by the table as it is in the file. */
async function walkBlocks(walk: Walk): Promise<void> {
  const { image, references, report } = walk;
  const { header, layout, file } = image;
  const { clusterSize } = layout;
  const bytes = header.refcountTableClusters * clusterSize;
  const offset = Number(header.refcountTableOffset);
  const held = Math.max(0, Math.min(bytes, alignUp(file.length(), clusterSize) - offset));
  const table = new Uint8Array(held);
  await file.read(offset, table);
  const view = viewOf(table);
  for (let index = 0; index * 8 < held; index++) {
    const entry = getU64(view, index * 8);
    if (entry === 0) continue;
    const block = Number(BigInt(entry) & ~0x1ffn);
    if ((BigInt(entry) & 0x1ffn) !== 0n) {
      misplaced(walk, `ERROR refcount table entry ${index} has reserved bits set`);
      walk.rebuild = true;
      continue;
    }
    if (block % clusterSize !== 0) {
      misplaced(walk, `ERROR refcount block ${index} is not cluster aligned; refcount table entry corrupted`);
      walk.rebuild = true;
      continue;
    }
    if (block >= file.length()) {
      walk.tell(`ERROR refcount block ${index} is outside image`);
      report.corruptions++;
      if (walk.repairing) walk.rebuild = true;
      continue;
    }
    use(walk, block, clusterSize);
    const count = references.get(block / clusterSize);
    if (count > 1) {
      corruptInRange(walk, `ERROR refcount block ${index} refcount=${count}`);
      walk.rebuild = true;
    }
  }
}
