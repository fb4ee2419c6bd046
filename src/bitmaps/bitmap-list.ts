/** The dirty bitmaps of one node: their names, their states (BL-BITMAP-4), and what a change of the node does to them. */
import { isPowerOfTwo } from '../bytes/align.ts';
import type { ChangeTracker } from '../core/change-tracker.ts';
import { asBlockError, BlockError, withErrno } from '../core/errors.ts';
import { type BitmapInfo, DirtyBitmap } from './dirty-bitmap.ts';
import { fitsBitmap } from './hierarchical-bitmap.ts';

const GRANULARITY_MIN = 512;
const GRANULARITY_MAX = 2 ** 31;
const NAME_MAX_BYTES = 1023;
/** BL-BITMAP-9. */
const DEFAULT_GRANULARITY = { min: 4096, max: 65536 } as const;

/** What a list asks of its node. */
export interface BitmapOwner {
  /** The node's name. */
  readonly name: string;
  /** The node's size, in bytes. */
  length(): number;
  /** Bytes; undefined where there are no clusters. */
  clusterSize(): number | undefined;
  /** Told when the list gets its first bitmap, and when it has lost its last. */
  occupied?(list: BitmapList, yes: boolean): void;
}

/** Where a format keeps persistent bitmaps. */
export interface BitmapStore {
  /** Whether the image can keep bitmaps as it is. Throws BlockError where those that it has cannot be read. */
  available(): boolean;
  /** Throws BlockError if such a bitmap cannot be kept in the image (Q-BMP-8). */
  checkNew(name: string, granularity: number): Promise<void>;
  /** Deletes one from the image; one that is not there is no error. */
  remove(name: string): Promise<void>;
}

/** What a bitmap is made with. */
export interface NewBitmap {
  /** Up to 1023 bytes, unique on the node. Absent: anonymous. */
  readonly name?: string | undefined;
  /** Bytes, a power of two from 512 to 2^31. Default: the cluster size, within 4096 and 65536. */
  readonly granularity?: number | undefined;
  /** Do not record changes yet. */
  readonly disabled?: boolean | undefined;
  /** Keep it in the image. */
  readonly persistent?: boolean | undefined;
  /** Leave it out of listings. */
  readonly hidden?: boolean | undefined;
}

/** The dirty bitmaps of a node, which hear of its changes. Methods throw BlockError; users of disks go through `bitmaps(disk)`. */
export class BitmapList implements ChangeTracker {
  /** Set by a format that keeps bitmaps. */
  store: BitmapStore | undefined;
  /** Changes of bitmaps by their users, not by writes to the node: an image that keeps them has to be told. */
  edits = 0;
  readonly #owner: BitmapOwner;
  /** Newest first. */
  #bitmaps: readonly DirtyBitmap[] = [];
  /** The size that the bitmaps have. */
  #size = 0;

  constructor(owner: BitmapOwner) {
    this.#owner = owner;
  }

  /** Name of the node. */
  get node(): string {
    return this.#owner.name;
  }

  /** Newest first. */
  get all(): readonly DirtyBitmap[] {
    return this.#bitmaps;
  }

  /** The bitmap of exactly this name (BL-BITMAP-3). */
  find(name: string): DirtyBitmap | undefined {
    return this.#bitmaps.find((bitmap) => bitmap.name === name);
  }

  /** The same; throws BlockError ENOENT if there is none (BL-BITMAP-13). */
  require(name: string): DirtyBitmap {
    const found = this.find(name);
    if (found !== undefined) return found;
    throw new BlockError('ENOENT', `Dirty bitmap '${name}' not found`, { node: this.#owner.name });
  }

  /** Newest first, without those that serve a job or another bitmap (BL-BITMAP-12). */
  query(): BitmapInfo[] {
    return this.#bitmaps.filter(({ hidden }) => !hidden).map((bitmap) => bitmap.info());
  }

  /** What a new bitmap gets that asks for no granularity (BL-BITMAP-9). Bytes. */
  get defaultGranularity(): number {
    const { min, max } = DEFAULT_GRANULARITY;
    const clusterSize = this.#owner.clusterSize();
    if (clusterSize === undefined || !isPowerOfTwo(clusterSize)) return max;
    return Math.min(max, Math.max(min, clusterSize));
  }

  /** Throws BlockError for a name or granularity that no bitmap can have; the first part of {@link create}. */
  checkNew({ name, granularity = this.defaultGranularity }: NewBitmap): void {
    if (name === '') throw this.#error('EINVAL', 'Bitmap name cannot be empty');
    if (!isPowerOfTwo(granularity) || granularity < GRANULARITY_MIN || granularity > GRANULARITY_MAX) {
      throw this.#error('EINVAL', 'Granularity must be power of 2 and at least 512');
    }
  }

  /** Adds a clean bitmap as the first of the list (BL-BITMAP-3). Throws BlockError. */
  create(wanted: NewBitmap = {}): DirtyBitmap {
    this.checkNew(wanted);
    const { name, granularity = this.defaultGranularity } = wanted;
    if (name !== undefined) {
      if (this.find(name) !== undefined) throw this.#error('EEXIST', `Bitmap already exists: ${name}`);
      const bytes = new TextEncoder().encode(name).length;
      if (bytes > NAME_MAX_BYTES) throw this.#error('ENAMETOOLONG', `Bitmap name too long: ${name}`);
    }
    const size = this.#ownersLength();
    if (!fitsBitmap(size, granularity)) throw this.#tooLarge();
    this.#size = size;
    const bitmap = new DirtyBitmap(this.#owner.name, size, granularity);
    bitmap.name = name;
    bitmap.disabled = wanted.disabled ?? false;
    bitmap.persistent = wanted.persistent ?? false;
    bitmap.hidden = wanted.hidden ?? false;
    this.#put(bitmap, 0);
    this.edits++;
    return bitmap;
  }

  /** Lets a bitmap record changes. */
  enable(bitmap: DirtyBitmap): void {
    requireThawed(bitmap);
    bitmap.disabled = false;
    this.edits++;
  }

  /** Changes are no longer recorded. */
  disable(bitmap: DirtyBitmap): void {
    requireThawed(bitmap);
    bitmap.disabled = true;
    this.edits++;
  }

  /** Drops the name, so that another bitmap can have it. */
  makeAnonymous(bitmap: DirtyBitmap): void {
    requireThawed(bitmap);
    bitmap.name = undefined;
  }

  /**
   * Freezes a bitmap: it becomes busy, and a successor records in its place from now on, if it did (BL-BITMAP-5).
   * The way back is {@link abdicate} or {@link reclaim}.
   */
  createSuccessor(parent: DirtyBitmap): DirtyBitmap {
    parent.requireUsable('readOnly', 'inconsistent');
    if (parent.successor !== undefined) {
      throw this.#error('EBUSY', 'Cannot create a successor for a bitmap that already has one');
    }
    parent.requireUsable('readOnly');
    const successor = this.create({ granularity: parent.granularity, disabled: parent.disabled, hidden: true });
    parent.successor = successor;
    parent.disabled = true;
    parent.busy = true;
    return successor;
  }

  /** The successor takes the place of a frozen bitmap, with its name, and is returned; the old one is deleted. */
  abdicate(parent: DirtyBitmap): DirtyBitmap {
    const { successor } = parent;
    if (successor === undefined) {
      throw this.#error('EINVAL', "Cannot relinquish control if there's no successor present");
    }
    successor.name = parent.name;
    successor.persistent = parent.persistent;
    successor.hidden = parent.hidden;
    thaw(parent);
    this.#drop(parent);
    return successor;
  }

  /** A frozen bitmap takes over what its successor recorded, which is deleted. */
  reclaim(parent: DirtyBitmap): void {
    const { successor } = parent;
    if (successor === undefined) throw this.#error('EINVAL', 'Cannot reclaim a successor when none is present');
    if (!parent.content.canMerge(successor.content)) {
      throw this.#error('EINVAL', 'Merging of parent and successor bitmap failed');
    }
    parent.content.merge(successor.content);
    thaw(parent);
    parent.disabled = successor.disabled;
    this.#drop(successor);
  }

  /**
   * Deletes a bitmap, and returns what puts it back where it was. No effect if it is not on this node. Throws BlockError
   * EBUSY if it is in use, frozen or being walked.
   */
  release(bitmap: DirtyBitmap): () => void {
    const index = this.#bitmaps.indexOf(bitmap);
    if (index < 0) return () => {};
    bitmap.requireUnpinned();
    this.#drop(bitmap);
    return () => this.#put(bitmap, Math.min(index, this.#bitmaps.length));
  }

  /** Told of every change of the node's content, by the request path (BL-BITMAP-7). */
  changed(offset: number, length: number): void {
    if (this.#bitmaps.length === 0 || length === 0) return;
    const end = Math.min(offset + length, Number.MAX_SAFE_INTEGER);
    // A write past the end makes the node longer, and may be told first.
    if (end > this.#size) this.resized(end);
    for (const bitmap of this.#bitmaps) if (bitmap.records) bitmap.content.set(offset, end - offset);
  }

  /** Throws BlockError if a bitmap must keep its size (BL-BITMAP-11), or one in the image cannot be changed (Q-SIZE-1). */
  checkResize(length: number): void {
    for (const bitmap of this.#bitmaps.toReversed()) {
      bitmap.requireUnpinned();
      if (bitmap.persistent) bitmap.requireUsable();
      if (!fitsBitmap(length, bitmap.granularity)) throw this.#tooLarge();
    }
  }

  /** The node has this size now. A bitmap that cannot follow, which {@link checkResize} refuses, is lost. */
  resized(length: number): void {
    this.#size = length;
    for (const bitmap of this.#bitmaps) {
      if (fitsBitmap(length, bitmap.granularity)) bitmap.content.truncate(length);
      else bitmap.markInconsistent();
    }
  }

  #ownersLength(): number {
    try {
      return this.#owner.length();
    } catch (error) {
      const { code } = asBlockError(error);
      throw withErrno(code, 'could not get length of device', { node: this.#owner.name, cause: error });
    }
  }

  #put(bitmap: DirtyBitmap, index: number): void {
    this.#bitmaps = this.#bitmaps.toSpliced(index, 0, bitmap);
    if (this.#bitmaps.length === 1) this.#owner.occupied?.(this, true);
  }

  #drop(bitmap: DirtyBitmap): void {
    this.edits++;
    this.#bitmaps = this.#bitmaps.filter((other) => other !== bitmap);
    if (this.#bitmaps.length === 0) this.#owner.occupied?.(this, false);
  }

  #tooLarge(): BlockError {
    return this.#error('EFBIG', 'Too much space will be occupied by the bitmap. Use larger granularity');
  }

  #error(code: 'EBUSY' | 'EEXIST' | 'EFBIG' | 'EINVAL' | 'ENAMETOOLONG', text: string): BlockError {
    return new BlockError(code, text, { node: this.#owner.name });
  }
}

/** A frozen bitmap's marks belong to the job that froze it (BL-BITMAP-4). */
function requireThawed(bitmap: DirtyBitmap): void {
  if (bitmap.successor !== undefined) bitmap.requireUnpinned();
}

function thaw(parent: DirtyBitmap): void {
  parent.successor = undefined;
  parent.busy = false;
}
