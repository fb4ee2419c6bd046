/** An opened image: what its requests, its write-back and its maintenance share. */
import type { Child } from '../../core/driver.ts';
import { type BlockError, withErrno } from '../../core/errors.ts';
import { Gate, Mutex } from '../../core/gate.ts';
import type { Host } from '../../core/host.ts';
import type { LuksVolume } from '../../crypto/luks.ts';
import { Allocations } from './allocations.ts';
import { type BitmapState, noBitmaps } from './bitmaps/state.ts';
import { MetadataCache } from './cache.ts';
import { DecompressedClusters } from './compressed.ts';
import type { Extensions } from './extensions.ts';
import { Incompatible, type Qcow2Header } from './header.ts';
import type { ImageCipher } from './image-cipher.ts';
import { L1_ENTRY_BYTES, L1Table } from './l1-table.ts';
import { type Layout, layoutOf } from './layout.ts';
import type { CacheSizes, Settings } from './options.ts';
import { MetadataClass, MetadataMap } from './overlap.ts';
import { Refcounts } from './refcounts.ts';
import { Releases } from './releases.ts';
import { type Snapshot, snapshotTableBytes } from './snapshot-table.ts';

export interface ImageParts {
  readonly file: Child;
  readonly host: Host;
  readonly node: string;
  readonly header: Qcow2Header;
  readonly extensions: Extensions;
  readonly backingName: string | undefined;
  readonly settings: Settings;
  readonly writable: boolean;
  child(name: string): Child | undefined;
  event(name: string): Promise<void> | undefined;
}

export class Qcow2Image {
  readonly file: Child;
  readonly host: Host;
  readonly node: string;
  readonly header: Qcow2Header;
  extensions: Extensions;
  /** Follows the header; other than at first after an amendment. */
  layout: Layout;
  /** As stored; undefined: none. */
  backingName: string | undefined;
  settings: Settings;
  /** May be written, as it is opened now. */
  writable: boolean;
  l1 = new L1Table(0, new Uint8Array(0));
  l2: MetadataCache;
  readonly refcounts: Refcounts;
  readonly decompressed: DecompressedClusters;
  snapshots: readonly Snapshot[] = [];
  /** What is shown instead of the disk (Q-SNAP-7). */
  shown: Snapshot | undefined;
  /** The header of LUKS, of an image that is encrypted so. */
  luks: LuksVolume | undefined;
  /** Id of the secret that it was opened with. */
  keySecret: string | undefined;
  /** Encrypts and decrypts guest data; undefined: they are plain, or not to be read. */
  cipher: ImageCipher | undefined;
  readonly bitmaps: BitmapState = noBitmaps();
  /** What guest data wait for before they change; undefined: nothing (Q-BMP-4). */
  beforeChange: (() => Promise<void>) | undefined;
  metadata: MetadataMap;
  /** Writes that are giving guest clusters storage. */
  readonly allocations = new Allocations();
  readonly releases = new Releases();
  readonly gate = new Gate();
  /** Held by whoever changes the L1 table or gives it new L2 tables. */
  readonly l1Lock = new Mutex();
  /** Held by whoever writes to the header. */
  readonly headerLock = new Mutex();
  /** Held by whoever writes metadata back. */
  readonly writeBackLock = new Mutex();
  /** Held by whoever gives compressed clusters storage: in the order in which they were written. */
  readonly packLock = new Mutex();
  /** Memory for compressed clusters that is not in use. */
  readonly packBuffers: Uint8Array[] = [];
  /** Held by whoever lowers counts of what is released. */
  readonly settleLock = new Mutex();
  queuedFlush: Promise<void> | undefined;
  /** Why the image cannot be used any more (Q-CORR-1). */
  broken: BlockError | undefined;
  toldCorruption = false;
  /** The dirty bit that makes lazy refcounts safe is in the file. */
  dirtyBitSet = false;
  /** Whether much is allocated that the file has no storage for (Q-READ-4); undefined: not looked at yet. */
  preallocated: boolean | undefined;
  readonly child: (name: string) => Child | undefined;
  readonly #event: (name: string) => Promise<void> | undefined;

  constructor(parts: ImageParts) {
    this.file = parts.file;
    this.host = parts.host;
    this.node = parts.node;
    this.header = parts.header;
    this.extensions = parts.extensions;
    this.backingName = parts.backingName;
    this.settings = parts.settings;
    this.writable = parts.writable;
    this.child = parts.child;
    this.#event = parts.event;
    this.layout = layoutOf(parts.header);
    this.metadata = new MetadataMap(this.layout.clusterSize);
    const { caches } = parts.settings;
    this.l2 = this.#newL2Cache(caches);
    this.refcounts = new Refcounts(this, caches.refcountEntries);
    this.decompressed = new DecompressedClusters(this);
  }

  #newL2Cache({ l2EntryBytes, l2Entries }: CacheSizes): MetadataCache {
    return new MetadataCache(l2EntryBytes, l2Entries, {
      load: (offset, bytes) => this.loadMetadata('l2_load', offset, bytes),
      writeBack: () => this.writeMetadataBack(),
    });
  }

  /** Takes other settings; nothing cached is dirty. */
  useSettings(settings: Settings): void {
    const { caches } = settings;
    if (caches.l2EntryBytes === this.l2.entryBytes) this.l2.maxEntries = caches.l2Entries;
    else this.l2 = this.#newL2Cache(caches);
    this.refcounts.cache.maxEntries = caches.refcountEntries;
    this.settings = settings;
  }

  /** Set by write-back.ts: writes cached metadata back in order, while requests are under way. */
  writeMetadataBack: () => Promise<void> = async () => {};

  /** Bytes of the disk. */
  get length(): number {
    return Number(this.header.size);
  }

  /** Where guest data are (Q-DATA-1). */
  get data(): Child {
    return this.layout.hasDataFile ? (this.child('data-file') ?? this.file) : this.file;
  }

  get backing(): Child | undefined {
    return this.child('backing');
  }

  /** Whether what is not allocated may be anything else than zeroes, or may become so (Q-DISC-2). */
  get hasBacking(): boolean {
    return this.child('backing') !== undefined || this.backingName !== undefined;
  }

  /** Raises a debug event below (Q-EV-1); a promise is to be waited for. */
  raise(event: string): Promise<void> | undefined {
    return this.#event(event);
  }

  /** Reads metadata. What lies in a cluster that the file does not have at all cannot be right (Q-HDR-1): EIO. */
  async loadMetadata(event: string | undefined, offset: number, bytes: Uint8Array): Promise<void> {
    if (event !== undefined) await this.#event(event);
    const cluster = offset - (offset % this.layout.clusterSize);
    if (cluster >= this.file.length()) {
      throw withErrno('EIO', `Metadata at host offset ${offset} lie beyond the end of the image file`, {
        node: this.node,
      });
    }
    if (!this.file.tryReadNow(offset, bytes)) await this.file.read(offset, bytes);
  }

  /** Throws when the image cannot be used any more. */
  requireUsable(): void {
    if (this.broken !== undefined) throw this.broken;
  }

  /** Classes of metadata, save one, that a write would hit (Q-CORR-2); 0: none that is checked. */
  overlapIn(offset: number, length: number, ownClass: number): number {
    return this.metadata.classesIn(offset, length, this.settings.overlapMask & ~ownClass);
  }

  get isMarkedCorrupt(): boolean {
    return (this.header.incompatible & Incompatible.corrupt) !== 0n;
  }

  /** Notes all metadata whose places are known without reading more: all classes save the inactive L2 tables. */
  indexMetadata(): void {
    const { metadata, layout, l1, refcounts } = this;
    const { clusterSize } = layout;
    metadata.add(MetadataClass.header, 0, clusterSize);
    metadata.add(MetadataClass.activeL1, l1.offset, l1.bytes.length);
    for (let index = 0; index < l1.entries; index++) {
      const offset = l1.l2Offset(index);
      if (offset !== 0) metadata.add(MetadataClass.activeL2, offset, clusterSize);
    }
    refcounts.indexMetadata();
    const { encryption, bitmaps } = this.extensions;
    // Lengths that nothing has checked count as far as the file goes.
    const add = (metadataClass: number, offset: number, length: number) =>
      metadata.add(metadataClass, offset, Math.min(length, this.file.length() - offset));
    if (encryption !== undefined) {
      add(MetadataClass.encryptionHeader, Number(encryption.offset), Number(encryption.length));
    }
    if (bitmaps !== undefined) {
      add(MetadataClass.bitmapDirectory, Number(bitmaps.directoryOffset), Number(bitmaps.directorySize));
    }
    for (const ranges of this.bitmaps.places.values()) {
      for (const { offset, length } of ranges) metadata.add(MetadataClass.bitmapData, offset, length);
    }
    add(MetadataClass.snapshotTable, Number(this.header.snapshotTableOffset), snapshotTableBytes(this.snapshots));
    for (const { l1Offset, l1Entries } of this.snapshots) {
      add(MetadataClass.inactiveL1, Number(l1Offset), l1Entries * L1_ENTRY_BYTES);
    }
  }
}
