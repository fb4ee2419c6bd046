/**
 * Making the image file smaller, in place (Q-BEY-1): clusters of zeroes lose their storage, the last clusters move into the
 * holes before them, and the file ends behind the last. Whatever is moved has its copy, and the copy its counts, durable
 * before anything names it, and the original is given up when nothing does any more: a power cut leaves leaks at worst.
 */
import type { CompactOptions } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { moveData } from './compact-data.ts';
import { Holes, usedClusters } from './compact-holes.ts';
import { moveShort, placeApart, placeBack, planStructures } from './compact-structures.ts';
import { dropEmptyBlocks, moveBlocks, moveL2Tables } from './compact-tables.ts';
import { dropZeroes } from './compact-zeroes.ts';
import type { Qcow2Image } from './image.ts';
import { check } from './repair.ts';
import { shrinkFile, usedEnd } from './shrink-file.ts';
import { flushAll } from './write-back.ts';

/**
 * Going over it again closes holes that were made last: by refcount blocks that are not needed any more, and by compressed
 * clusters, which take more room than they leave where not all of it is known to be slack.
 */
const ROUNDS = 8;

/** What all steps are given. */
export interface CompactWatch {
  readonly signal: AbortSignal | undefined;
  /** So many clusters more are done. */
  step(clusters: number): void;
}

/** Holds all requests back meanwhile. An abort stops where the image is whole. Throws BlockError EIO for an image with errors. */
export async function compact(image: Qcow2Image, options: CompactOptions): Promise<void> {
  image.requireUsable();
  await image.gate.close();
  try {
    await compactAlone(image, options);
  } finally {
    image.gate.open();
  }
}

async function compactAlone(image: Qcow2Image, { signal, progress }: CompactOptions): Promise<void> {
  const stored = await requireSound(image, signal);
  // Each cluster is looked at once, and moved once at most.
  const total = 2 * stored;
  let done = 0;
  const watch: CompactWatch = {
    signal,
    step(clusters) {
      done = Math.min(total, done + clusters);
      progress?.(done, total);
    },
  };
  progress?.(0, total);
  await dropZeroes(image, watch);
  await flushAll(image);
  for (let round = 0; round < ROUNDS; round++) {
    signal?.throwIfAborted();
    if (!(await closeGaps(image, watch))) break;
  }
  image.preallocated = undefined;
  await flushAll(image);
  await shrinkFile(image);
  await image.file.flush();
  progress?.(total, total);
}

/** Gives up what is counted and not used; an image with errors is not touched further. Resolves with its stored clusters. */
async function requireSound(image: Qcow2Image, signal: AbortSignal | undefined): Promise<number> {
  const options = { finding: () => {}, ...(signal && { signal }) };
  const report = await check(image, { ...options, repair: 'none' });
  if (report.corruptions + report.checkErrors > 0) {
    const text = `'${image.file.filename()}' has errors: it can be compacted when it is repaired`;
    throw new BlockError('EIO', text, { node: image.node });
  }
  if (report.leaks > 0) await check(image, { ...options, repair: 'leaks' });
  await flushAll(image);
  return report.allocatedClusters ?? 0;
}

/** Moves what lies behind where the file could end. Resolves with whether anything was moved. */
async function closeGaps(image: Qcow2Image, watch: CompactWatch): Promise<boolean> {
  const used = await usedClusters(image);
  const end = (await usedEnd(image)) / image.layout.clusterSize;
  if (end <= used) return false;
  const plan = await planStructures(image, used);
  await placeApart(image, plan.long, used);
  const holes = new Holes(image.refcounts, plan.limit);
  let moved = await moveBlocks(image, holes);
  moved += await moveL2Tables(image, holes, watch);
  moved += await moveShort(image, holes, plan.short);
  moved += await moveData(image, holes, watch);
  moved += await placeBack(image, plan.long);
  moved += await dropEmptyBlocks(image);
  await flushAll(image);
  return moved > 0;
}
