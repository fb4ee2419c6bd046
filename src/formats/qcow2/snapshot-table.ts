/** The snapshot table's entries as bytes, read and written (Q-SNAP-1, Q-SNAP-2). */
import { alignUp } from '../../bytes/align.ts';
import { getU64, setU64, viewOf } from '../../bytes/big-endian.ts';
import type { Child } from '../../core/driver.ts';
import { BlockError, codeOf, withErrno } from '../../core/errors.ts';
import type { Qcow2Header } from './header.ts';

export interface Snapshot {
  readonly l1Offset: number | bigint;
  readonly l1Entries: number;
  /** As stored: UTF-8, or what another program put there. */
  readonly id: Uint8Array;
  readonly name: Uint8Array;
  /** Since 1970, and nanoseconds more. */
  readonly seconds: number;
  readonly nanoseconds: number;
  readonly vmClockNanoseconds: bigint;
  /** Bytes. */
  readonly vmStateSize: number | bigint;
  /** Undefined where the entry does not say: the disk's size now. */
  readonly diskSize: number | bigint | undefined;
  /** Undefined: none. */
  readonly instructionCount: bigint | undefined;
  /** Extra data as stored, behind what is known. */
  readonly unknownExtra: Uint8Array;
  /** Bytes of extra data as stored. */
  readonly extraBytes: number;
}

const ENTRY_BYTES = 40;
/** Extra data that are known: all of it is written. */
export const EXTRA_KNOWN = 24;
/** Extra data that version 3 asks for: with the disk's size. */
const EXTRA_NEEDED = 16;
const EXTRA_MAX = 1024;
export const TABLE_MAX = 64 << 20;
const NO_COUNT = 2n ** 64n - 1n;
/** Bytes read at a time. */
const PIECE = 65536;

/** Bytes of a table with these entries, as they are stored. */
export function snapshotTableBytes(snapshots: readonly Snapshot[]): number {
  return snapshots.reduce((sum, { extraBytes, id, name }) => {
    return alignUp(sum, 8) + ENTRY_BYTES + extraBytes + id.length + name.length;
  }, 0);
}

/** Whether version 3 misses something in the entry (Q-SNAP-1). */
export function isIncomplete({ extraBytes }: Snapshot): boolean {
  return extraBytes < EXTRA_NEEDED;
}

/** What a table is as it will be written: entries are complete then. `diskSize`: for those that do not say. */
export function completed(snapshot: Snapshot, diskSize: number): Snapshot {
  const extraBytes = EXTRA_KNOWN + snapshot.unknownExtra.length;
  if (snapshot.extraBytes === extraBytes && snapshot.diskSize !== undefined) return snapshot;
  return { ...snapshot, diskSize: snapshot.diskSize ?? diskSize, extraBytes };
}

/** The table's bytes, for entries that are {@link completed}. */
export function encodeSnapshotTable(snapshots: readonly Snapshot[]): Uint8Array {
  const bytes = new Uint8Array(snapshotTableBytes(snapshots));
  const view = viewOf(bytes);
  let at = 0;
  for (const snapshot of snapshots) {
    const { id, name, unknownExtra, extraBytes } = snapshot;
    at = alignUp(at, 8);
    setU64(view, at, snapshot.l1Offset);
    view.setUint32(at + 8, snapshot.l1Entries);
    view.setUint16(at + 12, id.length);
    view.setUint16(at + 14, name.length);
    view.setUint32(at + 16, snapshot.seconds);
    view.setUint32(at + 20, snapshot.nanoseconds);
    view.setBigUint64(at + 24, snapshot.vmClockNanoseconds);
    // A state that is too large for this field is told behind it only.
    view.setUint32(at + 32, snapshot.vmStateSize < 2 ** 32 ? Number(snapshot.vmStateSize) : 0);
    view.setUint32(at + 36, extraBytes);
    setU64(view, at + ENTRY_BYTES, snapshot.vmStateSize);
    setU64(view, at + ENTRY_BYTES + 8, snapshot.diskSize ?? 0);
    view.setBigUint64(at + ENTRY_BYTES + 16, snapshot.instructionCount ?? NO_COUNT);
    at += ENTRY_BYTES + EXTRA_KNOWN;
    for (const part of [unknownExtra, id, name]) {
      bytes.set(part, at);
      at += part.length;
    }
  }
  return bytes;
}

/** What to do about entries that are too large to be kept; absent: the table cannot be read. */
export interface TableRepair {
  /** An entry has more extra data than there may be; it is read without those. */
  extraCut(index: number, extraBytes: number): void;
  /** The table is too long from an entry on. */
  entriesCut(count: number): void;
}

/** The first `count` entries. Throws BlockError. */
export async function readSnapshotTable(
  file: Child,
  { snapshotTableOffset, clusterBits }: Qcow2Header,
  count: number,
  repair?: TableRepair,
): Promise<readonly Snapshot[]> {
  const snapshots: Snapshot[] = [];
  try {
    const reader = new TableReader(file, Number(snapshotTableOffset), alignUp(file.length(), 2 ** clusterBits));
    for (let index = 0; index < count; index++) {
      snapshots.push(await readEntry(reader, index, repair));
      if (reader.consumed <= TABLE_MAX) continue;
      snapshots.pop();
      if (repair === undefined) throw tooBig(count - index);
      repair.entriesCut(count - index);
      break;
    }
  } catch (error) {
    if (error instanceof BlockError && (error.code === 'EFBIG' || error.code === 'EINVAL')) throw error;
    throw withErrno(codeOf(error), 'Failed to read snapshot table', { cause: error });
  }
  return snapshots;
}

function tooBig(rest: number): BlockError {
  const hint = `You can force-remove all ${rest} overhanging snapshots with qemu-img check -r all`;
  return new BlockError('EFBIG', 'Snapshot table is too big', { hint });
}

class TableReader {
  readonly #file: Child;
  readonly #start: number;
  readonly #end: number;
  #at: number;
  #buffer = new Uint8Array(0);
  #bufferAt = 0;

  /** `end`: of the file's last cluster, which may be cut short and is zero then. */
  constructor(file: Child, offset: number, end: number) {
    this.#file = file;
    this.#end = end;
    this.#start = offset;
    this.#at = offset;
  }

  get consumed(): number {
    return this.#at - this.#start;
  }

  async take(length: number): Promise<Uint8Array> {
    if (this.#at + length > this.#end) throw withErrno('EIO', 'The snapshot table is past the end of the file');
    const from = this.#at - this.#bufferAt;
    if (from < 0 || from + length > this.#buffer.length) {
      this.#buffer = new Uint8Array(Math.max(PIECE, length));
      this.#bufferAt = this.#at;
      await this.#file.read(this.#at, this.#buffer);
    }
    const start = this.#at - this.#bufferAt;
    this.#at += length;
    return this.#buffer.subarray(start, start + length);
  }

  skip(length: number): void {
    this.#at += length;
  }

  /** Goes to the next multiple of 8. */
  align(): void {
    this.#at = alignUp(this.#at, 8);
  }
}

async function readEntry(reader: TableReader, index: number, repair: TableRepair | undefined): Promise<Snapshot> {
  reader.align();
  const view = viewOf(await reader.take(ENTRY_BYTES));
  const fixed = {
    l1Offset: getU64(view, 0),
    l1Entries: view.getUint32(8),
    seconds: view.getUint32(16),
    nanoseconds: view.getUint32(20),
    vmClockNanoseconds: view.getBigUint64(24),
  };
  const shortStateSize = view.getUint32(32);
  const [idLength, nameLength, extraBytes] = [view.getUint16(12), view.getUint16(14), view.getUint32(36)];
  if (extraBytes > EXTRA_MAX && repair === undefined) {
    throw new BlockError('EFBIG', `Too much extra metadata in snapshot table entry ${index}`, {
      hint: 'You can force-remove this extra metadata with qemu-img check -r all',
    });
  }
  if (extraBytes > EXTRA_MAX) repair?.extraCut(index, extraBytes);
  const kept = Math.min(extraBytes, EXTRA_MAX);
  const take = async (length: number) => (length === 0 ? new Uint8Array(0) : (await reader.take(length)).slice());
  const extra = await take(kept);
  reader.skip(extraBytes - kept);
  const extraView = viewOf(extra);
  const [id, name] = [await take(idLength), await take(nameLength)];
  const instructionCount = extra.length >= EXTRA_KNOWN ? extraView.getBigUint64(16) : NO_COUNT;
  return {
    ...fixed,
    id,
    name,
    vmStateSize: extra.length >= 8 ? getU64(extraView, 0) : shortStateSize,
    diskSize: extra.length >= EXTRA_NEEDED ? getU64(extraView, 8) : undefined,
    instructionCount: instructionCount === NO_COUNT ? undefined : instructionCount,
    unknownExtra: extra.slice(EXTRA_KNOWN),
    extraBytes,
  };
}
