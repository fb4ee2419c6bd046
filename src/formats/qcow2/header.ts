/** The header's bytes, both versions (Q-HDR-2, Q-HDR-3). Reading and writing only; what is acceptable is in header-checks.ts. */
import { getU64, setU64, viewOf } from '../../bytes/big-endian.ts';

export const MAGIC = 0x514649fb;
/** Bytes that are read to know an image, and the length of headers that are written. */
export const HEADER_BYTES = 112;
export const V2_HEADER_BYTES = 72;
/** The shortest header of version 3. */
export const V3_HEADER_MIN = 104;

/** Incompatible features (Q-FEAT-1). */
export const Incompatible = { dirty: 1n, corrupt: 2n, dataFile: 4n, compression: 8n, extendedL2: 16n } as const;
/** Compatible features (Q-FEAT-6). */
export const Compatible = { lazyRefcounts: 1n } as const;
/** Autoclear features (Q-FEAT-7). */
export const Autoclear = { bitmaps: 1n, rawDataFile: 2n } as const;

export const CryptMethod = { none: 0, aes: 1, luks: 2 } as const;
export const CompressionType = { zlib: 0, zstd: 1 } as const;

/** Byte offsets of fields that are written by themselves (Q-HDR-9). */
export const FIELD_AT = {
  size: 24,
  cryptMethod: 32,
  l1: 36,
  refcountTable: 48,
  snapshots: 60,
  incompatible: 72,
  autoclear: 88,
} as const;

export interface Qcow2Header {
  version: number;
  backingOffset: number | bigint;
  backingLength: number;
  clusterBits: number;
  /** Bytes of the disk; a bigint only when it is no safe integer. */
  size: number | bigint;
  cryptMethod: number;
  l1Entries: number;
  l1Offset: number | bigint;
  refcountTableOffset: number | bigint;
  refcountTableClusters: number;
  snapshotCount: number;
  snapshotTableOffset: number | bigint;
  incompatible: bigint;
  compatible: bigint;
  autoclear: bigint;
  refcountOrder: number;
  headerLength: number;
  compressionType: number;
  /** Fields behind those that are known, kept as they are. */
  unknown: Uint8Array;
}

/** Fields of version 3, with a field at or past the header's length absent, hence 0. `bytes`: {@link HEADER_BYTES} or more. */
export function decodeHeader(bytes: Uint8Array): Qcow2Header {
  const view = viewOf(bytes);
  const version = view.getUint32(4);
  const isV3 = version >= 3;
  const headerLength = isV3 ? view.getUint32(100) : V2_HEADER_BYTES;
  return {
    version,
    backingOffset: getU64(view, 8),
    backingLength: view.getUint32(16),
    clusterBits: view.getUint32(20),
    size: getU64(view, FIELD_AT.size),
    cryptMethod: view.getUint32(32),
    l1Entries: view.getUint32(36),
    l1Offset: getU64(view, 40),
    refcountTableOffset: getU64(view, 48),
    refcountTableClusters: view.getUint32(56),
    snapshotCount: view.getUint32(60),
    snapshotTableOffset: getU64(view, 64),
    incompatible: isV3 ? view.getBigUint64(72) : 0n,
    compatible: isV3 ? view.getBigUint64(80) : 0n,
    autoclear: isV3 ? view.getBigUint64(88) : 0n,
    refcountOrder: isV3 ? view.getUint32(96) : 4,
    headerLength,
    compressionType: isV3 && headerLength > 104 ? view.getUint8(104) : 0,
    unknown: new Uint8Array(0),
  };
}

/** Whether bytes begin as a qcow2 image of some version from 2 on does. */
export function hasMagic(bytes: Uint8Array): boolean {
  return bytes.length >= HEADER_BYTES && viewOf(bytes).getUint32(0) === MAGIC && viewOf(bytes).getUint32(4) >= 2;
}

/** Puts all fields into `target`, which has room; returns how many bytes they are. */
export function encodeHeader(target: Uint8Array, header: Qcow2Header): number {
  const view = viewOf(target);
  view.setUint32(0, MAGIC);
  view.setUint32(4, header.version);
  setU64(view, 8, header.backingOffset);
  view.setUint32(16, header.backingLength);
  view.setUint32(20, header.clusterBits);
  setU64(view, FIELD_AT.size, header.size);
  view.setUint32(32, header.cryptMethod);
  view.setUint32(36, header.l1Entries);
  setU64(view, 40, header.l1Offset);
  setU64(view, 48, header.refcountTableOffset);
  view.setUint32(56, header.refcountTableClusters);
  view.setUint32(60, header.snapshotCount);
  setU64(view, 64, header.snapshotTableOffset);
  if (header.version < 3) return V2_HEADER_BYTES;
  const length = HEADER_BYTES + header.unknown.length;
  view.setBigUint64(72, header.incompatible);
  view.setBigUint64(80, header.compatible);
  view.setBigUint64(88, header.autoclear);
  view.setUint32(96, header.refcountOrder);
  view.setUint32(100, length);
  view.setUint8(104, header.compressionType);
  target.set(header.unknown, HEADER_BYTES);
  return length;
}
