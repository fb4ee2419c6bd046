/** Snapshots inside the image: made, gone back to, deleted, each by one switch of states (Q-SNAP-4 to Q-SNAP-6). */
import type { NewSnapshot, SnapshotWorkOptions } from '../../core/driver.ts';
import { BlockError, errorText } from '../../core/errors.ts';
import type { Qcow2Image } from './image.ts';
import { L1_ENTRY_BYTES, L1Table } from './l1-table.ts';
import { L1_BYTES_MAX, l1EntriesFor, SNAPSHOTS_MAX } from './layout.ts';
import { writeMetadata } from './metadata-io.ts';
import { NextCounts } from './next-counts.ts';
import { MetadataClass } from './overlap.ts';
import { readSnapshotL1 } from './snapshot-l1.ts';
import {
  completed,
  EXTRA_KNOWN,
  encodeSnapshotTable,
  type Snapshot,
  snapshotTableBytes,
  TABLE_MAX,
} from './snapshot-table.ts';
import { switchState } from './switch-state.ts';
import { countTables, exchangeTables, settleCopiedBits } from './table-references.ts';
import type { HostOffset } from './tables.ts';
import { flushAll } from './write-back.ts';

const NAME_MAX = 65535;

/** Throws BlockError ENOTSUP for an image that can have no snapshots (Q-DATA-3). */
export function requireSnapshots({ layout, node }: Qcow2Image): void {
  if (layout.hasDataFile) throw new BlockError('ENOTSUP', errorText('ENOTSUP'), { node });
}

/**
 * The L1 table goes to the snapshot as it is, and the disk gets a new one. L2 tables that hold copied bits stay with the
 * snapshot too, since bits below it mean nothing; the disk gets copies of those without.
 */
export async function createSnapshot(
  image: Qcow2Image,
  wanted: NewSnapshot,
  { signal }: SnapshotWorkOptions,
): Promise<void> {
  prepare(image);
  if (image.snapshots.length >= SNAPSHOTS_MAX) throw new BlockError('EFBIG', errorText('EFBIG'), { node: image.node });
  const name = new TextEncoder().encode(wanted.name);
  if (name.length > NAME_MAX) {
    throw new BlockError('ENAMETOOLONG', 'The name of a snapshot has at most 65535 bytes', { node: image.node });
  }
  await flushAll(image);
  const { l1, layout } = image;
  const counts = new NextCounts(image);
  const l1Bytes = l1.bytes.slice();
  // Machine state that the snapshot takes over is its alone.
  const shared = (wanted.vmStateSize ?? 0) > 0 ? l1EntriesFor(layout, image.length) : l1.entries;
  l1Bytes.fill(0, Math.min(shared, l1.entries) * L1_ENTRY_BYTES);
  await countTables(counts, l1, 'add', (index) => index < shared, signal);
  const snapshot = newSnapshot(image, wanted, name);
  const snapshots = [...image.snapshots, snapshot];
  await switchTo(image, counts, { l1Bytes, size: image.length, snapshots }, signal);
}

function newSnapshot(image: Qcow2Image, wanted: NewSnapshot, name: Uint8Array): Snapshot {
  const { time, vmStateSize = 0, vmClock = 0n, instructionCount } = wanted;
  const milliseconds = Math.max(0, Math.floor(time));
  return {
    l1Offset: image.l1.offset,
    l1Entries: image.l1.entries,
    id: new TextEncoder().encode(String(nextId(image.snapshots))),
    name,
    seconds: Math.min(0xffffffff, Math.floor(milliseconds / 1000)),
    nanoseconds: (milliseconds % 1000) * 1_000_000,
    vmClockNanoseconds: BigInt.asUintN(64, vmClock),
    vmStateSize,
    diskSize: image.length,
    instructionCount,
    unknownExtra: new Uint8Array(0),
    extraBytes: EXTRA_KNOWN,
  };
}

/** Above all numbers that ids begin with. */
function nextId(snapshots: readonly Snapshot[]): bigint {
  let highest = 0n;
  for (const { id } of snapshots) {
    const number = BigInt(/^\d*/.exec(new TextDecoder().decode(id))?.[0] || 0);
    if (number > highest) highest = number;
  }
  return highest + 1n;
}

/** The disk becomes what it was, in content and size. */
export async function applySnapshot(
  image: Qcow2Image,
  which: Snapshot,
  { signal }: SnapshotWorkOptions,
): Promise<void> {
  prepare(image);
  if (image.bitmaps.any()) {
    throw new BlockError('EBUSY', 'Device has active dirty bitmaps', { node: image.node });
  }
  const kept = await readSnapshotL1(image, which);
  const size = snapshotDiskSize(image, which);
  const { l1, layout } = image;
  const l1Bytes = new Uint8Array(Math.max(l1EntriesFor(layout, size), kept.entries) * L1_ENTRY_BYTES);
  if (l1Bytes.length > L1_BYTES_MAX) throw new BlockError('EFBIG', errorText('EFBIG'), { node: image.node });
  l1Bytes.set(kept.bytes);
  await flushAll(image);
  const counts = new NextCounts(image);
  await exchangeTables(counts, { to: kept, from: l1 }, signal);
  await switchTo(image, counts, { l1Bytes, size, snapshots: image.snapshots }, signal, true);
}

/** The disk stays as it is; what only the snapshot had is free. */
export async function deleteSnapshot(
  image: Qcow2Image,
  which: Snapshot,
  { signal }: SnapshotWorkOptions,
): Promise<void> {
  prepare(image);
  const kept = await readSnapshotL1(image, which);
  await flushAll(image);
  const counts = new NextCounts(image);
  await countTables(counts, kept, 'drop', () => true, signal);
  if (kept.bytes.length > 0) await counts.drop(kept.offset, kept.bytes.length);
  const snapshots = image.snapshots.filter((snapshot) => snapshot !== which);
  await switchTo(image, counts, { l1Bytes: image.l1.bytes.slice(), size: image.length, snapshots }, signal, true);
}

function prepare(image: Qcow2Image): void {
  requireSnapshots(image);
  image.requireUsable();
}

interface Wanted {
  /** Of the disk's L1 table; made fit to be that. */
  readonly l1Bytes: Uint8Array;
  readonly size: number;
  readonly snapshots: readonly Snapshot[];
}

/** `replacesL1`: nobody has the L1 table any more that was the disk's. */
async function switchTo(
  image: Qcow2Image,
  counts: NextCounts,
  { l1Bytes, size, snapshots }: Wanted,
  signal: AbortSignal | undefined,
  replacesL1 = false,
): Promise<void> {
  const { clusterSize } = image.layout;
  const offset = l1Bytes.length === 0 ? 0 : await counts.take(Math.ceil(l1Bytes.length / clusterSize));
  const l1 = new L1Table(offset, l1Bytes);
  await settleCopiedBits(counts, l1, signal);
  if (l1Bytes.length > 0) await writeMetadata(image, MetadataClass.activeL1, offset, l1Bytes);
  if (replacesL1 && image.l1.bytes.length > 0) await counts.drop(image.l1.offset, image.l1.bytes.length);
  const table = await placeSnapshotTable(image, counts, snapshots);
  signal?.throwIfAborted();
  await switchState(image, counts, { size, l1, ...table });
}

async function placeSnapshotTable(
  image: Qcow2Image,
  counts: NextCounts,
  wanted: readonly Snapshot[],
): Promise<{ snapshots: readonly Snapshot[]; snapshotTableOffset: HostOffset }> {
  const { clusterSize } = image.layout;
  const snapshots = wanted.map((snapshot) => completed(snapshot, image.length));
  const bytes = encodeSnapshotTable(snapshots);
  if (bytes.length > TABLE_MAX) throw new BlockError('EFBIG', 'Snapshot table is too big', { node: image.node });
  const before = snapshotTableBytes(image.snapshots);
  if (before > 0) await counts.drop(Number(image.header.snapshotTableOffset), before);
  if (bytes.length === 0) return { snapshots, snapshotTableOffset: 0 };
  const offset = await counts.take(Math.ceil(bytes.length / clusterSize));
  await writeMetadata(image, MetadataClass.snapshotTable, offset, bytes);
  return { snapshots, snapshotTableOffset: offset };
}

/** Bytes. Throws BlockError where the table says what no disk can have. */
function snapshotDiskSize(image: Qcow2Image, { diskSize = image.length }: Snapshot): number {
  if (typeof diskSize === 'number' && l1EntriesFor(image.layout, diskSize) * L1_ENTRY_BYTES <= L1_BYTES_MAX) {
    return diskSize;
  }
  throw new BlockError('EFBIG', errorText('EFBIG'), { node: image.node });
}

/** Shows a snapshot instead of the disk, in memory only (Q-SNAP-7). */
export async function showSnapshot(image: Qcow2Image, which: Snapshot): Promise<void> {
  image.requireUsable();
  if (image.writable) throw new BlockError('EINVAL', 'Device is not readonly', { node: image.node });
  const kept = await readSnapshotL1(image, which);
  image.header.size = snapshotDiskSize(image, which);
  image.l1 = kept;
  image.shown = which;
  image.preallocated = undefined;
}

/** The image was opened anew: what was shown still is. */
export async function showAgain(image: Qcow2Image, { id, name }: Snapshot): Promise<void> {
  const isSame = (a: Uint8Array, b: Uint8Array) => a.length === b.length && a.every((byte, at) => byte === b[at]);
  const found = image.snapshots.find((each) => isSame(each.id, id) && isSame(each.name, name));
  if (found === undefined) throw new BlockError('ENOENT', "Can't find snapshot", { node: image.node });
  await showSnapshot(image, found);
}

/** What reads or changes tables in the file needs the disk. Throws BlockError EBUSY. */
export function requireDisk({ shown, node }: Qcow2Image): void {
  if (shown !== undefined) throw new BlockError('EBUSY', 'A snapshot is shown instead of the disk', { node });
}
