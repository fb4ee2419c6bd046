/**
 * An image written front to back: all tables come before the data, whose places follow from which clusters are stored. What
 * is compressed waits in a spool, since its places are known when all of it is.
 */
import { alignUp } from '../../bytes/align.ts';
import { setU64, viewOf } from '../../bytes/big-endian.ts';
import type { ImageStream, StreamContext, StreamSpool } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { newHeader } from './create.ts';
import { type CreationPlan, planCreation, type Qcow2CreateOptions } from './create-options.ts';
import { newEncryption } from './encryption-new.ts';
import { type Extensions, noExtensions } from './extensions.ts';
import type { Qcow2Header } from './header.ts';
import { L1_ENTRY_BYTES, L1Table } from './l1-table.ts';
import { L1_BYTES_MAX, type Layout, l1EntriesFor, layoutOf, REFCOUNT_TABLE_BYTES_MAX } from './layout.ts';
import { checkBackingName } from './rebase.ts';
import { refcountWidth } from './refcount-width.ts';
import {
  clustersToStore,
  countOf,
  plainRanges,
  Stored,
  type StreamPages,
  type StreamRules,
} from './stream-clusters.ts';
import { compressAll, Packing, packedCounts } from './stream-packing.ts';
import { compressedEntry, compressedLimit, highWord, lowWord } from './tables.ts';
import { encodeHeaderCluster } from './write-header.ts';

const SECTOR = 512;

/** First clusters of all parts, in the order of the file. */
interface Places {
  readonly blocks: number;
  readonly blockCount: number;
  readonly tableClusters: number;
  /** The header of LUKS, with all key material. */
  readonly luks: number;
  readonly l1: number;
  readonly l2: number;
  readonly packed: number;
  readonly data: number;
  readonly end: number;
}

/** Clusters of the parts whose lengths do not depend on others. */
interface Lengths {
  readonly luks: number;
  readonly l1: number;
  readonly l2: number;
  readonly packed: number;
  readonly data: number;
}

interface Plan {
  readonly layout: Layout;
  readonly pages: StreamPages;
  readonly places: Places;
  /** Cluster 0. */
  readonly first: Uint8Array;
  /** LUKS; empty: the image is not encrypted. */
  readonly luks: Uint8Array;
  readonly spool: StreamSpool;
}

/** Throws BlockError: options that cannot be (Q-CR-2) or keep an image from being streamed, EFBIG for a disk that is too large. */
export async function stream(context: StreamContext<Qcow2CreateOptions>): Promise<ImageStream> {
  const { options, compress, host, spool } = context;
  const plan = planCreation({ ...options, size: context.size });
  refuseImpossible(plan);
  const header = newHeader(plan);
  header.size = plan.size;
  const layout = layoutOf(header);
  header.l1Entries = l1EntriesFor(layout, plan.size);
  if (header.l1Entries * L1_ENTRY_BYTES > L1_BYTES_MAX) throw new BlockError('EFBIG', 'File too large');
  const { clusterSize } = layout;
  const encryption = plan.encryption && (await newEncryption(host, plan.encryption, context.signal));
  const luks = encryption?.bytes ?? new Uint8Array(0);
  const isOver = options.backing_file !== undefined;
  const rules = { isOver, hasZeroes: plan.version >= 3, whole: plan.preallocation !== 'off' };
  const { pages, packedBytes } = await contentOf(context, header, layout, rules);
  const data = countOf(pages, Stored.plain);
  const places = placesFor(layout, {
    luks: clustersFor(luks.length, clusterSize),
    l1: clustersFor(header.l1Entries * L1_ENTRY_BYTES, clusterSize),
    l2: pages.size,
    packed: clustersFor(packedBytes, clusterSize),
    data,
  });
  if (compress && places.data * clusterSize > compressedLimit(layout.clusterBits)) {
    throw new BlockError('EFBIG', 'File too large');
  }
  header.l1Offset = places.l1 * clusterSize;
  header.refcountTableClusters = places.tableClusters;
  const extensions = extensionsOf(plan, { offset: places.luks * clusterSize, length: luks.length });
  const first = encodeHeaderCluster({ header, extensions, backingName: options.backing_file });
  const { cipher } = encryption ?? {};
  const length =
    data > 0
      ? places.end * clusterSize - cutBytes(pages, layout, plan.size)
      : places.packed * clusterSize + alignUp(packedBytes, SECTOR);
  return {
    length,
    head: () => headOf({ layout, pages, places, first, luks, spool }, data > 0 ? places.data * clusterSize : length),
    ranges: () => rangesOf(pages, layout, plan.size),
    ...(cipher && { encode: (bytes, offset) => cipher.encrypt(bytes, offset, offset) }),
  };
}

function refuseImpossible({ options, preallocation }: CreationPlan): void {
  const refuse = (text: string) => new BlockError('ENOTSUP', `An image with ${text} cannot be written in one pass`);
  if (options.data_file !== undefined) throw refuse("'data_file', which is a second file,");
  if (options.backing_file === undefined || preallocation === 'off') return;
  throw refuse("'preallocation', whose clusters would hide those of the image below,");
}

/** Which clusters are stored, and how; what is compressed is in the spool then. */
async function contentOf(
  context: StreamContext<Qcow2CreateOptions>,
  header: Qcow2Header,
  layout: Layout,
  rules: StreamRules,
): Promise<{ readonly pages: StreamPages; readonly packedBytes: number }> {
  const pages = await clustersToStore(context, layout, rules);
  const packedBytes = context.compress ? await compressAll({ context, header, layout, rules }, pages) : 0;
  return { pages, packedBytes };
}

function extensionsOf({ options }: CreationPlan, encryption: { offset: number; length: number }): Extensions {
  const { backing_file: backing, backing_fmt: format = '' } = options;
  if (backing !== undefined) checkBackingName(backing);
  return {
    ...noExtensions(),
    backingFormat: format === '' ? undefined : format,
    encryption: encryption.length === 0 ? undefined : encryption,
  };
}

function clustersFor(bytes: number, clusterSize: number): number {
  return Math.ceil(bytes / clusterSize);
}

/** Header, refcount table, refcount blocks, LUKS, L1 table, L2 tables, compressed data, others; the first three are where they always are. */
function placesFor({ clusterSize, refcountsPerBlock }: Layout, lengths: Lengths): Places {
  let blockCount = 1;
  for (;;) {
    const tableClusters = clustersFor(blockCount * 8, clusterSize);
    const blocks = 1 + tableClusters;
    const luks = blocks + blockCount;
    const l1 = luks + lengths.luks;
    const l2 = l1 + lengths.l1;
    const packed = l2 + lengths.l2;
    const data = packed + lengths.packed;
    const end = data + lengths.data;
    const needed = Math.ceil(end / refcountsPerBlock);
    if (tableClusters * clusterSize > REFCOUNT_TABLE_BYTES_MAX) throw new BlockError('EFBIG', 'File too large');
    if (needed <= blockCount) return { blocks, blockCount, tableClusters, luks, l1, l2, packed, data, end };
    blockCount = needed;
  }
}

/** The last cluster ends where the disk ends. */
function cutBytes(pages: StreamPages, { clusterSize, entryBytes }: Layout, size: number): number {
  const tail = size % clusterSize;
  if (tail === 0) return 0;
  const last = Math.floor(size / clusterSize);
  const perPage = clusterSize / entryBytes;
  const kind = pages.get(Math.floor(last / perPage))?.kinds[last % perPage];
  return kind === Stored.plain ? clusterSize - tail : 0;
}

function* rangesOf(pages: StreamPages, layout: Layout, size: number): ReturnType<typeof plainRanges> {
  for (const { offset, length } of plainRanges(pages, layout)) {
    yield { offset, length: Math.min(length, size - offset) };
  }
}

/** All before the plain data, a table at a time, up to the byte `end`. */
async function* headOf(plan: Plan, end: number): AsyncGenerator<Uint8Array> {
  const { layout, places, pages, spool } = plan;
  const { clusterSize } = layout;
  yield plan.first;
  const table = new Uint8Array(places.tableClusters * clusterSize);
  for (let i = 0; i < places.blockCount; i++) setU64(viewOf(table), i * 8, (places.blocks + i) * clusterSize);
  yield table;
  yield* blocksOf(plan);
  yield plan.luks;
  yield new Uint8Array((places.l1 - places.luks) * clusterSize - plan.luks.length);
  const l1 = new L1Table(0, new Uint8Array((places.l2 - places.l1) * clusterSize));
  let place = places.l2;
  for (const index of pages.keys()) l1.set(index, place++ * clusterSize, true);
  yield l1.bytes;
  yield* tablesOf(plan);
  yield* spool.pieces();
  yield new Uint8Array(end - places.packed * clusterSize - spool.length);
}

function* tablesOf({ layout, places, pages }: Plan): Generator<Uint8Array> {
  const { clusterSize, clusterBits, entryBytes, extended } = layout;
  const packing = new Packing(layout);
  let cluster = places.data;
  for (const { kinds, lengths } of pages.values()) {
    const entries = new Uint8Array(clusterSize);
    const view = viewOf(entries);
    for (const [index, kind] of kinds.entries()) {
      const at = index * entryBytes;
      if (kind === Stored.plain) {
        view.setUint32(at, highWord(cluster * clusterSize, true));
        view.setUint32(at + 4, lowWord(cluster * clusterSize));
        if (extended) view.setUint32(at + 12, 0xffffffff);
        cluster++;
      } else if (kind === Stored.compressed) {
        const length = lengths?.[index] ?? 0;
        const offset = places.packed * clusterSize + packing.place(length);
        const { high, low } = compressedEntry({ offset, length }, clusterBits);
        view.setUint32(at, high);
        view.setUint32(at + 4, low);
      } else if (kind === Stored.zero) {
        if (extended) view.setUint32(at + 8, 0xffffffff);
        else view.setUint32(at + 4, lowWord(0, true));
      }
    }
    yield entries;
  }
}

/** Every cluster is used once, but for those with compressed data. */
function* blocksOf({ layout, places, pages }: Plan): Generator<Uint8Array> {
  const { refcountsPerBlock, refcountOrder, clusterSize } = layout;
  const width = refcountWidth(refcountOrder);
  const packed = packedCounts(pages, layout);
  for (let index = 0; index < places.blockCount; index++) {
    const block = new Uint8Array(clusterSize);
    const view = viewOf(block);
    const first = index * refcountsPerBlock;
    const used = Math.min(refcountsPerBlock, places.end - first);
    for (let i = 0; i < used; i++) {
      const isPacked = first + i >= places.packed && first + i < places.data;
      const count: number = isPacked ? (packed.next().value ?? 0) : 1;
      width.set(view, i, count);
    }
    yield block;
  }
}
