/** The dirty bitmaps of an open image: in memory from opening to closing, and in the image before and after (Q-BMP-4 to 8). */

import { BitmapList, type BitmapStore } from '../../../bitmaps/bitmap-list.ts';
import type { DirtyBitmap } from '../../../bitmaps/dirty-bitmap.ts';
import { alignUp } from '../../../bytes/align.ts';
import type { OpenContext } from '../../../core/driver.ts';
import { BlockError, withErrno } from '../../../core/errors.ts';
import { Mutex } from '../../../core/gate.ts';
import type { Qcow2Image } from '../image.ts';
import { MetadataClass } from '../overlap.ts';
import { isElsewhereUsed } from './check.ts';
import { type ReadingBudget, readBitmap } from './content.ts';
import {
  BITMAPS_MAX,
  BitmapFlag,
  DIRECTORY_BYTES_MAX,
  directoryBytes,
  fitsImage,
  isUsable,
  recordBytes,
  type StoredBitmap,
} from './directory.ts';
import { isToMark, type KnownContents, markInUse, removeStored, storeBitmaps } from './store.ts';

export class BitmapSession {
  readonly list: BitmapList;
  readonly #image: () => Qcow2Image;
  readonly #known: KnownContents = new Map();
  /** The image's bitmaps are in the list. */
  #loaded = false;
  /** Changes by users that the image has been told of, or could not be. */
  #toldEdits = 0;
  readonly #telling = new Mutex();
  /** Changes of the disk's size that are under way. */
  #resizes = 0;

  /** `image`: the one that is open now. */
  constructor({ node, track, checkOnly }: OpenContext<unknown>, image: () => Qcow2Image) {
    this.#image = image;
    this.list = new BitmapList({
      name: node,
      length: () => image().length,
      clusterSize: () => image().layout.clusterSize,
      occupied: track,
    });
    if (!checkOnly) this.list.store = this.#store();
  }

  /**
   * Brings the image's bitmaps into memory (Q-BMP-4). What cannot be read is an error where the image is to be written;
   * else it has no bitmaps. Throws BlockError.
   */
  async load(): Promise<void> {
    const image = this.#image();
    const { bitmaps, file, layout } = image;
    bitmaps.any = () => bitmaps.stored.length > 0 || this.list.all.length > 0;
    bitmaps.checkResize = (length) => this.#checkResize(length);
    bitmaps.dropAll = () => this.#dropAll();
    if (this.list.store === undefined || bitmaps.broken !== undefined) return this.arm();
    const budget = { bytes: alignUp(file.length(), layout.clusterSize) };
    try {
      requireApart(image);
      for (const stored of bitmaps.stored) await this.#loadOne(image, stored, budget);
    } catch (error) {
      this.#forgetAll();
      if (image.writable || !(error instanceof BlockError)) throw error;
      bitmaps.broken = error;
      return;
    }
    this.#loaded = true;
    this.#toldEdits = this.list.edits;
    this.arm();
  }

  async #loadOne(image: Qcow2Image, stored: StoredBitmap, budget: ReadingBudget): Promise<void> {
    const { name, granularity, flags, tableOffset } = stored;
    const disabled = (flags & BitmapFlag.auto) === 0;
    const bitmap = this.list.create({ name, granularity, disabled, persistent: true });
    bitmap.readOnly = !image.writable;
    if (!isUsable(stored)) return bitmap.markInconsistent();
    const { content } = bitmap;
    const ranges = await readBitmap(image, stored, content, budget);
    if (ranges.some(({ offset, length }) => isElsewhereUsed(image, offset, length))) {
      throw withErrno('EINVAL', `Could not read bitmap '${name}' from image`, { node: image.node });
    }
    image.bitmaps.places.set(tableOffset, ranges);
    if (image.writable)
      for (const { offset, length } of ranges) image.metadata.add(MetadataClass.bitmapData, offset, length);
    this.#known.set(tableOffset, { content, changes: content.changes });
  }

  /** From now on guest data wait, before they change, until the image says that its bitmaps are in use. */
  arm(): void {
    const image = this.#image();
    const { stored, broken } = image.bitmaps;
    if (image.writable && (broken !== undefined || stored.some(isToMark))) {
      image.beforeChange = () => markInUse(image);
    }
  }

  /** The image becomes writable by a reopen (Q-BMP-7): a failure is that of the first write. */
  makeWritable(): void {
    const image = this.#image();
    for (const bitmap of this.#persistent()) bitmap.readOnly = false;
    this.arm();
    const mark = image.beforeChange;
    if (mark === undefined) return;
    image.beforeChange = () =>
      mark().catch((error: unknown) => {
        if (!(error instanceof BlockError)) throw error;
        const text = `Failed to make dirty bitmaps writable: ${error.message}`;
        throw new BlockError(error.code, text, { node: image.node, cause: error });
      });
  }

  makeReadOnly(): void {
    for (const bitmap of this.#persistent()) bitmap.readOnly = true;
    this.#image().beforeChange = undefined;
  }

  /**
   * Puts all into the image if users have changed bitmaps since that was done last; durable. What is written meanwhile waits
   * until the image says again that its bitmaps are in use, and what is under way is in them ({@link noted}). A failure is
   * told once; the end of the session tries again. Throws BlockError, and then the image has what it had.
   */
  async tell(): Promise<void> {
    if (this.list.edits === this.#toldEdits && !this.#telling.busy) return;
    await this.#telling.run(async () => {
      const image = this.#image();
      if (!this.#loaded || !image.writable || image.broken !== undefined) return;
      // Whatever changes the size has the bitmaps marked before, and resized when it is done.
      if (this.#resizes > 0 || this.#persistent().some(({ size }) => size !== image.length)) return;
      if (this.list.edits === this.#toldEdits) return;
      this.#toldEdits = this.list.edits;
      image.beforeChange = () => markInUse(image);
      await storeBitmaps(image, this.list, this.#known);
    });
  }

  /** Runs a change of guest data, which its bitmaps know of before it begins. */
  noted<T>(offset: number, length: number, work: () => Promise<T>): Promise<T> {
    return changing(this.#image(), () => {
      this.list.changed(offset, length);
      return work();
    });
  }

  async resizing(work: () => Promise<void>): Promise<void> {
    this.#resizes++;
    try {
      await work();
    } finally {
      this.#resizes--;
    }
  }

  /** Puts all into the image (Q-BMP-6); durable. Throws BlockError, and then the image has what it had. */
  async store(): Promise<void> {
    const image = this.#image();
    if (!this.#loaded || !image.writable || image.broken !== undefined) return;
    try {
      await storeBitmaps(image, this.list, this.#known);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      const text = `Lost persistent bitmaps during inactivation of node '${image.node}': ${error.message}`;
      throw new BlockError(error.code, text, { node: image.node, cause: error });
    }
  }

  /** Stores all in the first places that are free; false: there is nothing to be stored. Throws as {@link store}. */
  async rewrite(): Promise<boolean> {
    if (!this.#loaded || this.#image().bitmaps.stored.length === 0) return false;
    this.#known.clear();
    await this.store();
    this.arm();
    return true;
  }

  /** Throws BlockError EBUSY while a bitmap is in use: another program could not go on with it. */
  requireIdle(): void {
    for (const bitmap of this.#persistent()) bitmap.requireUnpinned();
  }

  /** Lets go of what {@link load} brings back. */
  unload(): void {
    for (const bitmap of this.#persistent()) this.list.release(bitmap);
    this.#forgetAll();
  }

  /** Q-SIZE-1. */
  #checkResize(length: number): void {
    const image = this.#image();
    const { stored, broken } = image.bitmaps;
    if (broken !== undefined || (stored.length > 0 && !this.#loaded)) {
      const text = 'Cannot resize qcow2 with persistent bitmaps that were not loaded into memory';
      throw new BlockError('ENOTSUP', text, { node: image.node });
    }
    for (const { name, granularity } of this.#persistent()) {
      if (length > 0 && fitsImage(length, granularity, image.layout.clusterSize)) continue;
      const text = `Bitmap '${name}' doesn't satisfy the constraints: ${length === 0 ? EMPTY : TOO_LARGE}`;
      throw new BlockError('EFBIG', text, { node: image.node });
    }
  }

  async #dropAll(): Promise<void> {
    const image = this.#image();
    if (image.bitmaps.broken !== undefined) throw image.bitmaps.broken;
    this.requireIdle();
    for (const { name } of image.bitmaps.stored) await removeStored(image, name, this.#known);
    this.#forgetAll();
    this.#loaded = true;
    image.beforeChange = undefined;
  }

  #persistent(): DirtyBitmap[] {
    return this.list.all.filter(({ persistent }) => persistent);
  }

  #forgetAll(): void {
    for (const bitmap of this.#persistent()) this.list.release(bitmap);
    this.#known.clear();
    this.#loaded = false;
  }

  #store(): BitmapStore {
    return {
      available: () => {
        const { header, bitmaps } = this.#image();
        if (bitmaps.broken !== undefined) throw bitmaps.broken;
        return header.version >= 3;
      },
      checkNew: async (name, granularity) => this.#checkNew(name, granularity),
      remove: (name) => removeStored(this.#image(), name, this.#known),
    };
  }

  /** Q-BMP-8. */
  #checkNew(name: string, granularity: number): void {
    const image = this.#image();
    const { header, layout, bitmaps, node } = image;
    const refuse = (code: 'EINVAL' | 'EFBIG' | 'EPERM', why: string) =>
      new BlockError(code, `Can't make bitmap '${name}' persistent in '${node}': ${why}`, { node });
    if (header.version < 3) throw refuse('EINVAL', 'Cannot store dirty bitmaps in qcow2 v2 files');
    if (bitmaps.broken !== undefined) throw refuse('EINVAL', bitmaps.broken.message);
    if (!image.writable) throw refuse('EPERM', 'Block node is read-only');
    if (image.length === 0) throw refuse('EINVAL', EMPTY);
    if (!fitsImage(image.length, granularity, layout.clusterSize)) throw refuse('EFBIG', TOO_LARGE);
    const others = this.#persistent().filter((bitmap) => bitmap.name !== undefined);
    if (others.length >= BITMAPS_MAX) throw refuse('EINVAL', 'Maximum number of persistent bitmaps is already reached');
    const length = (text: string) => new TextEncoder().encode(text).length;
    const fresh = others.filter((bitmap) => !bitmaps.stored.some((stored) => stored.name === bitmap.name));
    const more = [name, ...fresh.map((bitmap) => bitmap.name ?? '')];
    const bytes = more.reduce((sum, text) => sum + recordBytes(length(text), 0), directoryBytes(bitmaps.stored));
    if (bytes > DIRECTORY_BYTES_MAX) throw refuse('EINVAL', 'Not enough space in the bitmap directory');
  }
}

/** Of an image that is written: where other metadata are, none of bitmaps can be. Throws BlockError. */
function requireApart(image: Qcow2Image): void {
  const { directoryOffset = 0, directorySize = 0 } = image.extensions.bitmaps ?? {};
  if (!isElsewhereUsed(image, directoryOffset, directorySize)) return;
  throw new BlockError('EINVAL', 'Broken bitmap directory', { node: image.node });
}

/** A table has an entry for each cluster of data, and has entries. */
const EMPTY = 'An empty disk has none';
const TOO_LARGE = 'Too much space will be occupied by the bitmap. Use larger granularity';

/** Changes of guest data, once they may be made. */
export function changing<T>(image: Qcow2Image, work: () => Promise<T>): Promise<T> {
  const { beforeChange } = image;
  return beforeChange === undefined ? work() : beforeChange().then(() => changing(image, work));
}
