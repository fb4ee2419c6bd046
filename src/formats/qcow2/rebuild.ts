/** Building the refcount structure anew from counted references, clear of every old one (Q-CHK-4). */
import { alignUp } from '../../bytes/align.ts';
import { setU64, viewOf } from '../../bytes/big-endian.ts';
import { BlockError } from '../../core/errors.ts';
import { clustersOf } from './check-walk.ts';
import { FIELD_AT } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { renewMetadata } from './inactive-tables.ts';
import { REFCOUNT_TABLE_BYTES_MAX } from './layout.ts';
import type { ReferenceCounts } from './reference-counts.ts';

/**
 * Writes blocks and table behind the end of the file, or from cluster `from` on if that is later, then switches the header to
 * them. `counted`: references of all clusters of the file, range by range in order. Throws BlockError EFBIG where they do not
 * fit, EINVAL where a count does not.
 */
export async function rebuildRefcounts(
  image: Qcow2Image,
  counted: AsyncIterable<ReferenceCounts>,
  from: number,
): Promise<void> {
  const { layout, refcounts, file, header } = image;
  const { clusterSize, refcountsPerBlock } = layout;
  const first = Math.max(clustersOf(image), from);
  const { blocks, tableClusters } = sizes(first, clusterSize, refcountsPerBlock);
  if (tableClusters * clusterSize > REFCOUNT_TABLE_BYTES_MAX) throw new BlockError('EFBIG', 'File too large');
  await writeBlocks(image, first, first + blocks + tableClusters, counted);
  const table = new Uint8Array(tableClusters * clusterSize);
  for (let index = 0; index < blocks; index++) setU64(viewOf(table), index * 8, (first + index) * clusterSize);
  const tableAt = (first + blocks) * clusterSize;
  await file.write(tableAt, table);
  await file.flush();
  const field = new Uint8Array(12);
  setU64(viewOf(field), 0, tableAt);
  viewOf(field).setUint32(8, tableClusters);
  await file.write(FIELD_AT.refcountTable, field);
  await file.flush();
  header.refcountTableOffset = tableAt;
  header.refcountTableClusters = tableClusters;
  refcounts.cache.forgetAll();
  refcounts.hint = 0;
  await refcounts.load();
  await renewMetadata(image);
}

/** At `first` and on. What lies from there to `end` is counted once each: the blocks themselves and the table. */
async function writeBlocks(
  image: Qcow2Image,
  first: number,
  end: number,
  counted: AsyncIterable<ReferenceCounts>,
): Promise<void> {
  const { layout, refcounts, file, node } = image;
  const { clusterSize, refcountsPerBlock, refcountBits } = layout;
  const block = new Uint8Array(clusterSize);
  const view = viewOf(block);
  const writeBlock = async (index: number) => {
    await file.write((first + index) * clusterSize, block);
    block.fill(0);
  };
  let cluster = 0;
  const put = async (to: number, countOf: (cluster: number) => number) => {
    for (; cluster < to; cluster++) {
      if (cluster > 0 && cluster % refcountsPerBlock === 0) await writeBlock(cluster / refcountsPerBlock - 1);
      const count = countOf(cluster);
      if (count > refcounts.width.max) {
        throw new BlockError('EINVAL', `refcount width of ${refcountBits} bits cannot hold another reference`, {
          node,
        });
      }
      if (count > 0) refcounts.width.set(view, cluster % refcountsPerBlock, count);
    }
  };
  for await (const references of counted) await put(references.to, (each) => references.get(each));
  await put(first, () => 0);
  await put(end, () => 1);
  await writeBlock(Math.floor((end - 1) / refcountsPerBlock));
}

/** Blocks for all clusters, their own and the table's too. */
function sizes(used: number, clusterSize: number, perBlock: number): { blocks: number; tableClusters: number } {
  let blocks = 1;
  for (;;) {
    const tableClusters = alignUp(blocks * 8, clusterSize) / clusterSize;
    const needed = Math.ceil((used + blocks + tableClusters) / perBlock);
    if (needed <= blocks) return { blocks, tableClusters };
    blocks = needed;
  }
}
