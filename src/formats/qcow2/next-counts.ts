/**
 * Counts as they are to be, beside those that hold: blocks that change are copied to places that are free either way. So
 * nothing that holds is written over, and one write of the header makes the new counts true (switch-state.ts).
 */
import { setU64, viewOf } from '../../bytes/big-endian.ts';
import { BlockError } from '../../core/errors.ts';
import { type CacheEntry, MetadataCache } from './cache.ts';
import { corruption } from './corruption.ts';
import type { Qcow2Image } from './image.ts';
import { REFCOUNT_TABLE_BYTES_MAX } from './layout.ts';
import { writeMetadata } from './metadata-io.ts';
import { MetadataClass } from './overlap.ts';
import { type FreedRange, REFCOUNT_ENTRY_BYTES } from './refcounts.ts';
import { type HostOffset, hexOffset } from './tables.ts';

/** Blocks in memory, at least: a place's block, those of the two that are searched, and the one being copied. */
const CACHED_MIN = 8;
/** Ranges that are remembered to be given back to the host; more of them just stay in the file. */
const FREED_MAX = 65536;

/** A refcount table that was written. */
export interface NextTable {
  readonly offset: HostOffset;
  readonly clusters: number;
  readonly blocks: Float64Array<ArrayBuffer>;
}

/** For an image of which everything is written back, and that nobody changes meanwhile. */
export class NextCounts {
  readonly image: Qcow2Image;
  /** What nothing uses any more. */
  readonly freed: FreedRange[] = [];
  /** Places of blocks, 0: none; and what they were. */
  readonly #table: number[];
  readonly #before: Float64Array;
  readonly #copied = new Set<number>();
  readonly #cache: MetadataCache;
  /** The cluster that a search begins at: it never goes back, so that nothing is taken twice. */
  #cursor: number;

  constructor(image: Qcow2Image) {
    const { refcounts, layout, settings } = image;
    this.image = image;
    this.#before = refcounts.table;
    this.#table = Array.from(refcounts.table);
    while (this.#table.at(-1) === 0) this.#table.pop();
    this.#cache = new MetadataCache(layout.clusterSize, Math.max(CACHED_MIN, settings.caches.refcountEntries), {
      load: (offset, bytes) => image.loadMetadata(undefined, offset, bytes),
      writeBack: () => this.#writeBack(),
    });
    this.#cursor = Math.max(1, refcounts.hint);
  }

  async get(cluster: number): Promise<number> {
    const block = await this.block(this.image.refcounts.blockIndex(cluster));
    return block === undefined ? 0 : this.image.refcounts.width.get(block, cluster % this.#perBlock);
  }

  /** The block of an index as it is to be, until the caller waits for something else; undefined: all its counts are zero. */
  block(index: number): Promise<DataView | undefined> {
    return this.#blockAt(this.#table[index] ?? 0, index);
  }

  async #blockAt(offset: HostOffset, index: number): Promise<DataView | undefined> {
    if (offset === 0) return undefined;
    if (offset % this.image.layout.clusterSize !== 0) {
      const text = `Refblock offset ${hexOffset(offset)} unaligned (reftable index: ${hexOffset(index)})`;
      throw await corruption(this.image, { fatal: true, text });
    }
    return (await this.#cache.get(offset)).view;
  }

  /** Takes `count` clusters side by side that are free before and after, for something new. */
  async take(count: number): Promise<HostOffset> {
    const { clusterSize } = this.image.layout;
    await this.image.raise('cluster_alloc');
    const place = (await this.#findFree(count)) * clusterSize;
    await this.#change(place, count * clusterSize, 1, true);
    return place;
  }

  /** Counts one more reference to what a range touches, which is used already. Throws BlockError EINVAL, EIO. */
  add(offset: HostOffset, length: number): Promise<void> {
    return this.#change(offset, length, 1, false);
  }

  /** Counts one less. */
  drop(offset: HostOffset, length: number): Promise<void> {
    return this.#change(offset, length, -1, false);
  }

  get #perBlock(): number {
    return this.image.layout.refcountsPerBlock;
  }

  async #findFree(count: number): Promise<number> {
    const { refcounts, layout, node } = this.image;
    let first = this.#cursor;
    for (let cluster = first; cluster < first + count; ) {
      if ((first + count) * layout.clusterSize > Number.MAX_SAFE_INTEGER) {
        throw new BlockError('EFBIG', 'File too large', { node });
      }
      const index = refcounts.blockIndex(cluster);
      const end = (index + 1) * this.#perBlock;
      const views = refcounts.isKnownFull(index) ? undefined : await this.#bothBlocks(index);
      if (views === undefined) {
        cluster = end;
        first = end;
        continue;
      }
      const stop = () => Math.min(end, first + count);
      for (; cluster < stop(); cluster++) {
        const isUsed = views.some((view) => refcounts.width.get(view, cluster % this.#perBlock) !== 0);
        if (isUsed) first = cluster + 1;
      }
    }
    this.#cursor = first + count;
    return first;
  }

  async #bothBlocks(index: number): Promise<DataView[]> {
    const now = await this.block(index);
    const before = this.#copied.has(index) ? await this.#blockAt(this.#before[index] ?? 0, index) : undefined;
    return [now, before].filter((view) => view !== undefined);
  }

  async #change(offset: HostOffset, length: number, delta: 1 | -1, isNew: boolean): Promise<void> {
    const { refcounts, layout } = this.image;
    const end = Math.ceil((offset + length) / layout.clusterSize);
    for (let cluster = Math.floor(offset / layout.clusterSize); cluster < end; ) {
      const index = refcounts.blockIndex(cluster);
      const stop = Math.min(end, (index + 1) * this.#perBlock);
      const isThere = (this.#table[index] ?? 0) !== 0;
      if (!isNew && !isThere) throw this.#uncounted(cluster);
      // As where counts change in place.
      await this.image.raise('refblock_alloc');
      if (isThere) await this.image.raise('refblock_load');
      const block = await this.#copyOf(index);
      this.#changeIn(block, cluster, stop, delta, isNew);
      cluster = stop;
    }
  }

  /** Clusters [from, to) of one block. */
  #changeIn(block: CacheEntry, from: number, to: number, delta: 1 | -1, isNew: boolean): void {
    const { refcounts, layout, node } = this.image;
    const { width } = refcounts;
    const { view } = block;
    const start = from - (from % this.#perBlock);
    block.dirty = true;
    for (let cluster = from; cluster < to; cluster++) {
      const before = width.get(view, cluster - start);
      if (before === 0 && !isNew) throw this.#uncounted(cluster);
      const count = before + delta;
      if (count > width.max) {
        const text = `refcount width of ${layout.refcountBits} bits cannot hold another reference`;
        throw new BlockError('EINVAL', text, { node });
      }
      width.set(view, cluster - start, count);
      if (count === 0) this.#noteFreed(cluster * layout.clusterSize);
    }
  }

  #uncounted(cluster: number): BlockError {
    const text = `The image is corrupt: cluster ${cluster} is in use, but its refcount is 0`;
    return new BlockError('EIO', text, { node: this.image.node });
  }

  #noteFreed(offset: HostOffset): void {
    const { clusterSize } = this.image.layout;
    const last = this.freed.at(-1);
    if (last !== undefined && last.offset + last.length === offset) last.length += clusterSize;
    else if (this.freed.length < FREED_MAX) this.freed.push({ offset, length: clusterSize });
  }

  /** The block of an index in a place of its own, where it may be changed until the caller waits for something. */
  async #copyOf(index: number): Promise<CacheEntry> {
    while (!this.#copied.has(index)) await this.#copy(index);
    return this.#cache.get(this.#table[index] ?? 0);
  }

  async #copy(index: number): Promise<void> {
    const { clusterSize } = this.image.layout;
    const before = this.#table[index] ?? 0;
    const old = await this.block(index);
    const bytes = new Uint8Array(clusterSize);
    if (old !== undefined) bytes.set(new Uint8Array(old.buffer, old.byteOffset, old.byteLength));
    const place = (await this.#findFree(1)) * clusterSize;
    while (this.#table.length <= index) this.#table.push(0);
    this.#table[index] = place;
    this.#copied.add(index);
    this.#cache.put(place, bytes);
    await this.#change(place, clusterSize, 1, true);
    if (before !== 0) await this.drop(before, clusterSize);
  }

  /** Writes all that changed, and a table of it; durable after the next flush of the file. EFBIG past 8 MiB. */
  async finish(): Promise<NextTable> {
    const { header, layout, node } = this.image;
    const { clusterSize } = layout;
    let clusters = header.refcountTableClusters;
    await this.drop(Number(header.refcountTableOffset), clusters * clusterSize);
    let offset = await this.take(clusters);
    for (;;) {
      const needed = Math.ceil((this.#table.length * REFCOUNT_ENTRY_BYTES) / clusterSize);
      if (needed <= clusters) break;
      await this.drop(offset, clusters * clusterSize);
      clusters = Math.ceil(needed * 1.5);
      if (clusters * clusterSize > REFCOUNT_TABLE_BYTES_MAX) throw new BlockError('EFBIG', 'File too large', { node });
      offset = await this.take(clusters);
    }
    await this.#writeBack();
    const bytes = new Uint8Array(clusters * clusterSize);
    const blocks = new Float64Array(bytes.length / REFCOUNT_ENTRY_BYTES);
    blocks.set(this.#table);
    for (const [index, block] of blocks.entries()) setU64(viewOf(bytes), index * REFCOUNT_ENTRY_BYTES, block);
    await this.image.raise('refblock_alloc_write_table');
    await writeMetadata(this.image, MetadataClass.refcountTable, offset, bytes);
    return { offset, clusters, blocks };
  }

  async #writeBack(): Promise<void> {
    const taken = this.#cache.takeDirty();
    let written = false;
    try {
      for (const { entry, bytes } of taken) {
        await this.image.raise('refblock_alloc_write_blocks');
        await this.image.raise('refblock_update_part');
        await writeMetadata(this.image, MetadataClass.refcountBlock, entry.offset, bytes);
      }
      written = true;
    } finally {
      this.#cache.settle(taken, written);
    }
  }
}
