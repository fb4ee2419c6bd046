/** An opened image: what its requests, its write-back and its maintenance share. */
import { alignUp } from '../../bytes/align.ts';
import { randomUuid } from '../../bytes/uuid.ts';
import type { Child } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import type { Host } from '../../core/host.ts';
import type { Damage } from './damage.ts';
import { ImageType, type VdiHeader } from './header.ts';
import { DirtyPages, isStored, UNALLOCATED } from './map.ts';
import type { Slots } from './slots.ts';
import { usableSize } from './validate.ts';

export class VdiImage {
  readonly file: Child;
  readonly host: Host;
  readonly node: string;
  readonly header: VdiHeader;
  /** The header as it is on disk, to be patched. */
  readonly headerBytes: Uint8Array;
  map: Uint32Array;
  readonly slots: Slots;
  damage: Damage;
  readonly dirtyPages = new DirtyPages();
  /** The header's count on disk, as far as it is known to be durable or about to be. */
  countOnDisk: number;
  headerDirty = false;
  /** A block being allocated, and the end of that. */
  readonly allocating = new Map<number, Promise<void>>();
  /** Where the data begin, and how far apart blocks are; both change only when the image is resized. */
  dataOffset: number;
  readonly stride: number;
  readonly blockSize: number;
  readonly isStatic: boolean;
  #length: number;
  #modified = false;

  constructor(parts: {
    readonly file: Child;
    readonly host: Host;
    readonly node: string;
    readonly header: VdiHeader;
    readonly headerBytes: Uint8Array;
    readonly map: Uint32Array;
    readonly slots: Slots;
    readonly damage: Damage;
  }) {
    this.file = parts.file;
    this.host = parts.host;
    this.node = parts.node;
    this.header = parts.header;
    this.headerBytes = parts.headerBytes;
    this.map = parts.map;
    this.slots = parts.slots;
    this.damage = parts.damage;
    this.countOnDisk = parts.header.allocated;
    this.dataOffset = parts.header.dataOffset;
    this.blockSize = parts.header.blockSize;
    this.stride = parts.header.blockSize + parts.header.blockExtra;
    this.isStatic = parts.header.type === ImageType.static;
    this.#length = usableSize(parts.header);
  }

  get length(): number {
    return this.#length;
  }

  /** The header's size field changes with it. */
  set length(bytes: number) {
    this.#length = alignUp(bytes, 512);
    this.header.diskSize = this.#length;
  }

  /** Where a slot's data are in the file (V-3). */
  position(slot: number): number {
    return this.dataOffset + slot * this.stride + this.header.blockExtra;
  }

  /** The first byte after a slot. */
  endOf(slot: number): number {
    return this.dataOffset + (slot + 1) * this.stride;
  }

  entry(block: number): number {
    return this.map[block] ?? UNALLOCATED;
  }

  setEntry(block: number, entry: number): void {
    this.map[block] = entry;
    this.dirtyPages.mark(block);
  }

  /** How many blocks are stored. */
  countStored(): number {
    let count = 0;
    for (const entry of this.map) if (isStored(entry)) count++;
    return count;
  }

  /** To be called before anything changes: the modification UUID is new from a session's first change on (V-64). */
  touch(): void {
    if (this.#modified) return;
    this.#modified = true;
    this.header.modificationUuid = randomUuid((target) => this.host.random(target));
    this.headerDirty = true;
  }

  /** Refuses to write into an image whose map cannot be trusted (V-15). */
  requireSound(): void {
    if (!this.damage.any) return;
    const text = `The VDI image '${this.file.filename()}' is damaged (${this.damage.first}); it can be written after a repair`;
    throw new BlockError('EIO', text, { node: this.node });
  }

  /** Refuses to read a block whose place is in doubt (V-15). */
  requireReadable(block: number): void {
    if (!this.damage.isDamaged(block)) return;
    const text = `Cannot read block ${block} of '${this.file.filename()}': ${this.damage.describe(this, block)}`;
    throw new BlockError('EIO', text, { node: this.node });
  }
}
