/** Dirty bitmaps for users of the library: which parts of a disk were changed since a moment, e.g. the last backup. */
import { setTracked } from '../core/change-tracker.ts';
import type { Disk } from '../core/disk.ts';
import { BlockError } from '../core/errors.ts';
import { driverInfo } from '../core/info.ts';
import { type BlockNode, nodeOf } from '../core/node.ts';
import { BitmapList, type BitmapOwner } from './bitmap-list.ts';
import { type BitmapInfo, mergeBitmaps, type UseMark } from './dirty-bitmap.ts';
import type { ByteRange } from './hierarchical-bitmap.ts';

/** A bitmap of another node, as the source of a merge. */
export interface BitmapReference {
  readonly of: Disk | BlockNode;
  readonly name: string;
}

/** Options of `bitmaps(disk).add`. */
export interface AddBitmapOptions {
  /** Bytes, a power of two from 512 to 2^31. Default: the cluster size, within 4096 and 65536; else 65536. */
  readonly granularity?: number | undefined;
  /** Do not record changes yet. */
  readonly disabled?: boolean | undefined;
  /** Keep it in the image; ENOTSUP where the format cannot. */
  readonly persistent?: boolean | undefined;
}

/** Which areas of a bitmap are asked for. */
export interface DirtyAreasOptions {
  /** Bytes from the start of the disk. Default 0. */
  readonly offset?: number | undefined;
  /** Bytes. Default: up to the end. */
  readonly length?: number | undefined;
  /** Longest area, bytes; longer ones come in pieces. */
  readonly maxLength?: number | undefined;
}

/**
 * Changes of bitmaps that an image keeps are durable with the next flush of the disk, a removal at once. Every method throws
 * BlockError: ENOENT for a name that is not there, EBUSY for a bitmap that a job uses
 * (BL-BITMAP-13).
 */
export interface NodeBitmaps {
  /** Newest first. */
  list(): BitmapInfo[];
  /** Begins to record changes. EEXIST for a name that is taken. */
  add(name: string, options?: AddBitmapOptions): Promise<void>;
  /** Also from the image. Allowed for an inconsistent bitmap. */
  remove(name: string): Promise<void>;
  /** Makes all clean. */
  clear(name: string): void;
  enable(name: string): void;
  disable(name: string): void;
  /** Adds what is dirty in all `sources` to `target`; all or nothing. The disks must be of equal size. */
  merge(target: string, sources: readonly (string | BitmapReference)[]): void;
  /** Whether the granule is dirty that holds `offset`; without such a bitmap it is not (BL-BITMAP-8). */
  isDirty(name: string, offset: number): boolean;
  /** The dirty areas, ascending. Until the loop over them is left, the disk keeps its size and the bitmap. */
  dirtyAreas(name: string, options?: DirtyAreasOptions): Generator<ByteRange, void, undefined>;
}

/**
 * The dirty bitmaps of a disk's top node, or of a node.
 *
 * ```ts
 * await bitmaps(disk).add('since-monday');
 * await disk.write(1_000_000, data);
 * for (const { offset, length } of bitmaps(disk).dirtyAreas('since-monday')) copy(offset, length);
 * ```
 */
export function bitmaps(of: Disk | BlockNode): NodeBitmaps {
  const list = bitmapListOf(of);
  /** A bitmap that may be used, save for the marks that are allowed. */
  const usable = (name: string, ...allowed: readonly UseMark[]) => {
    const bitmap = list.require(name);
    bitmap.requireUsable(...allowed);
    return bitmap;
  };
  return {
    list: () => list.query(),
    add: (name, options = {}) => add(list, name, options),
    remove: (name) => remove(nodeOf(of), list, name),
    clear(name) {
      usable(name).clear();
      list.edits++;
    },
    enable: (name) => list.enable(usable(name, 'readOnly')),
    disable: (name) => list.disable(usable(name, 'readOnly')),
    merge(target, sources) {
      const found = usable(target);
      const find = (source: string | BitmapReference) =>
        typeof source === 'string' ? list.require(source) : bitmapListOf(source.of).require(source.name);
      mergeBitmaps(found, sources.map(find));
      list.edits++;
    },
    isDirty: (name, offset) => list.find(name)?.get(offset) ?? false,
    dirtyAreas(name, { offset = 0, length, maxLength } = {}) {
      const bitmap = usable(name, 'busy', 'readOnly');
      return bitmap.areas(offset, length === undefined ? bitmap.size : offset + length, maxLength);
    },
  };
}

async function add(list: BitmapList, name: string, options: AddBitmapOptions): Promise<void> {
  const wanted = { ...options, name };
  if (options.persistent === true) {
    list.checkNew(wanted);
    if (list.store === undefined) {
      const text = `Can't store persistent bitmaps to ${list.node}: Operation not supported`;
      throw new BlockError('ENOTSUP', text, { node: list.node });
    }
    await list.store.checkNew(name, options.granularity ?? list.defaultGranularity);
  }
  list.create(wanted);
}

/** First from the image: if that fails, the bitmap is as before. */
async function remove(node: BlockNode, list: BitmapList, name: string): Promise<void> {
  const bitmap = list.require(name);
  bitmap.requireUsable('inconsistent');
  bitmap.requireUnpinned();
  const { store } = list;
  if (bitmap.persistent && store !== undefined) {
    bitmap.busy = true;
    try {
      // Like a request: work that has the node to itself is waited for, and waits for this.
      await node.whenResumed();
      await node.tracker.track(() => store.remove(name));
    } finally {
      bitmap.busy = false;
    }
  }
  list.release(bitmap);
}

const lists = new WeakMap<BlockNode, BitmapList>();

/**
 * The list of a node's bitmaps: the one that its driver opened with it, or one that joins the node's trackers with its
 * first bitmap and leaves them with its last.
 */
export function bitmapListOf(of: Disk | BlockNode): BitmapList {
  const node = nodeOf(of);
  const kept = node.isOpen ? node.impl.tracker : undefined;
  const list = lists.get(node) ?? (kept instanceof BitmapList ? kept : new BitmapList(ownerOf(node)));
  lists.set(node, list);
  return list;
}

function ownerOf(node: BlockNode): BitmapOwner {
  return {
    name: node.name,
    length: () => node.impl.length(),
    clusterSize: () => driverInfo(node)?.clusterSize,
    occupied: (list, yes) => setTracked(node, list, yes),
  };
}
