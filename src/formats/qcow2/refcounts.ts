/**
 * How often each cluster of the image file is used (Q-REF). Counts change in cached blocks, which may be written at any
 * time: what raises a count comes before what refers to the cluster, and what lowers it after that is gone for good.
 */
import { alignUp } from '../../bytes/align.ts';
import { viewOf } from '../../bytes/big-endian.ts';
import { lastNonZero } from '../../bytes/difference.ts';
import { isZero } from '../../bytes/zero.ts';
import { BlockError } from '../../core/errors.ts';
import { Mutex } from '../../core/gate.ts';
import { invariant } from '../../core/invariant.ts';
import { type CacheEntry, MetadataCache } from './cache.ts';
import { corruption } from './corruption.ts';
import type { Qcow2Image } from './image.ts';
import { writeMetadata } from './metadata-io.ts';
import { MetadataClass } from './overlap.ts';
import { createBlock } from './refcount-growth.ts';
import { countFree, type RefcountWidth, refcountWidth } from './refcount-width.ts';
import { type HostOffset, hexOffset } from './tables.ts';

export const REFCOUNT_ENTRY_BYTES = 8;
/** Clusters that are looked at for a free one at once. */
const NEAR = 64;
/** Free clusters of a block that nobody has counted yet. */
const UNKNOWN = -1;
/** Bytes of the refcount table that are read at a time. */
const TABLE_PIECE = 1 << 20;
/** Bytes of it that are passed over at once when they are zero, as most are; the smallest table has no more. */
const ZERO_STRIDE = 512;

export class Refcounts {
  readonly image: Qcow2Image;
  readonly cache: MetadataCache;
  width: RefcountWidth;
  /** Offsets of blocks, 0: none. */
  table = new Float64Array(0);
  /** No cluster below is free. */
  hint = 0;
  /** No cluster from here on is used; where that is not known, infinity. */
  usedBound = Number.POSITIVE_INFINITY;
  /** First unused byte of the last cluster that compressed data were packed into; 0: there is none (Q-REF-7). */
  packedEnd = 0;
  readonly lock = new Mutex();
  readonly #writeLock = new Mutex();
  #isDeferred = false;
  /** Free clusters by block. */
  #free = new Int32Array(0);

  constructor(image: Qcow2Image, cacheEntries: number) {
    this.image = image;
    this.width = refcountWidth(image.layout.refcountOrder);
    this.cache = new MetadataCache(image.layout.clusterSize, cacheEntries, {
      load: (offset, bytes) => image.loadMetadata(undefined, offset, bytes),
      writeBack: () => this.writeBack(),
    });
  }

  /** Reads the table. `deferred`: leaves that to {@link ready}. Throws BlockError. */
  async load(deferred = false): Promise<void> {
    const { image } = this;
    if (image.header.refcountTableClusters > 0) await image.raise('reftable_load');
    this.#isDeferred = deferred;
    if (!deferred) await this.#readTable();
  }

  /** Whoever looks at counts of an image that is only read waits for the table first. Throws BlockError. */
  async ready(): Promise<void> {
    if (this.#isDeferred) await this.#readTable();
    this.#isDeferred = false;
  }

  async #readTable(): Promise<void> {
    const { header, layout, file } = this.image;
    const bytes = header.refcountTableClusters * layout.clusterSize;
    const offset = Number(header.refcountTableOffset);
    // What lies in a cluster that is not there at all is no table; the tail of the last cluster is zero.
    if (bytes > 0 && offset + bytes > alignUp(file.length(), layout.clusterSize)) {
      const text = `The refcount table at ${offset} (${bytes} bytes) is past the end of the file`;
      throw new BlockError('EIO', text, { node: this.image.node });
    }
    const table = new Float64Array(bytes / REFCOUNT_ENTRY_BYTES);
    for (let done = 0; done < bytes; done += TABLE_PIECE) {
      const piece = new Uint8Array(Math.min(TABLE_PIECE, bytes - done));
      if (!file.tryReadNow(offset + done, piece)) await file.read(offset + done, piece);
      const view = viewOf(piece);
      for (let start = 0; start < piece.length; start += ZERO_STRIDE) {
        if (isZero(piece, start, start + ZERO_STRIDE)) continue;
        for (let at = start; at < start + ZERO_STRIDE; at += REFCOUNT_ENTRY_BYTES) {
          const low = (view.getUint32(at + 4) & 0xfffffe00) >>> 0;
          table[(done + at) / REFCOUNT_ENTRY_BYTES] = view.getUint32(at) * 2 ** 32 + low;
        }
      }
    }
    this.useTable(table);
  }

  /** Another structure is in the file, with counts of the width that the layout says; nothing that is cached counts. */
  useStructure(table: Float64Array<ArrayBuffer>): void {
    this.width = refcountWidth(this.image.layout.refcountOrder);
    this.cache.forgetAll();
    this.hint = 0;
    this.useTable(table);
  }

  useTable(table: Float64Array<ArrayBuffer>): void {
    this.table = table;
    this.#free = new Int32Array(table.length).fill(UNKNOWN);
    this.packedEnd = 0;
    this.usedBound = Number.POSITIVE_INFINITY;
  }

  /** No block has this index or a higher one; a table has room for far more than a new image needs. */
  get blocksEnd(): number {
    return Math.floor(lastNonZero(new Uint8Array(this.table.buffer)) / REFCOUNT_ENTRY_BYTES) + 1;
  }

  indexMetadata(): void {
    const { metadata, header, layout } = this.image;
    const bytes = header.refcountTableClusters * layout.clusterSize;
    metadata.add(MetadataClass.refcountTable, Number(header.refcountTableOffset), bytes);
    const { blocksEnd } = this;
    for (let index = 0; index < blocksEnd; index++) {
      const offset = this.table[index] ?? 0;
      if (offset !== 0) metadata.add(MetadataClass.refcountBlock, offset, layout.clusterSize);
    }
  }

  blockIndex(cluster: number): number {
    return Math.floor(cluster / this.image.layout.refcountsPerBlock);
  }

  /** The block of an index; undefined: all its counts are zero. Throws what {@link corruption} makes of a bad entry. */
  async block(index: number): Promise<CacheEntry | undefined> {
    const offset = this.table[index] ?? 0;
    if (offset === 0) return undefined;
    const cached = this.cache.peek(offset);
    if (cached !== undefined) return cached;
    if (offset % this.image.layout.clusterSize !== 0) {
      const text = `Refblock offset 0x${offset.toString(16)} unaligned (reftable index: ${hexOffset(index)})`;
      throw await corruption(this.image, { fatal: true, text });
    }
    return this.cache.get(offset);
  }

  async get(cluster: number): Promise<number> {
    const block = await this.block(this.blockIndex(cluster));
    return block === undefined ? 0 : this.width.get(block.view, cluster % this.image.layout.refcountsPerBlock);
  }

  /**
   * Adds `delta` to the counts of all clusters that a range touches. Resolves with the ranges that nothing uses any more.
   * Throws BlockError EINVAL where a count cannot be (Q-REF-4), and then has changed nothing.
   */
  change(offset: HostOffset, length: number, delta: number): Promise<FreedRange[]> {
    return this.lock.run(() => this.changeLocked(offset, length, delta));
  }

  /** The same for who holds the lock. */
  async changeLocked(offset: HostOffset, length: number, delta: number): Promise<FreedRange[]> {
    const { clusterSize, refcountsPerBlock } = this.image.layout;
    const end = Math.ceil((offset + length) / clusterSize);
    const first = Math.floor(offset / clusterSize);
    const freed: FreedRange[] = [];
    let cluster = first;
    try {
      while (cluster < end) {
        const index = this.blockIndex(cluster);
        const stop = Math.min(end, (index + 1) * refcountsPerBlock);
        await this.image.raise('refblock_alloc');
        const block = await this.#blockToChange(index, delta);
        this.#changeIn(block, cluster, stop, delta, freed);
        cluster = stop;
      }
    } catch (error) {
      if (cluster > first) await this.changeLocked(first * clusterSize, (cluster - first) * clusterSize, -delta);
      throw error;
    }
    if (delta > 0 && this.hint >= first && this.hint < end) this.hint = end;
    return freed;
  }

  async #blockToChange(index: number, delta: number): Promise<CacheEntry> {
    for (;;) {
      // Raised for a block that is cached too, and before it is read.
      if ((this.table[index] ?? 0) !== 0) await this.image.raise('refblock_load');
      const block = await this.block(index);
      if (block !== undefined) return block;
      if (delta < 0) throw this.#underflow();
      await createBlock(this, index);
    }
  }

  /** Clusters [from, to) of one block: all of them or none. */
  #changeIn(block: CacheEntry, from: number, to: number, delta: number, freed: FreedRange[]): void {
    const { width } = this;
    const { refcountsPerBlock, refcountBits, clusterSize } = this.image.layout;
    const { view } = block;
    if (delta > 0) this.usedBound = Math.max(this.usedBound, to);
    if (delta === 1 && countFree(block.bytes, refcountBits, from % refcountsPerBlock, to - from)) {
      this.#noteFree(from, from - to);
      block.dirty = true;
      return;
    }
    for (let cluster = from; cluster < to; cluster++) {
      const count = width.get(view, cluster % refcountsPerBlock) + delta;
      if (count < 0) throw this.#underflow();
      if (count > width.max) {
        const text = `refcount width of ${refcountBits} bits cannot hold another reference`;
        throw new BlockError('EINVAL', text, { node: this.image.node });
      }
    }
    for (let cluster = from; cluster < to; cluster++) {
      const index = cluster % refcountsPerBlock;
      const count = width.get(view, index) + delta;
      width.set(view, index, count);
      if (count === 0) {
        this.#noteFree(cluster, 1);
        const last = freed.at(-1);
        if (last !== undefined && last.offset + last.length === cluster * clusterSize) last.length += clusterSize;
        else freed.push({ offset: cluster * clusterSize, length: clusterSize });
      } else if (count === delta) this.#noteFree(cluster, -1);
    }
    block.dirty = true;
  }

  #underflow(): BlockError {
    return new BlockError('EINVAL', 'A refcount would fall below zero', { node: this.image.node });
  }

  /** So many clusters more are free in the block of this one, which is one of them; or fewer. */
  #noteFree(cluster: number, change: number): void {
    const index = this.blockIndex(cluster);
    const known = this.#free[index] ?? UNKNOWN;
    if (known !== UNKNOWN) this.#free[index] = known + change;
    if (change > 0 && cluster < this.hint) this.hint = cluster;
    // What nothing uses any more may be taken for something else.
    if (change > 0 && cluster === Math.floor(this.packedEnd / this.image.layout.clusterSize)) this.packedEnd = 0;
  }

  /**
   * The lowest free cluster, if that can be told at once: nobody is changing counts, its block is at hand, and it is near;
   * else -1. To be taken before anything is waited for.
   */
  freeNow(): number {
    if (this.lock.busy) return -1;
    const { refcountsPerBlock } = this.image.layout;
    const index = this.blockIndex(this.hint);
    const block = this.cache.peek(this.table[index] ?? 0);
    if (block === undefined) return -1;
    const stop = Math.min(this.hint + NEAR, (index + 1) * refcountsPerBlock);
    while (this.hint < stop && this.width.get(block.view, this.hint % refcountsPerBlock) !== 0) this.hint++;
    return this.hint < stop ? this.hint : -1;
  }

  /** Counts the cluster that {@link freeNow} told. */
  takeNow(cluster: number): void {
    const block = this.cache.peek(this.table[this.blockIndex(cluster)] ?? 0);
    invariant(block !== undefined, 'the block was at hand');
    this.width.set(block.view, cluster % this.image.layout.refcountsPerBlock, 1);
    block.dirty = true;
    this.usedBound = Math.max(this.usedBound, cluster + 1);
    this.#noteFree(cluster, -1);
    this.hint = cluster + 1;
  }

  /** Free clusters of a block that is there. */
  freeIn(index: number, block: CacheEntry): number {
    const known = this.#free[index] ?? UNKNOWN;
    if (known !== UNKNOWN) return known;
    const { refcountsPerBlock } = this.image.layout;
    let free = 0;
    for (let i = 0; i < refcountsPerBlock; i++) if (this.width.get(block.view, i) === 0) free++;
    this.#free[index] = free;
    return free;
  }

  /** The table names no block there any more. */
  forgetBlock(index: number): void {
    this.cache.drop(this.table[index] ?? 0);
    this.table[index] = 0;
    this.#free[index] = UNKNOWN;
  }

  /** Who has looked at all its counts says so. */
  noteFull(index: number): void {
    this.#free[index] = 0;
  }

  /** The same where nothing of a block's clusters is used. */
  noteFree(index: number): void {
    this.#free[index] = this.image.layout.refcountsPerBlock;
  }

  /** What is known to be free as a whole without a look. */
  isKnownFree(index: number): boolean {
    return this.#free[index] === this.image.layout.refcountsPerBlock;
  }

  /** What is known to be full without a look. */
  isKnownFull(index: number): boolean {
    return this.#free[index] === 0;
  }

  /** Writes all dirty blocks; they are not durable then. */
  writeBack(): Promise<void> {
    return this.#writeLock.run(async () => {
      const taken = this.cache.takeDirty();
      let written = false;
      try {
        for (const { entry, bytes } of taken) {
          await this.image.raise('refblock_update_part');
          await writeMetadata(this.image, MetadataClass.refcountBlock, entry.offset, bytes);
        }
        written = true;
      } finally {
        this.cache.settle(taken, written);
      }
    });
  }
}

/** Bytes of whole clusters. */
export interface FreedRange {
  readonly offset: HostOffset;
  length: number;
}
