/** Encryption of disks: sectors of 512 bytes, each by itself and by its number. */

export const SECTOR = 512;
export const AES_BLOCK = 16;

/** Bytes that are worked on at a time; they stay in a core's own cache. */
export const CHUNK = 64 * 1024;

/** Lengths are multiples of {@link SECTOR}, numbers of sectors those of the first. */
export interface SectorCipher {
  /** In memory of its own. */
  encrypt(plain: Uint8Array, sector: number): Uint8Array;
  /** In place. */
  decrypt(bytes: Uint8Array, sector: number): void;
}

/** The 16 bytes that begin each of `count` sectors (IVs), one behind the other. */
export type IvGenerator = (sector: number, count: number) => Uint8Array;

/** Bytes as words, in memory that may be changed: `bytes` itself where it is aligned. */
export function wordsOf(bytes: Uint8Array): Uint32Array {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  return new Uint32Array(aligned.buffer, aligned.byteOffset, aligned.length / 4);
}
