/** An opened image: what its requests, its write-back and its maintenance share. */
import { alignUp } from '../../bytes/align.ts';
import { randomUuid } from '../../bytes/uuid.ts';
import type { Child } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { Gate, Mutex } from '../../core/gate.ts';
import type { Host } from '../../core/host.ts';
import type { Bits } from './bits.ts';
import { isShared, type MapScan, scanMap } from './damage.ts';
import { ImageType, type VdiHeader } from './header.ts';
import { DirtyPages, isStored, UNALLOCATED, ZEROED } from './map.ts';
import { Slots } from './slots.ts';
import { SECTOR, usableSize } from './validate.ts';

export interface ImageParts {
  readonly file: Child;
  readonly host: Host;
  readonly node: string;
  readonly header: VdiHeader;
  /** The header as it is in the file, to be patched. */
  readonly headerBytes: Uint8Array;
  readonly map: Uint32Array;
  readonly salvage: boolean;
  /** The image that shows through, as it is linked now. */
  parent(): Child | undefined;
  /** Raises a debug event (BD-42); undefined: nobody holds the step up that it names. */
  event(name: string): Promise<void> | undefined;
  eventsHeard(): boolean;
  /** Why an image that should have a parent has none. */
  readonly orphaned: string | undefined;
  /** Opened to see what a repair would do: nobody will read what it copies. */
  readonly rehearsing: boolean;
}

export class VdiImage {
  readonly file: Child;
  readonly host: Host;
  readonly node: string;
  readonly salvage: boolean;
  readonly header: VdiHeader;
  readonly headerBytes: Uint8Array;
  readonly blockSize: number;
  /** Bytes from one slot to the next. */
  readonly stride: number;
  readonly isStatic: boolean;
  /** The image that shows where nothing was ever stored in a differencing image (V-50). */
  readonly parent: () => Child | undefined;
  readonly event: ImageParts['event'];
  readonly eventsHeard: () => boolean;
  /** Why that one is missing, when it is and its data may not be taken for zeroes. */
  orphaned: string | undefined;
  readonly rehearsing: boolean;
  map: Uint32Array;
  /** Entries below name slots that are whole in the file. */
  readable = 0;
  /** Slots that several blocks name. */
  shared: Bits | undefined;
  slots: Slots = new Slots(0, new Uint32Array(0), 0, 0);
  /** What a look at the map found, while the map is as it was then. */
  scan: MapScan | undefined;
  /** Why nothing may be written: a damaged map (V-15), or a layout that may be half changed. */
  refusal: string | undefined;
  readonly dirtyPages: DirtyPages;
  headerDirty = false;
  /** The allocated count that the file's header holds; if that is not known, the lowest it may be. */
  countOnDisk: number;
  /** The file has been seen to grow, so that new slots may be written past its end. */
  fileGrows = false;
  /** Blocks that are being given a slot, with a promise that resolves when that is over (V-23). */
  readonly allocating = new Map<number, Promise<void>>();
  readonly gate = new Gate();
  /** Held by whoever writes metadata back. */
  readonly metadataLock = new Mutex();
  /** Holders of the lock, and those that wait for it. */
  writeBacks = 0;
  /** A flush that has not begun, and so covers all that is completed until it does. */
  queuedFlush: Promise<void> | undefined;
  /** Position of the first slot's block, behind its extra bytes. */
  #base: number;
  #length: number;
  #touched = false;

  constructor(parts: ImageParts) {
    const { header } = parts;
    this.file = parts.file;
    this.host = parts.host;
    this.node = parts.node;
    this.salvage = parts.salvage;
    this.header = header;
    this.headerBytes = parts.headerBytes;
    this.map = parts.map;
    this.dirtyPages = new DirtyPages(parts.map.length);
    this.countOnDisk = header.allocated;
    this.blockSize = header.blockSize;
    this.stride = header.blockSize + header.blockExtra;
    this.isStatic = header.type === ImageType.static;
    this.parent = parts.parent;
    this.event = parts.event;
    this.eventsHeard = parts.eventsHeard;
    this.orphaned = parts.orphaned;
    this.rehearsing = parts.rehearsing;
    this.#base = header.dataOffset + header.blockExtra;
    this.#length = usableSize(header);
    this.rescan();
  }

  /** Does what an event names, at once if nobody holds it up. */
  after(event: string, work: () => Promise<void>): Promise<void> {
    return this.event(event)?.then(work) ?? work();
  }

  /** Bytes of the disk. */
  get length(): number {
    return this.#length;
  }

  /** What was never allocated shows the parent; what is known to be zero hides it (V-3). */
  get isDifferencing(): boolean {
    return this.header.type === ImageType.differencing;
  }

  /** The entry of a block that holds nothing and reads as zeroes whatever is below (V-66). */
  get emptyEntry(): number {
    return this.isDifferencing ? ZEROED : UNALLOCATED;
  }

  /** Whether the block's data are the parent's. */
  showsParent(block: number): boolean {
    if (!this.isDifferencing || this.entry(block) !== UNALLOCATED) return false;
    const parent = this.parent();
    return parent === undefined ? this.orphaned !== undefined : block * this.blockSize < parent.length();
  }

  /** The parent; undefined: there is none, on purpose, and zeroes are in its place. EIO when it is missing. */
  requireParent(): Child | undefined {
    const parent = this.parent();
    if (parent === undefined && this.orphaned !== undefined) {
      throw new BlockError('EIO', this.orphaned, { node: this.node });
    }
    return parent;
  }

  /** Takes sizes and offsets from the header anew, after a resize. */
  relayout(map: Uint32Array): void {
    this.map = map;
    this.dirtyPages.reset(map.length);
    this.#base = this.header.dataOffset + this.header.blockExtra;
    this.#length = alignUp(Number(this.header.diskSize), SECTOR);
    this.rescan();
  }

  /** Derives from the map which slots are taken and what is wrong; no request and no allocation is under way. */
  rescan(): void {
    const scan = scanMap(this.map, this.header, this.file.length());
    this.scan = scan;
    this.readable = scan.held;
    this.shared = scan.shared;
    this.slots = new Slots(this.map.length, scan.taken, scan.count, scan.end);
    this.refusal = undefined;
    if (scan.wrong === 0) return;
    const more = scan.wrong === 1 ? '' : ` and ${scan.wrong - 1} more`;
    const place = `block ${scan.firstWrong}${more}`;
    this.refusal = `The VDI image '${this.file.filename()}' is damaged (${place}); it can be written after a repair`;
  }

  /** Position of a slot's data (V-3). */
  position(slot: number): number {
    return this.#base + slot * this.stride;
  }

  /** Position of a slot's first byte: its extra bytes come before its data. */
  startOf(slot: number): number {
    return this.header.dataOffset + slot * this.stride;
  }

  /** Where the used part of the file ends. */
  get dataEnd(): number {
    return this.startOf(this.slots.end);
  }

  entry(block: number): number {
    return this.map[block] ?? UNALLOCATED;
  }

  setEntry(block: number, entry: number): void {
    this.map[block] = entry;
    this.scan = undefined;
    this.dirtyPages.mark(block);
  }

  /** Whether an entry names a slot that can be read: whole in the file, and no other block's. */
  isSound(entry: number): boolean {
    return entry < this.readable && !isShared(this.shared, entry);
  }

  /**
   * Bytes from `offset` on, at most `limit`, that one operation serves: blocks that read as zeroes, blocks of the parent,
   * blocks that lie one behind the other in the file, or one block with a damaged entry.
   */
  runLength(offset: number, limit: number): number {
    const { map, blockSize, readable } = this;
    let block = Math.floor(offset / blockSize);
    let length = (block + 1) * blockSize - offset;
    if (length >= limit) return limit;
    let entry = this.entry(block);
    if (!isStored(entry) && this.isDifferencing) {
      while (length < limit && map[++block] === entry) length += blockSize;
    } else if (!isStored(entry)) {
      while (length < limit && !isStored(map[++block] ?? 0)) length += blockSize;
    } else if (entry < readable && this.shared === undefined && this.stride === blockSize) {
      while (length < limit && ++entry < readable && map[++block] === entry) length += blockSize;
    }
    return Math.min(length, limit);
  }

  /** To be called when something changes: the modification UUID is new from a session's first change on (V-64). */
  touch(): void {
    if (this.#touched) return;
    this.#touched = true;
    this.header.modificationUuid = randomUuid((target) => this.host.random(target));
    this.headerDirty = true;
  }

  /** The next change begins another session: the image may have been read meanwhile, or based upon. */
  endSession(): void {
    this.#touched = false;
  }

  /** Refuses to write into an image whose map cannot be trusted (V-15). */
  requireSound(): void {
    if (this.refusal !== undefined) throw new BlockError('EIO', this.refusal, { node: this.node });
  }

  /** EIO that names a block which cannot be read (V-15, V-63). */
  unreadable(block: number): BlockError {
    const slot = this.entry(block);
    let what = `its place ${slot} is used by another block too`;
    if (slot >= this.map.length) what = `its place ${slot} is beyond the ${this.map.length} an image of this size has`;
    else if (slot >= this.readable) what = `its place ${slot} is not wholly in the file`;
    return new BlockError('EIO', `Cannot read block ${block} of '${this.file.filename()}': ${what}`, {
      node: this.node,
    });
  }
}
