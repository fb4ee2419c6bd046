/// <reference lib="esnext.disposable" preserve="true" />
/**
 * A dirty bitmap: which parts of a node were changed, with the marks that say what may be done with it (BL-BITMAP-1, -2).
 * A list (bitmap-list.ts) keeps those of a node and moves them from state to state.
 */
import { BlockError, type ErrorCode } from '../core/errors.ts';
import { type ByteRange, type GranuleIterator, HierarchicalBitmap } from './hierarchical-bitmap.ts';

/** What a listing shows (BL-BITMAP-12). */
export interface BitmapInfo {
  /** Absent: anonymous. */
  readonly name?: string;
  /** Dirty granules, in bytes; the last one counts in full. */
  readonly count: number;
  /** Bytes. */
  readonly granularity: number;
  /** Changes of the node are recorded, in the bitmap or in its successor. */
  readonly recording: boolean;
  /** In use by a job or an export. */
  readonly busy: boolean;
  /** Kept in the image when the node is closed. */
  readonly persistent: boolean;
  /** Its content is not known: it can only be removed. */
  readonly inconsistent?: true;
}

/** Marks that forbid using a bitmap, save where an operation allows them (BL-BITMAP-13); checked in this order. */
export type UseMark = 'busy' | 'readOnly' | 'inconsistent';

const USE_CHECKS: readonly {
  readonly mark: UseMark;
  readonly code: ErrorCode;
  readonly text: string;
  readonly hint?: string;
}[] = [
  { mark: 'busy', code: 'EBUSY', text: 'is currently in use by another operation and cannot be used' },
  { mark: 'readOnly', code: 'EPERM', text: 'is readonly and cannot be modified' },
  {
    mark: 'inconsistent',
    code: 'EINVAL',
    text: 'is inconsistent and cannot be used',
    hint: 'Try block-dirty-bitmap-remove to delete this bitmap from disk',
  },
];

/** An iterator that counts as open until it is closed; as long, the node keeps its size and the bitmap. */
export interface OpenIterator extends GranuleIterator, Disposable {
  close(): void;
}

/** A bitmap of a node: which of its granules were changed, and whether more changes are recorded. */
export class DirtyBitmap {
  /** Of the node, for messages. */
  readonly node: string;
  /** Unchecked access, for those that hold the bitmap busy; others use the methods. */
  readonly content: HierarchicalBitmap;
  /** Unique on the node; absent: anonymous. */
  name: string | undefined;
  /** Changes of the node are not recorded. */
  disabled = false;
  busy = false;
  persistent = false;
  /** The image it is kept in is read-only. */
  readOnly = false;
  /** Left out of listings: it serves a job or another bitmap (J-BACKUP-7). */
  hidden = false;
  /** Records in its place while a job works with it: the bitmap is frozen. */
  successor: DirtyBitmap | undefined;
  #inconsistent = false;
  #iterators = 0;

  /** Active and clean. `size` and `granularity` are bytes. */
  constructor(node: string, size: number, granularity: number) {
    this.node = node;
    this.content = new HierarchicalBitmap(size, granularity);
  }

  /** Bytes of a granule. */
  get granularity(): number {
    return this.content.granularity;
  }

  /** The size of the node, in bytes. */
  get size(): number {
    return this.content.size;
  }

  /** Dirty granules, in bytes (BL-BITMAP-8). */
  get count(): number {
    return this.content.count;
  }

  /** Another program wrote to the image, or a crash lost what was recorded: nothing but removal is left (Q-BMP-4). */
  get inconsistent(): boolean {
    return this.#inconsistent;
  }

  markInconsistent(): void {
    this.#inconsistent = true;
    this.content.clear();
  }

  /** Changes of the node are to be recorded in this bitmap (BL-BITMAP-7). */
  get records(): boolean {
    return !this.disabled && !this.#inconsistent;
  }

  /** In use, frozen or being walked: must stay as large as it is, and where it is (BL-BITMAP-4, -11). */
  get pinned(): boolean {
    return this.busy || this.successor !== undefined || this.#iterators > 0;
  }

  /** Throws BlockError for the first mark that is set and not allowed (BL-BITMAP-13). */
  requireUsable(...allowed: readonly UseMark[]): void {
    const failed = USE_CHECKS.find(({ mark }) => this[mark] && !allowed.includes(mark));
    if (failed !== undefined) throw this.#refusal(failed);
  }

  /** Throws BlockError EBUSY if the bitmap is {@link pinned}. */
  requireUnpinned(): void {
    const [busy] = USE_CHECKS;
    if (this.pinned && busy !== undefined) throw this.#refusal(busy);
  }

  #refusal({ code, text, hint }: (typeof USE_CHECKS)[number]): BlockError {
    return new BlockError(code, `Bitmap '${this.name ?? '(unnamed)'}' ${text}`, { node: this.node, hint });
  }

  /** Makes a range dirty, also of a busy or disabled bitmap (BL-BITMAP-6). Offsets and lengths as in BL-HB-2. */
  set(offset: number, length: number): void {
    this.requireUsable('busy');
    this.content.set(offset, length);
  }

  /** Makes a range of whole granules clean. */
  reset(offset: number, length: number): void {
    this.requireUsable('busy');
    this.content.reset(offset, length);
  }

  /** Makes all clean, and hands out the former content for {@link restore} (BL-BITMAP-6). */
  clear(): HierarchicalBitmap {
    this.requireUsable('busy');
    const former = new HierarchicalBitmap(this.size, this.granularity);
    former.swap(this.content);
    return former;
  }

  /** Takes back what {@link clear} handed out, or a copy of the content; the node must have kept its size. */
  restore(former: HierarchicalBitmap): void {
    this.content.swap(former);
  }

  /** Whether the granule is dirty that holds `offset`. */
  get(offset: number): boolean {
    return this.content.get(offset);
  }

  /** Walks the dirty granules from the one that holds `start` (BL-BITMAP-10). */
  iterate(start = 0): OpenIterator {
    const iterator = this.content.granules(start);
    let open = true;
    this.#iterators++;
    const close = () => {
      if (open) this.#iterators--;
      open = false;
    };
    return { ...iterator, close, [Symbol.dispose]: close };
  }

  /** The dirty areas of [offset, end), ascending, cut at `maxLength`; counts as an open iterator from the first to the last. */
  *areas(offset = 0, end: number = this.size, maxLength?: number): Generator<ByteRange, void, undefined> {
    this.#iterators++;
    try {
      for (let at = offset; at < end; ) {
        const area = this.content.nextDirtyArea(at, end, maxLength);
        if (area === undefined) return;
        yield area;
        at = area.offset + area.length;
      }
    } finally {
      this.#iterators--;
    }
  }

  /** For listings (BL-BITMAP-12). */
  info(): BitmapInfo {
    const { name, count, granularity, busy, persistent } = this;
    return {
      ...(name === undefined ? {} : { name }),
      count,
      granularity,
      recording: this.records || this.successor?.records === true,
      busy,
      persistent,
      ...(this.#inconsistent ? { inconsistent: true } : {}),
    };
  }
}

/**
 * Adds what is dirty in all sources, which may be on other nodes, to `target`; all or nothing (M-BITMAP-1).
 * Throws BlockError; sources may be read-only.
 */
export function mergeBitmaps(target: DirtyBitmap, sources: readonly DirtyBitmap[]): void {
  target.requireUsable();
  for (const source of sources) {
    source.requireUsable('readOnly');
    if (!target.content.canMerge(source.content)) {
      const sizes = `destination size is ${target.size}, source size is ${source.size}`;
      const text = `Bitmaps are of different sizes (${sizes}) and can't be merged`;
      throw new BlockError('EINVAL', text, { node: target.node });
    }
  }
  for (const source of sources) target.content.merge(source.content);
}
