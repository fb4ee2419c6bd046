/** Comparing counts as stored with references as counted, and correcting them (Q-CHK-2, Q-CHK-4). */
import { BlockError } from '../../core/errors.ts';
import type { Walk } from './check-walk.ts';

/** What a comparison may correct. */
export interface CountFixes {
  /** Counts that are too high. */
  readonly leaks: boolean;
  /** Counts that are too low. */
  readonly errors: boolean;
}

/** Tells every difference, and corrects what may be. Resolves with the cluster behind the last that is used or counted. */
export async function compareCounts(walk: Walk, fixes: CountFixes): Promise<number> {
  const { image, references } = walk;
  const { refcounts, layout } = image;
  const { refcountsPerBlock } = layout;
  let usedEnd = 0;
  for (let cluster = references.from; cluster < references.to; ) {
    walk.signal?.throwIfAborted();
    const index = refcounts.blockIndex(cluster);
    const stop = Math.min(references.to, (index + 1) * refcountsPerBlock);
    const block = await readableBlock(walk, index);
    const first = index * refcountsPerBlock;
    for (; cluster < stop; cluster++) {
      const stored = block === undefined ? 0 : refcounts.width.get(block.view, cluster - first);
      const counted = references.get(cluster);
      if (stored > 0 || counted > 0) usedEnd = cluster + 1;
      if (stored !== counted) await differ(walk, fixes, cluster, stored, counted);
    }
  }
  return usedEnd;
}

async function readableBlock(walk: Walk, index: number) {
  const { refcounts } = walk.image;
  const offset = refcounts.table[index] ?? 0;
  // What cannot be a block has been told of.
  if (offset % walk.image.layout.clusterSize !== 0 || offset >= walk.image.file.length()) return undefined;
  try {
    return await refcounts.block(index);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    walk.tell(`Can't get refcount block ${index}: ${error.message}`);
    walk.report.checkErrors++;
    return undefined;
  }
}

async function differ(walk: Walk, fixes: CountFixes, cluster: number, stored: number, counted: number): Promise<void> {
  const { image, report } = walk;
  const { clusterSize } = image.layout;
  const isLeak = stored > counted;
  if (stored === 0) walk.rebuild = true;
  const fixing = isLeak ? fixes.leaks : fixes.errors;
  const what = fixing ? 'Repairing' : isLeak ? 'Leaked' : 'ERROR';
  walk.tell(`${what} cluster ${cluster} refcount=${stored} reference=${counted}`);
  if (fixing) {
    await image.refcounts.change(cluster * clusterSize, clusterSize, counted - stored);
    if (isLeak) report.leaksFixed++;
    else report.corruptionsFixed++;
  } else if (isLeak) report.leaks++;
  else report.corruptions++;
}
