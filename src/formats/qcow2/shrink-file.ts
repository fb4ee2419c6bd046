/** Cutting off the end of the image file that nothing uses (Q-SIZE-3). */
import { isZero } from '../../bytes/zero.ts';
import { BlockError } from '../../core/errors.ts';
import type { CacheEntry } from './cache.ts';
import type { Qcow2Image } from './image.ts';
import type { Refcounts } from './refcounts.ts';

/** Bytes of a block that are passed over at once when they are zero. */
const STRIDE = 4096;

/** The cluster behind the last that is counted as used, in bytes. */
export async function usedEnd(image: Qcow2Image): Promise<number> {
  const { refcounts, layout } = image;
  const { refcountsPerBlock, clusterSize } = layout;
  const last = Math.min(refcounts.table.length, refcounts.blockIndex(refcounts.usedBound - 1) + 1) - 1;
  for (let index = last; index >= 0; index--) {
    // A new image has a table with very few blocks.
    if (refcounts.table[index] === 0) continue;
    const block = await refcounts.block(index);
    if (block === undefined) continue;
    const first = index * refcountsPerBlock;
    const used = lastUsed(refcounts, block, Math.min(refcountsPerBlock, refcounts.usedBound - first));
    if (used >= 0) return (first + used + 1) * clusterSize;
  }
  return 0;
}

/** The last of the first `count` counts of a block that is not zero; -1: all are. */
function lastUsed({ width, image }: Refcounts, { bytes, view }: CacheEntry, count: number): number {
  const stride = Math.min(STRIDE, bytes.length);
  const perStride = (stride * 8) / image.layout.refcountBits;
  for (let i = count - 1; i >= 0; i--) {
    if (width.get(view, i) > 0) return i;
    const start = Math.floor(i / perStride);
    if ((i + 1) % perStride === 0 && isZero(bytes, start * stride, (start + 1) * stride)) i = start * perStride;
  }
  return -1;
}

/** A failure only warns: the image is sound. */
export async function shrinkFile(image: Qcow2Image): Promise<void> {
  try {
    const end = await usedEnd(image);
    if (end > 0 && end < image.file.length()) await image.file.truncate(end, { shrink: true });
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    image.host.warn(`Failed to truncate the tail of the image: ${error.message}`);
  }
}
