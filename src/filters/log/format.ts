/**
 * The on-disk format of dm-log-writes (kernel documentation, device-mapper/log-writes): a superblock, then entries, each
 * one sector and its data behind it. Little endian; offsets and lengths in sectors of the log's own size.
 */
import { isPowerOfTwo } from '../../bytes/align.ts';
import { BlockError } from '../../core/errors.ts';

const MAGIC = 0x6a736677736872n;
const VERSION = 1n;
const SUPER_BYTES = 28;
const ENTRY_BYTES = 32;

const LogFlag = { flush: 1, fua: 2, discard: 4, mark: 8, metadata: 16 } as const;
const KNOWN_FLAGS = BigInt(LogFlag.flush | LogFlag.fua | LogFlag.discard | LogFlag.mark | LogFlag.metadata);

/** The smallest and the largest sector of a log, bytes. */
export const SECTOR_MIN = 512;
const SECTOR_MAX = 1 << 23;

export interface LogSuper {
  readonly entries: number;
  /** Bytes; a power of two. */
  readonly sectorSize: number;
}

export type LogEntry =
  | {
      readonly kind: 'write';
      readonly offset: number;
      readonly length: number;
      readonly fua: boolean;
      readonly flush: boolean;
    }
  | { readonly kind: 'discard'; readonly offset: number; readonly length: number }
  | { readonly kind: 'flush' }
  | { readonly kind: 'mark'; readonly name: string };

export function isSectorSize(bytes: number): boolean {
  return bytes >= SECTOR_MIN && bytes <= SECTOR_MAX && isPowerOfTwo(bytes);
}

/** One sector. */
export function encodeSuper({ entries, sectorSize }: LogSuper): Uint8Array {
  const bytes = new Uint8Array(sectorSize);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, MAGIC, true);
  view.setBigUint64(8, VERSION, true);
  view.setBigUint64(16, BigInt(entries), true);
  view.setUint32(24, sectorSize, true);
  return bytes;
}

/** Of the log's first bytes, at least 28. Throws BlockError EINVAL for what is no log. */
export function decodeSuper(bytes: Uint8Array): LogSuper {
  if (bytes.length < SUPER_BYTES) throw new BlockError('EINVAL', 'The log is too short for its superblock');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getBigUint64(0, true) !== MAGIC) throw new BlockError('EINVAL', 'Invalid log superblock magic');
  const version = view.getBigUint64(8, true);
  if (version !== VERSION) throw new BlockError('ENOTSUP', `Unsupported log version ${version}`);
  const entries = view.getBigUint64(16, true);
  const sectorSize = view.getUint32(24, true);
  if (!isSectorSize(sectorSize)) throw new BlockError('EINVAL', `Invalid log sector size ${sectorSize}`);
  if (entries > BigInt(Number.MAX_SAFE_INTEGER)) throw new BlockError('EINVAL', `Too many log entries: ${entries}`);
  return { entries: Number(entries), sectorSize };
}

/** The longest name of a mark, bytes: it stands in the entry's own sector, as a text with a zero behind it. */
function markMax(sectorSize: number): number {
  return sectorSize - ENTRY_BYTES - 1;
}

/** One sector; the data of a write follow it. Ranges are whole sectors. */
export function encodeEntry(entry: LogEntry, sectorSize: number): Uint8Array {
  const bytes = new Uint8Array(sectorSize);
  const view = new DataView(bytes.buffer);
  const put = (offset: number, length: number, flags: number) => {
    view.setBigUint64(0, BigInt(offset / sectorSize), true);
    view.setBigUint64(8, BigInt(length / sectorSize), true);
    view.setBigUint64(16, BigInt(flags), true);
  };
  if (entry.kind === 'write') {
    put(entry.offset, entry.length, (entry.fua ? LogFlag.fua : 0) | (entry.flush ? LogFlag.flush : 0));
  } else if (entry.kind === 'discard') put(entry.offset, entry.length, LogFlag.discard);
  else if (entry.kind === 'flush') put(0, 0, LogFlag.flush);
  else {
    const name = new TextEncoder().encode(entry.name);
    if (name.length > markMax(sectorSize)) {
      throw new BlockError('EINVAL', `The mark's name is longer than ${markMax(sectorSize)} bytes: '${entry.name}'`);
    }
    put(0, 0, LogFlag.mark);
    view.setBigUint64(24, BigInt(name.length), true);
    bytes.set(name, ENTRY_BYTES);
  }
  return bytes;
}

/** Of one sector of the log. Throws BlockError EINVAL that names the entry's number. */
export function decodeEntry(bytes: Uint8Array, sectorSize: number, index: number): LogEntry {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const fail = (what: string) => new BlockError('EINVAL', `Log entry ${index}: ${what}`);
  const flags = view.getBigUint64(16, true);
  if ((flags & ~KNOWN_FLAGS) !== 0n) throw fail(`unknown flags 0x${flags.toString(16)}`);
  const has = (flag: number) => (flags & BigInt(flag)) !== 0n;
  if (has(LogFlag.mark)) {
    const length = view.getBigUint64(24, true);
    if (length > BigInt(sectorSize - ENTRY_BYTES)) throw fail(`the mark's name is ${length} bytes long`);
    return { kind: 'mark', name: new TextDecoder().decode(bytes.subarray(ENTRY_BYTES, ENTRY_BYTES + Number(length))) };
  }
  const offset = view.getBigUint64(0, true) * BigInt(sectorSize);
  const length = view.getBigUint64(8, true) * BigInt(sectorSize);
  if (offset + length > BigInt(Number.MAX_SAFE_INTEGER))
    throw fail(`sector ${view.getBigUint64(0, true)} is out of range`);
  const range = { offset: Number(offset), length: Number(length) };
  if (has(LogFlag.discard)) return { kind: 'discard', ...range };
  if (length === 0n && has(LogFlag.flush)) return { kind: 'flush' };
  return { kind: 'write', ...range, fua: has(LogFlag.fua), flush: has(LogFlag.flush) };
}
