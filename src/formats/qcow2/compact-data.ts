/** Moving guest data into holes, for a compaction: each L2 table is walked once, whoever uses it. The caller is alone. */
import { alignDown, alignUp } from '../../bytes/align.ts';
import { viewOf } from '../../bytes/big-endian.ts';
import type { CompactWatch } from './compact.ts';
import { CompressedPacker } from './compact-compressed.ts';
import { type Copy, copyBytes, giveUp, type Holes, type Originals } from './compact-holes.ts';
import { type L2Use, l2Tables } from './compact-tables.ts';
import type { Qcow2Image } from './image.ts';
import { writeMetadata } from './metadata-io.ts';
import { MetadataClass } from './overlap.ts';
import {
  type CompressedPlace,
  clusterKind,
  compressedEntry,
  compressedPlace,
  type HostOffset,
  highWord,
  isCompressed,
  isCopied,
  Kind,
  lowWord,
  offsetOf,
} from './tables.ts';

/** Bytes that are copied, and entries that change, between two write-backs. */
const BATCH_BYTES = 64 << 20;
const BATCH_ENTRIES = 16384;

/** An entry of an L2 table that is to name another place. */
interface Redirect {
  /** Byte of the entry in its table. */
  readonly at: number;
  readonly high: number;
  readonly low: number;
  /** What it named before, and how often. */
  readonly from: HostOffset;
  readonly length: number;
  readonly uses: number;
}

/** A cluster that several entries name, and that is moved already. */
interface Shared {
  readonly to: HostOffset;
  /** References that have not been redirected yet. */
  left: number;
}

interface Table {
  readonly offset: HostOffset;
  readonly use: L2Use;
  readonly redirects: Redirect[];
}

/** Moves all clusters from the holes' limit on, as long as there are holes. Resolves with how many were. */
export async function moveData(image: Qcow2Image, holes: Holes, watch: CompactWatch): Promise<number> {
  if (image.layout.hasDataFile) return 0;
  const mover = new DataMover(image, holes, watch);
  for (const [offset, use] of await l2Tables(image)) await mover.walk(offset, use);
  await mover.carryOut();
  watch.signal?.throwIfAborted();
  return mover.moved;
}

class DataMover {
  moved = 0;
  readonly #image: Qcow2Image;
  readonly #holes: Holes;
  readonly #watch: CompactWatch;
  readonly #packer: CompressedPacker;
  readonly #shared = new Map<HostOffset, Shared>();
  /** Of the batch. */
  #copies: Copy[] = [];
  #packed: Copy[] = [];
  #bytes = 0;
  /** Counts that copies were given. */
  #counted: { readonly offset: HostOffset; readonly length: number; readonly uses: number }[] = [];
  #tables: Table[] = [];
  #entries = 0;

  constructor(image: Qcow2Image, holes: Holes, watch: CompactWatch) {
    this.#image = image;
    this.#holes = holes;
    this.#watch = watch;
    this.#packer = new CompressedPacker(image, holes);
  }

  /** No new moves; those begun are finished, since a copy has the counts of all references. */
  get #stopping(): boolean {
    return this.#watch.signal?.aborted === true;
  }

  async walk(offset: HostOffset, use: L2Use): Promise<void> {
    const { layout, file } = this.#image;
    if (this.#stopping && this.#shared.size === 0) return;
    const bytes = new Uint8Array(layout.clusterSize);
    await file.read(offset, bytes);
    const view = viewOf(bytes);
    let table = this.#newTable(offset, use);
    for (let at = 0; at < bytes.length; at += layout.entryBytes) {
      const high = view.getUint32(at);
      const low = view.getUint32(at + 4);
      const redirect = isCompressed(high)
        ? await this.#moveCompressed(high, low, use.uses)
        : await this.#moveCluster(high, low, use.uses);
      if (redirect === undefined) continue;
      table.redirects.push({ at, ...redirect });
      this.#entries++;
      if (this.#bytes < BATCH_BYTES && this.#entries < BATCH_ENTRIES) continue;
      await this.carryOut();
      table = this.#newTable(offset, use);
    }
  }

  #newTable(offset: HostOffset, use: L2Use): Table {
    const table = { offset, use, redirects: [] };
    this.#tables.push(table);
    return table;
  }

  async #moveCluster(high: number, low: number, uses: number): Promise<Omit<Redirect, 'at'> | undefined> {
    const { clusterSize } = this.#image.layout;
    const kind = clusterKind(high, low, false);
    const from = offsetOf(high, low);
    const isStored = kind === Kind.normal || kind === Kind.zeroAllocated;
    if (!isStored || from < this.#holes.limit * clusterSize) return undefined;
    const to = await this.#copyOf(from, uses);
    if (to === undefined) return undefined;
    const zero = kind === Kind.zeroAllocated;
    return { high: highWord(to, isCopied(high)), low: lowWord(to, zero), from, length: clusterSize, uses };
  }

  /** Where the cluster is from now on; undefined: where it was. */
  async #copyOf(from: HostOffset, uses: number): Promise<HostOffset | undefined> {
    const { refcounts, layout } = this.#image;
    const { clusterSize } = layout;
    const shared = this.#shared.get(from);
    if (shared !== undefined) {
      shared.left -= uses;
      if (shared.left <= 0) this.#shared.delete(from);
      return shared.to;
    }
    if (this.#stopping) return undefined;
    const total = await refcounts.get(from / clusterSize);
    const hole = await this.#holes.next();
    if (hole < 0) return undefined;
    const to = hole * clusterSize;
    await this.#count(to, clusterSize, total);
    this.#copies.push({ from, to, length: clusterSize });
    this.#bytes += clusterSize;
    if (total > uses) this.#shared.set(from, { to, left: total - uses });
    return to;
  }

  async #moveCompressed(high: number, low: number, uses: number): Promise<Omit<Redirect, 'at'> | undefined> {
    const { clusterBits, clusterSize } = this.#image.layout;
    const { offset: from, length } = compressedPlace(high, low, clusterBits);
    const isBehind = from + length > this.#holes.limit * clusterSize;
    if (!isBehind || this.#stopping) return undefined;
    const needed = await this.#lengthOf({ offset: from, length });
    if (needed === undefined) return undefined;
    const place = await this.#packer.place(from, needed, uses);
    if (place === undefined) return undefined;
    await this.#count(place.to, needed, uses);
    if (place.isNew) this.#packed.push({ from, to: place.to, length: needed });
    this.#bytes += needed;
    return { ...compressedEntry({ offset: place.to, length: needed }, clusterBits), from, length, uses };
  }

  /** Bytes to keep of what is stored: what is longer than a cluster is slack as a rule. Undefined: it cannot be told. */
  async #lengthOf(place: CompressedPlace): Promise<number | undefined> {
    const { clusterSize } = this.#image.layout;
    if (place.length <= clusterSize) return place.length;
    const kept = { offset: place.offset, length: clusterSize };
    const isGood = await this.#image.decompressed.get(kept).then(
      () => true,
      () => false,
    );
    return isGood ? clusterSize : undefined;
  }

  async #count(offset: HostOffset, length: number, uses: number): Promise<void> {
    await this.#image.refcounts.change(offset, length, uses);
    this.#counted.push({ offset, length, uses });
  }

  /** Copies what the batch moves, and lets the entries name the copies; durable. */
  async carryOut(): Promise<void> {
    const image = this.#image;
    const tables = this.#tables.filter(({ redirects }) => redirects.length > 0);
    const [copies, packed, counted] = [this.#copies, this.#packed, this.#counted];
    this.#copies = [];
    this.#packed = [];
    this.#counted = [];
    this.#tables = [];
    this.#bytes = 0;
    this.#entries = 0;
    try {
      // Where something is stored is part of how it is encrypted.
      await copyBytes(image, copies, image.cipher?.moved);
      await copyBytes(image, packed);
      await image.refcounts.writeBack();
      await image.file.flush();
    } catch (error) {
      for (const { offset, length, uses } of counted)
        await image.refcounts.change(offset, length, -uses).catch(() => {});
      throw error;
    }
    for (const table of tables) await redirect(image, table);
    await giveUp(
      image,
      tables.flatMap(({ redirects }) => redirects.map((each) => originals(image, each))),
    );
    this.moved += copies.length + packed.length;
    this.#watch.step(copies.length + packed.length);
  }
}

/** Changes the entries of a table: by way of the cache where requests know the table, else at once in the file. */
async function redirect(image: Qcow2Image, { offset, use, redirects }: Table): Promise<void> {
  if (use.isActive) {
    for (const each of redirects) {
      const within = each.at % image.l2.entryBytes;
      const slice = await image.l2.get(offset + each.at - within);
      slice.view.setUint32(within, each.high);
      slice.view.setUint32(within + 4, each.low);
      slice.dirty = true;
    }
    return;
  }
  const bytes = new Uint8Array(image.layout.clusterSize);
  await image.file.read(offset, bytes);
  const view = viewOf(bytes);
  for (const { at, high, low } of redirects) {
    view.setUint32(at, high);
    view.setUint32(at + 4, low);
  }
  await writeMetadata(image, MetadataClass.inactiveL2, offset, bytes);
}

function originals({ layout }: Qcow2Image, { from, length, uses }: Redirect): Originals {
  const offset = alignDown(from, layout.clusterSize);
  return { offset, length: alignUp(from + length, layout.clusterSize) - offset, uses };
}
