/** Cutting off the end of the image file that nothing uses (Q-SIZE-3). */
import { BlockError } from '../../core/errors.ts';
import type { Qcow2Image } from './image.ts';

/** The cluster behind the last that is counted as used. */
export async function usedEnd(image: Qcow2Image): Promise<number> {
  const { refcounts, layout } = image;
  const { refcountsPerBlock, clusterSize } = layout;
  for (let index = refcounts.table.length - 1; index >= 0; index--) {
    const block = await refcounts.block(index);
    if (block === undefined) continue;
    for (let i = refcountsPerBlock - 1; i >= 0; i--) {
      if (refcounts.width.get(block.view, i) > 0) return (index * refcountsPerBlock + i + 1) * clusterSize;
    }
  }
  return 0;
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
