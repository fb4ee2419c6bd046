/**
 * A set of bytes of a disk, kept in granules: the storage of a dirty bitmap (BL-HB-1 to BL-HB-7).
 *
 * Storage is taken in pages of 4 KiB for 2^15 granules, and only where some of them are dirty and some are not, plus
 * 2 KiB for every 256 pages or branches on the way there. Clean or wholly dirty stretches of 2^15 granules cost nothing,
 * at any size. At 64 KiB granularity a page stands for 2 GiB of disk, so that 16 TiB take at most some 41 MB,
 * the engine's own share of each page included:
 *
 * | 16 TiB, 2^28 granules            | memory  |
 * | -------------------------------- | ------- |
 * | clean, wholly dirty, a few runs  | < 50 KB |
 * | 1000 single granules, scattered  | 4 MB    |
 * | 100,000 and more, scattered      | 41 MB   |
 *
 * Setting and clearing ranges takes microseconds whatever their length, the count none; the search for the next dirty
 * or clean granule passes at most 256 branches of each of up to four levels and one page.
 */
import { isPowerOfTwo } from '../bytes/align.ts';
import {
  type BitTree,
  CLEAN,
  childOf,
  copyOf,
  fill,
  find,
  levelFor,
  raised,
  readBits,
  union,
  writeBits,
} from './bit-tree.ts';
import { unionRescaled } from './rescaled-union.ts';

/** Most granules of one bitmap (BL-HB-1). */
const GRANULES_MAX = 2 ** 41;

/** Serialised chunks begin at multiples of this many granules (BL-HB-7). */
const CHUNK_GRANULES = 64;

/** Bytes [offset, offset + length) of a disk. */
export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** Walks dirty granules, ascending (BL-BITMAP-10). What is set behind or ahead while it walks may be missed (BL-HB-4). */
export interface GranuleIterator {
  /** The offset of the next dirty granule; -1 at the end. */
  next(): number;
  /** Goes on with the granule that holds `offset`, which must be below the size. */
  seek(offset: number): void;
}

/** Whether so many bytes in granules of this size are few enough for a bitmap. */
export function fitsBitmap(size: number, granularity: number): boolean {
  return Math.ceil(size / granularity) <= GRANULES_MAX;
}

/**
 * Offsets, lengths and sizes are bytes, safe integers, not negative. A RangeError tells of a range outside the bitmap or
 * not aligned as it must be; nothing has then changed.
 */
export class HierarchicalBitmap {
  /** Bytes of a granule, a power of two. */
  readonly granularity: number;
  #size = 0;
  #granules = 0;
  #level = 0;
  #root: BitTree = CLEAN;
  #changes = 0;

  /** Clean. At most 2^41 granules. */
  constructor(size: number, granularity: number) {
    if (!isPowerOfTwo(granularity)) throw new RangeError(`granularity ${granularity} is not a power of two`);
    this.granularity = granularity;
    this.truncate(size);
  }

  get size(): number {
    return this.#size;
  }

  /** Dirty granules, in bytes; the last one counts in full, so this may exceed the size (BL-BITMAP-8). */
  get count(): number {
    return this.#root.count * this.granularity;
  }

  get empty(): boolean {
    return this.#root.count === 0;
  }

  /** Rises whenever content or size may have changed. */
  get changes(): number {
    return this.#changes;
  }

  /** Makes every granule dirty that the range touches; a range of length 0 touches none (BL-HB-2). */
  set(offset: number, length: number): void {
    this.#checkRange(offset, length);
    if (length === 0) return;
    const { granularity } = this;
    this.#fill(Math.floor(offset / granularity), Math.ceil((offset + length) / granularity), true);
  }

  /** Makes granules clean. The range must begin and end with a granule, or end with the bitmap (BL-HB-2). */
  reset(offset: number, length: number): void {
    this.#checkRange(offset, length);
    const { granularity } = this;
    if (length === 0) return;
    this.#checkAligned('a reset', offset, length, granularity);
    this.#fill(offset / granularity, Math.ceil((offset + length) / granularity), false);
  }

  /** Makes all clean (BL-HB-3). */
  clear(): void {
    this.#changes++;
    this.#root = CLEAN;
  }

  /** Whether the granule is dirty that holds `offset`. */
  get(offset: number): boolean {
    return this.nextDirty(offset, Math.min(offset + 1, this.#size)) >= 0;
  }

  /** The first dirty byte in [offset, end), or -1. */
  nextDirty(offset: number, end: number = this.#size): number {
    return this.#next(offset, end, true);
  }

  /** The first clean byte in [offset, end), or -1. */
  nextClean(offset: number, end: number = this.#size): number {
    return this.#next(offset, end, false);
  }

  /** The first run of dirty bytes in [offset, end), cut off at `end` and at `maxLength` bytes (BL-HB-6). */
  nextDirtyArea(offset: number, end: number = this.#size, maxLength = Number.MAX_SAFE_INTEGER): ByteRange | undefined {
    if (!(maxLength > 0)) throw new RangeError(`maxLength ${maxLength} is not above 0`);
    const start = this.nextDirty(offset, end);
    if (start < 0) return undefined;
    const limit = Math.min(end, start + maxLength);
    const clean = this.nextClean(start, limit);
    return { offset: start, length: (clean < 0 ? limit : clean) - start };
  }

  /** Whether `offset` is dirty, and for how many of `length` bytes, more than 0, that stays so (BL-HB-6). */
  status(offset: number, length: number): { readonly dirty: boolean; readonly length: number } {
    this.#checkRange(offset, length);
    if (length === 0) throw new RangeError('the status of no bytes was asked');
    const dirty = this.get(offset);
    const change = this.#next(offset, offset + length, !dirty);
    return { dirty, length: change < 0 ? length : change - offset };
  }

  /** Begins with the granule that holds `start`, which must be below the size unless that is 0 (BL-HB-4). */
  granules(start = 0): GranuleIterator {
    let position = 0;
    const seek = (offset: number) => {
      if (offset >= this.#size && offset !== 0) {
        throw new RangeError(`an iterator cannot begin at ${offset}: the bitmap ends at ${this.#size}`);
      }
      this.#checkRange(offset, 0);
      position = offset;
    };
    seek(start);
    const next = () => {
      if (position >= this.#size) return -1;
      const found = this.nextDirty(position);
      if (found < 0) return -1;
      const granule = found - (found % this.granularity);
      position = granule + this.granularity;
      return granule;
    };
    return { next, seek };
  }

  /** Cuts off or appends clean granules; one that is partly within the new size keeps its state (BL-HB-5). */
  truncate(size: number): void {
    if (!Number.isSafeInteger(size) || size < 0 || !fitsBitmap(size, this.granularity)) {
      throw new RangeError(`a bitmap with granularity ${this.granularity} cannot have size ${size}`);
    }
    if (size !== this.#size) this.#changes++;
    const granules = Math.ceil(size / this.granularity);
    if (granules < this.#granules) this.#root = fill(this.#root, this.#level, granules, this.#granules, false);
    const level = levelFor(granules);
    for (; this.#level < level; this.#level++) this.#root = raised(this.#root, this.#level);
    for (; this.#level > level; this.#level--) this.#root = childOf(this.#root, this.#level, 0);
    this.#size = size;
    this.#granules = granules;
  }

  /** Whether {@link merge} takes this source. */
  canMerge(source: HierarchicalBitmap): boolean {
    return source.#size === this.#size;
  }

  /** Adds what is dirty in a bitmap of equal size; with another granularity, rounded outward (BL-HB-6). */
  merge(source: HierarchicalBitmap): void {
    if (!this.canMerge(source)) throw new RangeError(`sizes ${this.#size} and ${source.#size} differ`);
    this.#changes++;
    if (source.granularity === this.granularity) this.#root = union(this.#root, source.#root, this.#level);
    else {
      this.#root = unionRescaled(this.#root, this.#level, {
        source: source.#root,
        sourceLevel: source.#level,
        scale: source.granularity / this.granularity,
        bits: this.#granules,
      });
    }
  }

  /** An independent bitmap of the same content. */
  copy(): HierarchicalBitmap {
    const copy = new HierarchicalBitmap(this.#size, this.granularity);
    copy.#root = copyOf(this.#root);
    return copy;
  }

  /** Trades contents with a bitmap of equal size and granularity, without copying. */
  swap(other: HierarchicalBitmap): void {
    if (!this.canMerge(other) || other.granularity !== this.granularity) {
      throw new RangeError('contents can be swapped only between bitmaps of equal size and granularity');
    }
    const root = this.#root;
    this.#root = other.#root;
    other.#root = root;
    this.#changes++;
    other.#changes++;
  }

  /**
   * The state of the granules of a chunk, one bit each, lowest bit of the first byte first; unused bits of the last byte
   * are 0. A chunk begins and ends at a multiple of 64 granules, or ends with the bitmap (BL-HB-7).
   */
  serialise(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(this.serialisedLength(offset, length));
    readBits(this.#root, this.#level, offset / this.granularity, bytes);
    return bytes;
  }

  /** Bytes that {@link serialise} gives for a chunk. */
  serialisedLength(offset: number, length: number): number {
    this.#checkRange(offset, length);
    this.#checkAligned('a chunk', offset, length, this.granularity * CHUNK_GRANULES);
    return Math.ceil(Math.ceil(length / this.granularity) / 8);
  }

  /** Replaces the state of a chunk's granules. Unused bits of the last byte are ignored. */
  deserialise(offset: number, length: number, bytes: Uint8Array): void {
    const expected = this.serialisedLength(offset, length);
    if (bytes.length !== expected) throw new RangeError(`the chunk has ${bytes.length} bytes instead of ${expected}`);
    if (length === 0) return;
    this.#changes++;
    const end = Math.ceil((offset + length) / this.granularity);
    this.#root = writeBits(this.#root, this.#level, offset / this.granularity, end, bytes);
  }

  /** Nothing to do is what a write to a dirty range finds, so that is looked at first. */
  #fill(start: number, end: number, dirty: boolean): void {
    const other = find(this.#root, this.#level, start, !dirty);
    if (other < 0 || other >= end) return;
    this.#changes++;
    this.#root = fill(this.#root, this.#level, start, end, dirty);
  }

  #next(offset: number, end: number, dirty: boolean): number {
    if (end > this.#size || offset > end) throw new RangeError(`no range of a bitmap: ${offset} to ${end}`);
    this.#checkRange(offset, 0);
    if (offset === end) return -1;
    const found = find(this.#root, this.#level, Math.floor(offset / this.granularity), dirty);
    const position = Math.max(offset, found * this.granularity);
    return found < 0 || position >= end ? -1 : position;
  }

  #checkRange(offset: number, length: number): void {
    if (!(Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0)) {
      throw new RangeError(`offset ${offset} and length ${length} must be whole numbers of bytes, not negative`);
    }
    if (offset + length > this.#size) {
      throw new RangeError(`bytes ${offset} to ${offset + length} are not within a bitmap of ${this.#size} bytes`);
    }
  }

  #checkAligned(what: string, offset: number, length: number, unit: number): void {
    const end = offset + length;
    if (offset % unit !== 0 || (end % unit !== 0 && end !== this.#size)) {
      throw new RangeError(`${what} of ${length} bytes at ${offset} is not aligned to ${unit} bytes`);
    }
  }
}
