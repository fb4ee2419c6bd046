/** An image written in one pass: all tables come before the data, whose places follow from which clusters are stored. */
import { alignUp } from '../../bytes/align.ts';
import { setU64, viewOf } from '../../bytes/big-endian.ts';
import type { ImageStream, MeasureContext } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { newHeader } from './create.ts';
import { planCreation, type Qcow2CreateOptions } from './create-options.ts';
import { noExtensions } from './extensions.ts';
import type { Qcow2Header } from './header.ts';
import { L1_ENTRY_BYTES, L1Table } from './l1-table.ts';
import { L1_BYTES_MAX, type Layout, l1EntriesFor, layoutOf, REFCOUNT_TABLE_BYTES_MAX } from './layout.ts';
import { refcountWidth } from './refcount-width.ts';
import { highWord, lowWord } from './tables.ts';
import { encodeHeaderCluster } from './write-header.ts';

/** Options that ask for more than tables and data one behind the other. */
const REFUSED: readonly (keyof Qcow2CreateOptions)[] = ['backing_file', 'data_file', 'encryption', 'encrypt.format'];

/** Which clusters of the disk are stored: a byte each, in pages that are as long as an L2 table reaches. */
type StoredClusters = ReadonlyMap<number, Uint8Array>;

/** First clusters of all parts, in the order of the file. */
interface Places {
  readonly blocks: number;
  readonly blockCount: number;
  readonly tableClusters: number;
  readonly l1: number;
  readonly l2: number;
  readonly data: number;
  readonly end: number;
}

/** Throws BlockError: options that cannot be (Q-CR-2) or cannot be streamed, EFBIG for a disk that is too large. */
export async function stream(context: MeasureContext<Qcow2CreateOptions>): Promise<ImageStream> {
  const plan = planCreation({ ...context.options, size: context.size });
  const refused = REFUSED.find((name) => context.options[name] !== undefined);
  if (refused !== undefined || plan.preallocation !== 'off') {
    throw new BlockError('ENOTSUP', `An image with '${refused ?? 'preallocation'}' cannot be written in one pass`);
  }
  const header = newHeader(plan);
  header.size = plan.size;
  const layout = layoutOf(header);
  header.l1Entries = l1EntriesFor(layout, plan.size);
  if (header.l1Entries * L1_ENTRY_BYTES > L1_BYTES_MAX) throw new BlockError('EFBIG', 'File too large');
  const { stored, count } = await storedClusters(context, layout);
  const places = placesFor(layout, header.l1Entries, stored.size, count);
  header.l1Offset = places.l1 * layout.clusterSize;
  header.refcountTableClusters = places.tableClusters;
  const { clusterSize } = layout;
  const tail = plan.size % clusterSize;
  // The last cluster ends where the disk ends.
  const lastIsCut = tail !== 0 && isStored(stored, layout, Math.floor(plan.size / clusterSize));
  return {
    length: places.end * clusterSize - (lastIsCut ? clusterSize - tail : 0),
    head: () => headOf(header, layout, stored, places),
    ranges: () => rangesOf(stored, layout, plan.size),
  };
}

async function storedClusters(
  { extents }: MeasureContext<Qcow2CreateOptions>,
  layout: Layout,
): Promise<{ stored: StoredClusters; count: number }> {
  const { clusterSize, entryBytes } = layout;
  const perPage = clusterSize / entryBytes;
  const stored = new Map<number, Uint8Array>();
  let count = 0;
  let next = 0;
  for await (const { offset, length, zero } of extents ?? []) {
    if (zero) continue;
    const end = Math.ceil((offset + length) / clusterSize);
    for (next = Math.max(next, Math.floor(offset / clusterSize)); next < end; next++) {
      const index = Math.floor(next / perPage);
      let page = stored.get(index);
      if (page === undefined) {
        page = new Uint8Array(perPage);
        stored.set(index, page);
      }
      page[next % perPage] = 1;
      count++;
    }
  }
  return { stored, count };
}

function isStored(stored: StoredClusters, { clusterSize, entryBytes }: Layout, cluster: number): boolean {
  const perPage = clusterSize / entryBytes;
  return stored.get(Math.floor(cluster / perPage))?.[cluster % perPage] === 1;
}

/** Header, refcount table, refcount blocks, L1 table, L2 tables, data; the first two and a block are where they always are. */
function placesFor(layout: Layout, l1Entries: number, l2Tables: number, dataClusters: number): Places {
  const { clusterSize, refcountsPerBlock } = layout;
  const l1Clusters = Math.ceil((l1Entries * L1_ENTRY_BYTES) / clusterSize);
  let blockCount = 1;
  for (;;) {
    const tableClusters = alignUp(blockCount * 8, clusterSize) / clusterSize;
    const blocks = 1 + tableClusters;
    const l1 = blocks + blockCount;
    const l2 = l1 + l1Clusters;
    const data = l2 + l2Tables;
    const end = data + dataClusters;
    const needed = Math.ceil(end / refcountsPerBlock);
    if (tableClusters * clusterSize > REFCOUNT_TABLE_BYTES_MAX) throw new BlockError('EFBIG', 'File too large');
    if (needed <= blockCount) return { blocks, blockCount, tableClusters, l1, l2, data, end };
    blockCount = needed;
  }
}

/** All before the data, a table at a time. */
function* headOf(header: Qcow2Header, layout: Layout, stored: StoredClusters, places: Places): Generator<Uint8Array> {
  const { clusterSize } = layout;
  yield encodeHeaderCluster({ header, extensions: noExtensions(), backingName: undefined });
  const table = new Uint8Array(places.tableClusters * clusterSize);
  for (let i = 0; i < places.blockCount; i++) setU64(viewOf(table), i * 8, (places.blocks + i) * clusterSize);
  yield table;
  yield* blocksOf(layout, places);
  const l1 = new L1Table(0, new Uint8Array((places.l2 - places.l1) * clusterSize));
  let place = places.l2;
  for (const index of stored.keys()) l1.set(index, place++ * clusterSize, true);
  yield l1.bytes;
  let cluster = places.data;
  for (const page of stored.values()) {
    const entries = new Uint8Array(clusterSize);
    const view = viewOf(entries);
    for (const [index, isHere] of page.entries()) {
      if (isHere === 0) continue;
      const at = index * layout.entryBytes;
      view.setUint32(at, highWord(cluster * clusterSize, true));
      view.setUint32(at + 4, lowWord(cluster * clusterSize));
      if (layout.extended) view.setUint32(at + 12, 0xffffffff);
      cluster++;
    }
    yield entries;
  }
}

/** Every cluster is used once. */
function* blocksOf({ refcountsPerBlock, refcountOrder, clusterSize }: Layout, places: Places): Generator<Uint8Array> {
  const width = refcountWidth(refcountOrder);
  for (let index = 0; index < places.blockCount; index++) {
    const block = new Uint8Array(clusterSize);
    const used = Math.min(refcountsPerBlock, places.end - index * refcountsPerBlock);
    for (let i = 0; i < used; i++) width.set(viewOf(block), i, 1);
    yield block;
  }
}

function* rangesOf(
  stored: StoredClusters,
  { clusterSize, entryBytes }: Layout,
  size: number,
): Generator<{ offset: number; length: number }> {
  const perPage = clusterSize / entryBytes;
  for (const [index, page] of stored) {
    for (let first = page.indexOf(1); first >= 0; ) {
      const found = page.indexOf(0, first);
      const end = found < 0 ? perPage : found;
      const offset = (index * perPage + first) * clusterSize;
      yield { offset, length: Math.min(size, (index * perPage + end) * clusterSize) - offset };
      first = page.indexOf(1, end);
    }
  }
}
