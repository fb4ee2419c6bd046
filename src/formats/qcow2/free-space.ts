/** Finding free clusters, and taking them (Q-REF-3). */
import { BlockError } from '../../core/errors.ts';
import { createBlock } from './refcount-growth.ts';
import type { Refcounts } from './refcounts.ts';
import { usedEnd } from './shrink-file.ts';
import type { HostOffset } from './tables.ts';

/**
 * The first run of `count` clusters that nothing uses, from the lowest that may be free. The caller holds the lock.
 * Resolves with the number of its first cluster.
 */
export async function findFree(refcounts: Refcounts, count: number): Promise<number> {
  const { refcountsPerBlock } = refcounts.image.layout;
  let start = refcounts.hint;
  let firstFree = -1;
  let cluster = start;
  while (cluster < start + count) {
    const index = refcounts.blockIndex(cluster);
    const end = (index + 1) * refcountsPerBlock;
    const isThere = (refcounts.table[index] ?? 0) !== 0;
    if (!isThere || refcounts.isKnownFree(index)) {
      if (firstFree < 0) firstFree = cluster;
      cluster = end;
      continue;
    }
    const block = refcounts.isKnownFull(index) ? undefined : await refcounts.block(index);
    if (block === undefined) {
      cluster = end;
      start = end;
      continue;
    }
    // Nothing below the hint is free either.
    const isWhole = cluster % refcountsPerBlock === 0 || cluster === refcounts.hint;
    let used = 0;
    const from = cluster;
    for (const { view } = block; cluster < end && cluster < start + count; cluster++) {
      if (refcounts.width.get(view, cluster % refcountsPerBlock) !== 0) {
        start = cluster + 1;
        used++;
      } else if (firstFree < 0) firstFree = cluster;
    }
    if (isWhole && used === end - from) refcounts.noteFull(index);
    else if (used === 0 && end - from === refcountsPerBlock && cluster === end) refcounts.noteFree(index);
  }
  refcounts.hint = firstFree < 0 ? start : firstFree;
  if ((start + count) * refcounts.image.layout.clusterSize > Number.MAX_SAFE_INTEGER) {
    throw new BlockError('EFBIG', 'File too large', { node: refcounts.image.node });
  }
  return start;
}

/** Takes `count` clusters side by side, each with a count of 1 then. Resolves with their place. Throws BlockError. */
export function allocateClusters(refcounts: Refcounts, count: number): Promise<HostOffset> {
  return refcounts.lock.run(async () => {
    const { image } = refcounts;
    await image.raise('cluster_alloc');
    for (;;) {
      const first = await findFree(refcounts, count);
      if (await makeBlocks(refcounts, first, count)) continue;
      const offset = first * image.layout.clusterSize;
      await refcounts.changeLocked(offset, count * image.layout.clusterSize, 1);
      image.preallocated = undefined;
      return offset;
    }
  });
}

/**
 * Takes `length` bytes, fewer than a cluster, for compressed data: behind those packed last, reaching into the next cluster
 * if that is free, else in a new one (Q-REF-7). Each cluster that they touch counts once more. Throws BlockError.
 */
export function allocateBytes(refcounts: Refcounts, length: number): Promise<HostOffset> {
  return refcounts.lock.run(async () => {
    const { image, width } = refcounts;
    const { clusterSize } = image.layout;
    await image.raise('cluster_alloc_bytes');
    for (;;) {
      const end = refcounts.packedEnd;
      const last = Math.floor(end / clusterSize);
      const isOpen = end !== 0 && (await refcounts.get(last)) < width.max;
      let offset = end;
      if (!isOpen || (last + 1) * clusterSize - end < length) {
        const first = await findFree(refcounts, 1);
        if (await makeBlocks(refcounts, first, 1)) continue;
        if (!isOpen || first !== last + 1) offset = first * clusterSize;
      }
      await refcounts.changeLocked(offset, length, 1);
      image.preallocated = undefined;
      refcounts.packedEnd = (offset + length) % clusterSize === 0 ? 0 : offset + length;
      return offset;
    }
  });
}

/** Takes clusters behind everything that is used, and behind the end of the file. */
export function allocateAtEnd(refcounts: Refcounts, count: number): Promise<HostOffset> {
  return refcounts.lock.run(async () => {
    const { clusterSize } = refcounts.image.layout;
    const { first } = await rangeAtEndLocked(refcounts, count);
    await refcounts.changeLocked(first * clusterSize, count * clusterSize, 1);
    return first * clusterSize;
  });
}

/** Clusters, half open. */
export interface FreeRange {
  readonly first: number;
  readonly end: number;
}

/**
 * `count` free clusters there or more, whose refcount blocks are made: all that those blocks count. Nobody is kept from taking
 * them. Fewer, but at least `least`, where the refcount table has room for no more: a longer one leaves a hole before it.
 */
export function rangeAtEnd(refcounts: Refcounts, count: number, least: number): Promise<FreeRange> {
  return refcounts.lock.run(async () => {
    const { first, end } = await rangeAtEndLocked(refcounts, count, least);
    // Whoever takes some of it needs a table next, and would look for a place through all of it.
    await findFree(refcounts, 1);
    return { first, end: (refcounts.blockIndex(end - 1) + 1) * refcounts.image.layout.refcountsPerBlock };
  });
}

async function rangeAtEndLocked(refcounts: Refcounts, count: number, least = count): Promise<FreeRange> {
  const { image } = refcounts;
  for (;;) {
    const { clusterSize } = image.layout;
    const end = await usedEnd(image);
    refcounts.usedBound = end / clusterSize;
    const first = Math.ceil(Math.max(end, image.file.length()) / clusterSize);
    const room = refcounts.table.length * image.layout.refcountsPerBlock - first;
    const fitting = room < least ? count : Math.min(count, room);
    if (!(await makeBlocks(refcounts, first, fitting))) return { first, end: first + fitting };
  }
}

/** Whether a block had to be made, for which the places may be taken now. */
async function makeBlocks(refcounts: Refcounts, first: number, count: number): Promise<boolean> {
  const last = refcounts.blockIndex(first + count - 1);
  // The table grows once for all: each longer one lies in the midst of what is wanted, which then begins behind it.
  if (last >= refcounts.table.length) {
    await createBlock(refcounts, last);
    return true;
  }
  for (let index = refcounts.blockIndex(first); index <= last; index++) {
    if ((refcounts.table[index] ?? 0) !== 0) continue;
    await createBlock(refcounts, index);
    return true;
  }
  return false;
}
