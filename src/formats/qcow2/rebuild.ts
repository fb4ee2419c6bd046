/** Building the refcount structure anew from counted references, clear of every old one (Q-CHK-4). */
import { alignUp } from '../../bytes/align.ts';
import { setU64, viewOf } from '../../bytes/big-endian.ts';
import { BlockError } from '../../core/errors.ts';
import { clustersOf, type Walk } from './check-walk.ts';
import { FIELD_AT } from './header.ts';
import { REFCOUNT_TABLE_BYTES_MAX } from './layout.ts';
import { MetadataMap } from './overlap.ts';

/** Writes blocks and table behind the end of the file, then switches the header to them. EFBIG where they do not fit. */
export async function rebuildRefcounts(walk: Walk): Promise<void> {
  const { image, references } = walk;
  const { layout, refcounts, file, header } = image;
  const { clusterSize, refcountsPerBlock } = layout;
  const first = clustersOf(image);
  const { blocks, tableClusters } = sizes(first, clusterSize, refcountsPerBlock);
  if (tableClusters * clusterSize > REFCOUNT_TABLE_BYTES_MAX) throw new BlockError('EFBIG', 'File too large');
  const end = first + blocks + tableClusters;
  for (let index = 0; index < blocks; index++) {
    const block = new Uint8Array(clusterSize);
    const view = viewOf(block);
    for (let i = 0; i < refcountsPerBlock && index * refcountsPerBlock + i < end; i++) {
      const cluster = index * refcountsPerBlock + i;
      const count = cluster < first ? references.get(cluster) : 1;
      if (count > refcounts.width.max) {
        throw new BlockError('EINVAL', `refcount width of ${layout.refcountBits} bits cannot hold another reference`);
      }
      if (count > 0) refcounts.width.set(view, i, count);
    }
    await file.write((first + index) * clusterSize, block);
  }
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
  image.metadata = new MetadataMap(clusterSize);
  image.indexMetadata();
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
