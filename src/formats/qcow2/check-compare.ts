/** Comparing counts as stored with references as counted, and correcting them (Q-CHK-2, Q-CHK-4). */
import type { CheckReport } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import type { Walk } from './check-walk.ts';

/** What a comparison may correct. */
export interface CountFixes {
  /** Counts that are too high. */
  readonly leaks: boolean;
  /** Counts that are too low. */
  readonly errors: boolean;
}

export const NO_FIXES: CountFixes = { leaks: false, errors: false };

/**
 * Tells every difference in the range of the references, and corrects what may be; `report` counts them. Resolves with the
 * cluster behind the last that is used or counted.
 */
export async function compareCounts(walk: Walk, fixes: CountFixes, report: CheckReport): Promise<number> {
  const { image, references } = walk;
  const { refcounts, layout } = image;
  const { refcountsPerBlock } = layout;
  const { from, to } = references;
  let usedEnd = 0;
  for (let cluster = from; cluster < to; ) {
    walk.signal?.throwIfAborted();
    walk.step(layout.clusterSize);
    const index = refcounts.blockIndex(cluster);
    const stop = Math.min(to, (index + 1) * refcountsPerBlock);
    const block = await readableBlock(walk, index);
    const first = index * refcountsPerBlock;
    for (; block === UNREADABLE && cluster < stop; cluster++) {
      walk.inRange.tell(`Can't get refcount for cluster ${cluster}: Input/output error`);
      report.checkErrors++;
    }
    for (; cluster < stop; cluster++) {
      const stored = block instanceof DataView ? refcounts.width.get(block, cluster - first) : 0;
      const counted = references.get(cluster);
      if (stored > 0 || counted > 0) usedEnd = cluster + 1;
      if (stored === counted) continue;
      const text = block instanceof DataView && stored > EXACT_MAX ? block.getBigUint64((cluster - first) * 8) : stored;
      await differ(walk, fixes, report, { cluster, stored, counted, text: String(text) });
    }
  }
  return Math.max(1, usedEnd);
}

const UNREADABLE = 'unreadable';
/** No file has bytes from here on; before that there are zeroes. */
export const OFFSET_END = 2 ** 63;
/** Larger counts, of 64 bits, are more than a number holds. */
const EXACT_MAX = Number.MAX_SAFE_INTEGER - 1;

/** The counts of a block; undefined: all are zero. */
async function readableBlock(walk: Walk, index: number): Promise<DataView | typeof UNREADABLE | undefined> {
  const { image } = walk;
  const { refcounts, layout, file } = image;
  const offset = refcounts.table[index] ?? 0;
  if (offset >= OFFSET_END) return UNREADABLE;
  // Who repairs makes a new structure, and must not be kept from it by damage that is told of.
  if (offset % layout.clusterSize !== 0 && image.writable) return UNREADABLE;
  if (offset % layout.clusterSize === 0 && offset >= file.length()) return undefined;
  try {
    return (await refcounts.block(index))?.view;
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return UNREADABLE;
  }
}

interface Difference {
  readonly cluster: number;
  readonly stored: number;
  readonly counted: number;
  /** What is stored, exactly. */
  readonly text: string;
}

async function differ(
  walk: Walk,
  fixes: CountFixes,
  report: CheckReport,
  { cluster, stored, counted, text }: Difference,
): Promise<void> {
  const { image } = walk;
  const { clusterSize } = image.layout;
  const isLeak = stored > counted;
  if (stored === 0) walk.rebuild = true;
  const fixing = isLeak ? fixes.leaks : fixes.errors;
  const what = fixing ? 'Repairing' : isLeak ? 'Leaked' : 'ERROR';
  walk.inRange.tell(`${what} cluster ${cluster} refcount=${text} reference=${counted}`);
  if (fixing) {
    await image.refcounts.change(cluster * clusterSize, clusterSize, counted - stored);
    if (isLeak) report.leaksFixed++;
    else report.corruptionsFixed++;
  } else if (isLeak) report.leaks++;
  else report.corruptions++;
}
