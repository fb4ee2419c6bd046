/** Cutting off the end of the image file that nothing uses (Q-SIZE-3). */
import { lastNonZero } from '../../bytes/difference.ts';
import { BlockError } from '../../core/errors.ts';
import type { CacheEntry } from './cache.ts';
import type { Qcow2Image } from './image.ts';
import type { Refcounts } from './refcounts.ts';

/** The cluster behind the last that is counted as used, in bytes. */
export async function usedEnd(image: Qcow2Image): Promise<number> {
  const { refcounts, layout } = image;
  const { refcountsPerBlock, clusterSize } = layout;
  const stop = Math.min(refcounts.blocksEnd, refcounts.blockIndex(refcounts.usedBound - 1) + 1);
  for (let index = stop - 1; index >= 0; index--) {
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
  const { refcountBits } = image.layout;
  const last = lastNonZero(bytes, Math.ceil((count * refcountBits) / 8));
  let i = Math.min(count, Math.ceil(((last + 1) * 8) / refcountBits)) - 1;
  while (i >= 0 && width.get(view, i) === 0) i--;
  return i;
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
