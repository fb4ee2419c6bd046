/** Entries of L1 and L2 tables as pairs of 32-bit words, high and low (Q-MAP-2 to Q-MAP-7). Pure. */

/** Offset of something in a file, bytes. */
export type HostOffset = number;

export const Kind = {
  /** Nothing here: the backing file, or zeroes. */
  unallocated: 0,
  /** Zeroes without storage. */
  zeroPlain: 1,
  /** Zeroes that keep their storage. */
  zeroAllocated: 2,
  normal: 3,
  compressed: 4,
  /** A subcluster that shows the backing file in a cluster with storage. */
  unallocatedAllocated: 5,
  invalid: 6,
} as const;
export type Kind = (typeof Kind)[keyof typeof Kind];

const COPIED = 0x80000000;
const COMPRESSED = 0x40000000;
const OFFSET_HIGH = 0x00ffffff;
const OFFSET_LOW = 0xfffffe00;
const ZERO = 1;
const WORD = 2 ** 32;

/** Bits 9 to 55. A value past the safe integers is past the end of every file too. */
export function offsetOf(high: number, low: number): HostOffset {
  return (high & OFFSET_HIGH) * WORD + ((low & OFFSET_LOW) >>> 0);
}

export function isCopied(high: number): boolean {
  return (high & COPIED) !== 0;
}

/** The same high word with the copied bit set or not. */
export function withCopied(high: number, copied: boolean): number {
  return (copied ? high | COPIED : high & ~COPIED) >>> 0;
}

export function isCompressed(high: number): boolean {
  return (high & COMPRESSED) !== 0;
}

export function hasZeroFlag(low: number): boolean {
  return (low & ZERO) !== 0;
}

/** Bits of an L1 entry that must be zero: 0 to 8 and 56 to 62. */
export function l1Reserved(high: number, low: number): boolean {
  return (high & 0x7f000000) !== 0 || (low & 0x1ff) !== 0;
}

/** Bits of a standard L2 entry that must be zero: 1 to 8 and 56 to 61. Bit 0, which is one with subclusters, is let pass. */
export function l2Reserved(high: number, low: number): boolean {
  return (high & 0x3f000000) !== 0 || (low & 0x1fe) !== 0;
}

/** High and low word of an entry that names `offset`. */
export function highWord(offset: HostOffset, copied: boolean): number {
  return withCopied(Math.floor(offset / WORD), copied);
}

export function lowWord(offset: HostOffset, zero = false): number {
  return ((offset % WORD) | (zero ? ZERO : 0)) >>> 0;
}

/** A standard entry's kind. With a data file, a copied entry names storage at offset 0 too (Q-MAP-4). */
export function clusterKind(high: number, low: number, hasDataFile: boolean): Kind {
  if ((high & COMPRESSED) !== 0) return Kind.compressed;
  const stored = (high & OFFSET_HIGH) !== 0 || (low & OFFSET_LOW) !== 0 || (hasDataFile && (high & COPIED) !== 0);
  if ((low & ZERO) !== 0) return stored ? Kind.zeroAllocated : Kind.zeroPlain;
  return stored ? Kind.normal : Kind.unallocated;
}

/**
 * Kind of one subcluster; `allocated` and `zero` are the words of its cluster's bitmap (Q-MAP-7). Bit 0 of the entry
 * has no meaning there.
 */
export function subclusterKind(
  high: number,
  low: number,
  allocated: number,
  zero: number,
  index: number,
  hasDataFile: boolean,
): Kind {
  if ((high & COMPRESSED) !== 0) return Kind.compressed;
  const stored = (high & OFFSET_HIGH) !== 0 || (low & OFFSET_LOW) !== 0 || (hasDataFile && (high & COPIED) !== 0);
  const isAllocated = ((allocated >>> index) & 1) !== 0;
  const isZero = ((zero >>> index) & 1) !== 0;
  if (isAllocated && (isZero || !stored)) return Kind.invalid;
  if (isAllocated) return Kind.normal;
  if (isZero) return stored ? Kind.zeroAllocated : Kind.zeroPlain;
  return stored ? Kind.unallocatedAllocated : Kind.unallocated;
}

export interface CompressedPlace {
  /** Any byte. */
  readonly offset: number;
  /** Upper bound of the stored bytes. */
  readonly length: number;
}

/** Where compressed data lie (Q-MAP-5). */
export function compressedPlace(high: number, low: number, clusterBits: number): CompressedPlace {
  const highBits = 62 - (clusterBits - 8) - 32;
  const sectors = (high & 0x3fffffff) >>> highBits;
  const offset = (high & (2 ** highBits - 1)) * WORD + low;
  return { offset, length: (sectors + 1) * 512 - (offset % 512) };
}

/** Entries can name compressed data that begin before this offset (Q-MAP-5, Q-LIM-1). */
export function compressedLimit(clusterBits: number): HostOffset {
  return 2 ** Math.min(53, 62 - (clusterBits - 8));
}

/** The words of an entry for compressed data, at a place that it can name. */
export function compressedEntry(
  { offset, length }: CompressedPlace,
  clusterBits: number,
): { high: number; low: number } {
  const highBits = 62 - (clusterBits - 8) - 32;
  const sectors = Math.floor((offset + length - 1) / 512) - Math.floor(offset / 512);
  const high = (COMPRESSED | (sectors << highBits) | Math.floor(offset / WORD)) >>> 0;
  return { high, low: (offset % WORD) >>> 0 };
}

/** An entry as messages and findings print it. */
export function entryHex(high: number, low: number): string {
  return ((BigInt(high >>> 0) << 32n) | BigInt(low >>> 0)).toString(16);
}

/** `0x10000`; zero is `0` where C's %#x prints it (Q-MAP-8). */
export function hexOffset(value: number): string {
  return value === 0 ? '0' : `0x${value.toString(16)}`;
}
