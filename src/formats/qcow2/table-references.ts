/** What L1 and L2 tables refer to, as counts of whole tables change, and copied bits that follow from counts (Q-REF-2). */
import { viewOf } from '../../bytes/big-endian.ts';
import { BlockError } from '../../core/errors.ts';
import type { Qcow2Image } from './image.ts';
import type { L1Table } from './l1-table.ts';
import { writeMetadata } from './metadata-io.ts';
import type { NextCounts } from './next-counts.ts';
import { MetadataClass } from './overlap.ts';
import { compressedPlace, type HostOffset, hexOffset, isCompressed, isCopied, offsetOf, withCopied } from './tables.ts';

/** Adds a reference to all that the L1 table's chosen entries lead to, L2 tables and data, or takes one away. */
export async function countTables(
  counts: NextCounts,
  l1: L1Table,
  change: 'add' | 'drop',
  isChosen: (index: number) => boolean,
  signal: AbortSignal | undefined,
): Promise<void> {
  requireDistinct(counts.image, l1);
  for (let index = 0; index < l1.entries; index++) {
    const offset = l1.l2Offset(index);
    if (offset === 0 || !isChosen(index)) continue;
    signal?.throwIfAborted();
    await countTable(counts, change, offset, await readTable(counts.image, offset, index));
  }
}

/**
 * Adds references to what one L1 table leads to and takes away those of another, but for what both have at the same place: that
 * is counted as often afterwards, and narrow counts have no room for more between.
 */
export async function exchangeTables(
  counts: NextCounts,
  { to, from }: { readonly to: L1Table; readonly from: L1Table },
  signal: AbortSignal | undefined,
): Promise<void> {
  const { image } = counts;
  requireDistinct(image, to);
  requireDistinct(image, from);
  for (let index = 0; index < Math.max(to.entries, from.entries); index++) {
    const [added, dropped] = [to.l2Offset(index), from.l2Offset(index)];
    if (added === dropped) continue;
    signal?.throwIfAborted();
    const [next, before] = [await readTable(image, added, index), await readTable(image, dropped, index)];
    blankCommon(image, next, before);
    if (added !== 0) await countTable(counts, 'add', added, next);
    if (dropped !== 0) await countTable(counts, 'drop', dropped, before);
  }
}

async function countTable(counts: NextCounts, change: 'add' | 'drop', offset: HostOffset, table: Uint8Array) {
  await counts[change](offset, counts.image.layout.clusterSize);
  for (const range of namedRanges(counts.image, table, offset)) await counts[change](range.offset, range.length);
}

/** Takes entries out of both tables that name the same storage. */
function blankCommon({ layout }: Qcow2Image, a: Uint8Array, b: Uint8Array): void {
  const [first, second] = [viewOf(a), viewOf(b)];
  for (let at = 0; at < a.length; at += layout.entryBytes) {
    const [high, low] = [first.getUint32(at), first.getUint32(at + 4)];
    const [otherHigh, otherLow] = [second.getUint32(at), second.getUint32(at + 4)];
    const isPacked = isCompressed(high) || isCompressed(otherHigh);
    const same = isPacked
      ? withCopied(high, false) === withCopied(otherHigh, false) && low === otherLow
      : offsetOf(high, low) === offsetOf(otherHigh, otherLow);
    if (!same) continue;
    for (const view of [first, second]) {
      view.setUint32(at, 0);
      view.setUint32(at + 4, 0);
    }
  }
}

/** A table that is named twice would be walked as often as the L1 table is long. */
function requireDistinct(image: Qcow2Image, l1: L1Table): void {
  const seen = new Set<HostOffset>();
  for (let index = 0; index < l1.entries; index++) {
    const offset = l1.l2Offset(index);
    if (offset === 0) continue;
    if (seen.has(offset)) throw damaged(image, `L2 table offset ${hexOffset(offset)} is named twice by one L1 table`);
    seen.add(offset);
  }
}

/** The L2 table of an L1 entry as it is in the file; zeroes where there is none. Throws BlockError EIO where there cannot be one. */
async function readTable(image: Qcow2Image, offset: HostOffset, l1Index: number): Promise<Uint8Array> {
  const { clusterSize } = image.layout;
  if (offset % clusterSize !== 0) {
    throw damaged(image, `L2 table offset ${hexOffset(offset)} unaligned (L1 index: ${hexOffset(l1Index)})`);
  }
  const table = new Uint8Array(clusterSize);
  if (offset !== 0) await image.loadMetadata('l2_load', offset, table);
  return table;
}

function damaged({ node }: Qcow2Image, text: string): BlockError {
  return new BlockError('EIO', `The image is corrupt: ${text}`, { node });
}

interface Range {
  readonly offset: HostOffset;
  readonly length: number;
}

/** Host ranges that a table's entries name: neighbours together, compressed clusters each by itself. */
function* namedRanges(image: Qcow2Image, table: Uint8Array, l2Offset: HostOffset): Generator<Range> {
  const { clusterSize, clusterBits, entryBytes } = image.layout;
  const view = viewOf(table);
  /** Bits of an offset inside of a cluster; those of the lowest sector are flags. */
  const inCluster = clusterSize - 512;
  let start = 0;
  let end = 0;
  for (let at = 0; at < table.length; at += entryBytes) {
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    if (isCompressed(high)) {
      yield compressedPlace(high, low, clusterBits);
      continue;
    }
    const offset = offsetOf(high, low);
    if (offset === 0) continue;
    // Clusters are far smaller than what the low word counts.
    if ((low & inCluster) !== 0) {
      const place = `L2 offset: ${hexOffset(l2Offset)}, L2 index: ${hexOffset(at / entryBytes)}`;
      throw damaged(image, `Cluster allocation offset ${hexOffset(offset)} unaligned (${place})`);
    }
    if (offset !== end) {
      if (end > start) yield { offset: start, length: end - start };
      start = offset;
    }
    end = offset + clusterSize;
  }
  if (end > start) yield { offset: start, length: end - start };
}

/**
 * Makes an L1 table fit to be the active one: copied bits are as the counts to be say. L2 tables whose bits are not are
 * replaced by copies, since whoever else has them, or the state that still holds, needs them as they are.
 */
export async function settleCopiedBits(
  counts: NextCounts,
  l1: L1Table,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { image } = counts;
  const { clusterSize } = image.layout;
  for (let index = 0; index < l1.entries; index++) {
    const offset = l1.l2Offset(index);
    if (offset === 0) continue;
    signal?.throwIfAborted();
    const table = await readTable(image, offset, index);
    if (!(await correctBits(counts, table))) {
      l1.set(index, offset, (await counts.get(offset / clusterSize)) === 1);
      continue;
    }
    const place = await counts.take(1);
    await image.raise('l2_alloc_write');
    await image.raise('l2_update');
    await writeMetadata(image, MetadataClass.activeL2, place, table);
    await counts.drop(offset, clusterSize);
    l1.set(index, place, true);
  }
}

/** Whether any bit of the table was not right. */
async function correctBits(counts: NextCounts, table: Uint8Array): Promise<boolean> {
  const { layout, refcounts } = counts.image;
  const { clusterSize, entryBytes, refcountsPerBlock } = layout;
  const { width } = refcounts;
  const view = viewOf(table);
  let changed = false;
  let block: DataView | undefined;
  /** The clusters that the block counts begin here. */
  let first = -refcountsPerBlock;
  for (let at = 0; at < table.length; at += entryBytes) {
    const high = view.getUint32(at);
    const offset = offsetOf(high, view.getUint32(at + 4));
    if (offset === 0 || isCompressed(high)) continue;
    const cluster = offset / clusterSize;
    if (cluster < first || cluster >= first + refcountsPerBlock) {
      const index = refcounts.blockIndex(cluster);
      block = await counts.block(index);
      first = index * refcountsPerBlock;
    }
    const copied = block !== undefined && width.get(block, cluster - first) === 1;
    if (copied === isCopied(high)) continue;
    view.setUint32(at, withCopied(high, copied));
    changed = true;
  }
  return changed;
}
