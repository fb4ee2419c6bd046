/** Entries of the snapshot table (Q-SNAP-1, Q-SNAP-2). */
import { alignUp } from '../../bytes/align.ts';
import { getU64, viewOf } from '../../bytes/big-endian.ts';
import type { Child } from '../../core/driver.ts';
import { BlockError, codeOf, withErrno } from '../../core/errors.ts';
import type { Qcow2Header } from './header.ts';

export interface Snapshot {
  readonly l1Offset: number | bigint;
  readonly l1Entries: number;
  readonly id: string;
  readonly name: string;
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
  /** Bytes of the entry as stored. */
  readonly storedBytes: number;
}

/** Bytes of a table with these entries. */
export function snapshotTableBytes(snapshots: readonly Snapshot[]): number {
  return snapshots.reduce((sum, { storedBytes }) => sum + alignUp(storedBytes, 8), 0);
}

const ENTRY_BYTES = 40;
const EXTRA_KNOWN = 24;
const EXTRA_MAX = 1024;
const TABLE_MAX = 64 << 20;
const NO_COUNT = 2n ** 64n - 1n;
/** Bytes read at a time. */
const PIECE = 65536;

/** All entries. `tolerant`: a check is to report what is wrong. Throws BlockError. */
export async function readSnapshotTable(
  file: Child,
  header: Qcow2Header,
  tolerant: boolean,
): Promise<readonly Snapshot[]> {
  const count = header.snapshotCount;
  if (count === 0) return [];
  const snapshots: Snapshot[] = [];
  try {
    const reader = new TableReader(file, Number(header.snapshotTableOffset));
    for (let index = 0; index < count; index++) {
      snapshots.push(await readEntry(reader, index));
      if (reader.consumed > TABLE_MAX) throw new BlockError('EFBIG', 'Snapshot table is too big');
    }
  } catch (error) {
    if (tolerant) return snapshots;
    if (error instanceof BlockError && (error.code === 'EFBIG' || error.code === 'EINVAL')) throw error;
    throw withErrno(codeOf(error), 'Failed to read snapshot table', { cause: error });
  }
  return snapshots;
}

class TableReader {
  readonly #file: Child;
  readonly #start: number;
  #at: number;
  #buffer = new Uint8Array(0);
  #bufferAt = 0;

  constructor(file: Child, offset: number) {
    this.#file = file;
    this.#start = offset;
    this.#at = offset;
  }

  get consumed(): number {
    return this.#at - this.#start;
  }

  async take(length: number): Promise<Uint8Array> {
    if (this.#at >= this.#file.length()) throw withErrno('EIO', 'The snapshot table is past the end of the file');
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

  /** Goes to the next multiple of 8. */
  align(): void {
    this.#at = alignUp(this.#at, 8);
  }
}

async function readEntry(reader: TableReader, index: number): Promise<Snapshot> {
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
  const [idLength, nameLength, extraLength] = [view.getUint16(12), view.getUint16(14), view.getUint32(36)];
  if (extraLength > EXTRA_MAX) {
    throw new BlockError('EFBIG', `Too much extra metadata in snapshot table entry ${index}`, {
      hint: 'You can force-remove this extra metadata with qemu-img check -r all',
    });
  }
  const extra = extraLength === 0 ? new Uint8Array(0) : (await reader.take(extraLength)).slice();
  const extraView = viewOf(extra);
  const id = new TextDecoder().decode(idLength === 0 ? undefined : await reader.take(idLength));
  const name = new TextDecoder().decode(nameLength === 0 ? undefined : await reader.take(nameLength));
  const instructionCount = extra.length >= EXTRA_KNOWN ? extraView.getBigUint64(16) : NO_COUNT;
  return {
    ...fixed,
    id,
    name,
    vmStateSize: extra.length >= 8 ? getU64(extraView, 0) : shortStateSize,
    diskSize: extra.length >= 16 ? getU64(extraView, 8) : undefined,
    instructionCount: instructionCount === NO_COUNT ? undefined : instructionCount,
    unknownExtra: extra.slice(EXTRA_KNOWN),
    storedBytes: ENTRY_BYTES + extraLength + idLength + nameLength,
  };
}
