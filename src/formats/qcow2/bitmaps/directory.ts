/** The directory of persistent bitmaps: a record for each, its bytes and what may stand in them (Q-BMP-1, Q-BMP-3). Pure. */
import { alignUp } from '../../../bytes/align.ts';
import { getU64, setU64, viewOf } from '../../../bytes/big-endian.ts';
import { BlockError } from '../../../core/errors.ts';

export const BitmapFlag = { inUse: 1, auto: 2, extraCompatible: 4 } as const;

/** A bitmap as it is in the file. */
export interface StoredBitmap {
  readonly tableOffset: number;
  /** Words of 8 bytes. */
  readonly tableEntries: number;
  /** See {@link BitmapFlag}. */
  readonly flags: number;
  /** Bytes. */
  readonly granularity: number;
  readonly name: string;
  /** As stored: they need not be UTF-8. */
  readonly nameBytes: Uint8Array;
  /** Kept as it is. */
  readonly extra: Uint8Array;
}

/** What records are checked against. Bytes. */
export interface DirectoryLimits {
  readonly clusterSize: number;
  readonly diskSize: number;
  /** For messages. */
  readonly node: string;
}

const RECORD_BYTES = 24;
const TYPE_DIRTY = 1;
const NAME_MAX = 1023;
const GRANULARITY_BITS = { min: 9, max: 31 } as const;
const TABLE_MAX = 2 ** 27;
/** Most bytes of one bitmap's data. */
const BITMAP_BYTES_MAX = 512 << 20;
export const DIRECTORY_BYTES_MAX = 67_107_840;
export const BITMAPS_MAX = 65535;

/** Bytes of disk that a cluster of a bitmap's data stands for. */
export function reachOf(granularity: number, clusterSize: number): number {
  return granularity * 8 * clusterSize;
}

/** Words that a bitmap's table has: one for each cluster of data. */
export function tableEntriesFor(diskSize: number, granularity: number, clusterSize: number): number {
  return Math.ceil(diskSize / reachOf(granularity, clusterSize));
}

/** Whether the data of a bitmap are few enough for the image (Q-BMP-3). Bytes. */
export function fitsImage(diskSize: number, granularity: number, clusterSize: number): boolean {
  const entries = tableEntriesFor(diskSize, granularity, clusterSize);
  return entries <= TABLE_MAX && Math.ceil(Math.ceil(diskSize / granularity) / 8) <= BITMAP_BYTES_MAX;
}

/** Its content says what was changed: nobody else may have written since, and what is not known about it does not matter. */
export function isUsable({ flags, extra }: StoredBitmap): boolean {
  return (flags & BitmapFlag.inUse) === 0 && isUnderstood({ flags, extra });
}

/** Extra data that is not known forbids use, unless it says otherwise. */
export function isUnderstood({ flags, extra }: Pick<StoredBitmap, 'flags' | 'extra'>): boolean {
  return extra.length === 0 || (flags & BitmapFlag.extraCompatible) !== 0;
}

export function recordBytes(nameLength: number, extraLength: number): number {
  return alignUp(RECORD_BYTES + extraLength + nameLength, 8);
}

/** All records, `count` of them. Throws BlockError EINVAL. */
export function decodeDirectory(bytes: Uint8Array, count: number, limits: DirectoryLimits): StoredBitmap[] {
  const found: StoredBitmap[] = [];
  const names = new Set<string>();
  const fail = (text: string) => new BlockError('EINVAL', text, { node: limits.node });
  for (let at = 0; at < bytes.length; ) {
    if (bytes.length - at < RECORD_BYTES) throw fail('Broken bitmap directory');
    if (found.length === count) throw fail('More bitmaps found than specified in header extension');
    const view = viewOf(bytes.subarray(at));
    const [nameLength, extraLength] = [view.getUint16(18), view.getUint32(20)];
    const length = recordBytes(nameLength, extraLength);
    if (length > bytes.length - at) {
      throw fail(extraLength > 0 ? 'Bitmap extra data is not supported' : 'Broken bitmap directory');
    }
    const bitmap = decodeRecord(bytes.subarray(at, at + length), nameLength, extraLength);
    if (!isPossible(bitmap, view, limits)) throw fail(`Bitmap '${bitmap.name}' doesn't satisfy the constraints`);
    if (names.has(bitmap.name)) throw fail(`Bitmap already exists: ${bitmap.name}`);
    names.add(bitmap.name);
    found.push(bitmap);
    at += length;
  }
  if (found.length < count) throw fail('Less bitmaps found than specified in header extension');
  return found;
}

function decodeRecord(record: Uint8Array, nameLength: number, extraLength: number): StoredBitmap {
  const view = viewOf(record);
  const nameAt = RECORD_BYTES + extraLength;
  const nameBytes = record.slice(nameAt, nameAt + nameLength);
  return {
    tableOffset: Number(getU64(view, 0)),
    tableEntries: view.getUint32(8),
    flags: view.getUint32(12),
    granularity: 2 ** view.getUint8(17),
    name: new TextDecoder('utf-8', { ignoreBOM: true }).decode(nameBytes),
    nameBytes,
    extra: record.slice(RECORD_BYTES, nameAt),
  };
}

/** Q-BMP-3. A name with a NUL could not be told from another one by programs that end names there. */
function isPossible(bitmap: StoredBitmap, view: DataView, { clusterSize, diskSize }: DirectoryLimits): boolean {
  const { tableOffset, tableEntries, flags, granularity, nameBytes } = bitmap;
  const granularityBits = view.getUint8(17);
  const known = BitmapFlag.inUse | BitmapFlag.auto | BitmapFlag.extraCompatible;
  return (
    tableOffset !== 0 &&
    tableOffset % clusterSize === 0 &&
    Number.isSafeInteger(tableOffset + TABLE_MAX * 8) &&
    tableEntries > 0 &&
    tableEntries <= TABLE_MAX &&
    tableEntries * clusterSize <= BITMAP_BYTES_MAX &&
    (flags & ~known) === 0 &&
    view.getUint8(16) === TYPE_DIRTY &&
    granularityBits >= GRANULARITY_BITS.min &&
    granularityBits <= GRANULARITY_BITS.max &&
    nameBytes.length > 0 &&
    nameBytes.length <= NAME_MAX &&
    !nameBytes.includes(0) &&
    ((flags & BitmapFlag.inUse) !== 0 || tableEntries * reachOf(granularity, clusterSize) >= diskSize)
  );
}

export function encodeDirectory(bitmaps: readonly StoredBitmap[]): Uint8Array {
  const length = directoryBytes(bitmaps);
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const { tableOffset, tableEntries, flags, granularity, nameBytes, extra } of bitmaps) {
    const view = viewOf(bytes.subarray(at));
    setU64(view, 0, tableOffset);
    view.setUint32(8, tableEntries);
    view.setUint32(12, flags);
    view.setUint8(16, TYPE_DIRTY);
    view.setUint8(17, Math.log2(granularity));
    view.setUint16(18, nameBytes.length);
    view.setUint32(20, extra.length);
    bytes.set(extra, at + RECORD_BYTES);
    bytes.set(nameBytes, at + RECORD_BYTES + extra.length);
    at += recordBytes(nameBytes.length, extra.length);
  }
  return bytes;
}

export function directoryBytes(bitmaps: readonly StoredBitmap[]): number {
  return bitmaps.reduce((sum, { nameBytes, extra }) => sum + recordBytes(nameBytes.length, extra.length), 0);
}
