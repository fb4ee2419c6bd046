/** New refcount blocks, and a longer refcount table (Q-REF-5, Q-REF-6). The caller holds the lock of the refcounts. */
import { setU64, viewOf } from '../../bytes/big-endian.ts';
import { BlockError } from '../../core/errors.ts';
import { corruption } from './corruption.ts';
import { findFree } from './free-space.ts';
import { FIELD_AT } from './header.ts';
import { REFCOUNT_TABLE_BYTES_MAX } from './layout.ts';
import { writeHeaderField, writeMetadata } from './metadata-io.ts';
import { MetadataClass } from './overlap.ts';
import { REFCOUNT_ENTRY_BYTES, type Refcounts } from './refcounts.ts';

/**
 * Makes the block of an index, or one that must be there before. Afterwards free clusters are to be searched for again:
 * the new block may be where something else was to be.
 */
export async function createBlock(refcounts: Refcounts, index: number): Promise<void> {
  const { image } = refcounts;
  const { clusterSize, refcountsPerBlock } = image.layout;
  if (index >= refcounts.table.length) return growTable(refcounts, index);
  await image.raise('cluster_alloc');
  const place = await findFree(refcounts, 1);
  if (place === 0) throw await corruption(image, { fatal: true, text: invalidPlace('refcount block') });
  const covering = refcounts.blockIndex(place);
  const coveringBlock = covering === index ? undefined : await refcounts.block(covering);
  // The place is in a range that has no block either: that range's block goes there, counting itself.
  const made = covering !== index && coveringBlock === undefined ? covering : index;
  if (made >= refcounts.table.length) return growTable(refcounts, made);
  const offset = place * clusterSize;
  const bytes = new Uint8Array(clusterSize);
  if (coveringBlock !== undefined) {
    await refcounts.changeLocked(offset, clusterSize, 1);
    await refcounts.writeBack();
  } else refcounts.width.set(viewOf(bytes), place % refcountsPerBlock, 1);
  await image.raise('refblock_alloc_write');
  await writeMetadata(image, MetadataClass.refcountBlock, offset, bytes);
  await image.file.flush();
  await image.raise('refblock_alloc_hookup');
  const entry = new Uint8Array(REFCOUNT_ENTRY_BYTES);
  setU64(viewOf(entry), 0, offset);
  const at = Number(image.header.refcountTableOffset) + made * REFCOUNT_ENTRY_BYTES;
  await writeMetadata(image, MetadataClass.refcountTable, at, entry);
  refcounts.table[made] = offset;
  refcounts.usedBound = Math.max(refcounts.usedBound, place + 1);
  refcounts.cache.put(offset, bytes).dirty = false;
  image.metadata.add(MetadataClass.refcountBlock, offset, clusterSize);
}

/** What a message says of storage that would be at the header's place. */
export function invalidPlace(what: 'L2 table' | 'refcount block' | 'compressed cluster'): string {
  return `Preventing invalid allocation of ${what} at offset 0`;
}

interface Growth {
  /** First cluster of the new blocks, which begin a block's range. */
  readonly first: number;
  readonly blocks: number;
  readonly tableClusters: number;
}

/** Blocks that count themselves and a table behind them, in the range that no block covers. */
function planGrowth(refcounts: Refcounts, index: number): Growth {
  const { clusterSize, refcountsPerBlock } = refcounts.image.layout;
  let used = refcounts.table.length;
  while (used > 0 && refcounts.table[used - 1] === 0) used--;
  const perTableCluster = clusterSize / REFCOUNT_ENTRY_BYTES;
  let blocks = 1;
  for (;;) {
    const entries = Math.max(index + 1, used + blocks);
    const tableClusters = Math.ceil((entries + Math.ceil(entries / 2)) / perTableCluster);
    const needed = Math.ceil((blocks + tableClusters) / refcountsPerBlock);
    if (needed <= blocks) return { first: used * refcountsPerBlock, blocks, tableClusters };
    blocks = needed;
  }
}

/** Writes new blocks and a longer table, switches to it, and frees the old one (Q-REF-6, Q-ORD-7). EFBIG past 8 MiB. */
async function growTable(refcounts: Refcounts, index: number): Promise<void> {
  const { image, width } = refcounts;
  const { clusterSize, refcountsPerBlock } = image.layout;
  await image.raise('reftable_grow');
  const { first, blocks, tableClusters } = planGrowth(refcounts, index);
  if (tableClusters * clusterSize > REFCOUNT_TABLE_BYTES_MAX) {
    throw new BlockError('EFBIG', 'File too large', { node: image.node });
  }
  const table = new Float64Array((tableClusters * clusterSize) / REFCOUNT_ENTRY_BYTES);
  table.set(refcounts.table);
  const start = first * clusterSize;
  const content = new Uint8Array((blocks + tableClusters) * clusterSize);
  for (let i = 0; i < blocks; i++) table[refcounts.blockIndex(first) + i] = start + i * clusterSize;
  const counts = viewOf(content);
  for (let i = 0; i < blocks + tableClusters; i++) {
    const block = viewOf(content.subarray(Math.floor(i / refcountsPerBlock) * clusterSize));
    width.set(block, i % refcountsPerBlock, 1);
  }
  const tableAt = blocks * clusterSize;
  for (const [i, offset] of table.entries()) setU64(counts, tableAt + i * REFCOUNT_ENTRY_BYTES, offset);
  await image.raise('refblock_alloc_write_blocks');
  await writeMetadata(image, MetadataClass.refcountBlock, start, content.subarray(0, tableAt));
  await image.file.flush();
  await image.raise('refblock_alloc_write_table');
  await writeMetadata(image, MetadataClass.refcountTable, start + tableAt, content.subarray(tableAt));
  await image.file.flush();
  await switchTable(refcounts, start + tableAt, tableClusters);
  refcounts.useTable(table);
  for (let i = 0; i < blocks; i++) {
    image.metadata.add(MetadataClass.refcountBlock, start + i * clusterSize, clusterSize);
  }
}

/** Points the header to another table, durably, then frees the one before. */
export async function switchTable(refcounts: Refcounts, offset: number, clusters: number): Promise<void> {
  const { image } = refcounts;
  const { header, metadata, layout } = image;
  const before = {
    offset: Number(header.refcountTableOffset),
    bytes: header.refcountTableClusters * layout.clusterSize,
  };
  await image.raise('refblock_alloc_switch_table');
  const field = new Uint8Array(12);
  setU64(viewOf(field), 0, offset);
  viewOf(field).setUint32(8, clusters);
  await writeHeaderField(image, FIELD_AT.refcountTable, field, () => {
    header.refcountTableOffset = offset;
    header.refcountTableClusters = clusters;
  });
  metadata.remove(MetadataClass.refcountTable, before.offset, before.bytes);
  metadata.add(MetadataClass.refcountTable, offset, clusters * layout.clusterSize);
  image.releases.add(before.offset, before.bytes, 'other');
}
