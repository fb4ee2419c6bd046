/** Committing: what an image stores goes into an image below it (BL-COMMIT). */
import { block, requireUnblocked, unblock } from '../core/blockers.ts';
import { backingImage, chainContains, freezeChain, skipFilters } from '../core/chain.ts';
import type { Disk } from '../core/disk.ts';
import { defineFilter, type Progress } from '../core/driver.ts';
import { asBlockError, BlockError, codeOf, withErrno } from '../core/errors.ts';
import type { Graph } from '../core/graph.ts';
import { moveLink } from '../core/graph-change.ts';
import { openInternalFilter } from '../core/internal-filter.ts';
import { BlockNode, type Link } from '../core/node.ts';
import { updatePermissions } from '../core/permission-update.ts';
import { ALL_PERMISSIONS, NO_PERMISSIONS, Permission, type PermissionSet } from '../core/permissions.ts';
import { setReadOnly } from '../core/reopen.ts';
import * as request from '../core/request.ts';
import { statusAbove } from '../core/status.ts';
import { inParallel } from './in-parallel.ts';
import { rateLimit } from './rate-limit.ts';

/** Options of {@link commitDisk}. */
export interface CommitOptions {
  /** Commit into this image of the chain, and what lies between as well. Default: the image directly below. */
  readonly base?: BlockNode | undefined;
  /**
   * Whether the image is emptied afterwards, if its format can. Default: yes, but never with a `base` further down, since
   * what lies between would come to light.
   */
  readonly empty?: boolean | undefined;
  /** Bytes of data written per second. */
  readonly rateLimit?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Bytes of the disk that were looked at. */
  readonly progress?: Progress | undefined;
}

/** Longest read and write, bytes (BL-COMMIT-2). */
const STEP = 1 << 20;
/** Zeroes need no buffer and go in larger pieces, small enough to stop between them. */
const ZERO_STEP = 1 << 30;
const PARALLEL = 4;

/** What stands above the image that changes: those above read through it, and rely on nothing meanwhile. */
const COMMIT_TOP = defineFilter<unknown>({
  name: 'commit_top',
  summary: 'Stands above an image while others are committed into it',
  options: {},
  filters: 'backing',
  async open() {
    return { childPermissions: () => ({ need: NO_PERMISSIONS, share: ALL_PERMISSIONS }) };
  },
});

/**
 * Commits a disk into the image below it. A shorter base is made as long as the disk; a read-only one is made writable
 * meanwhile. Requests of the disk's users wait until the end. The disk reads the same at any time, also after a failure or
 * an abort, when the base may hold a part of the data: commit again.
 * Throws BlockError: ENOMEDIUM, ENOTSUP without an image below, EBUSY where either is blocked, EACCES if the base cannot be
 * made writable, EPERM where another user of the base would see it change; or the signal's reason.
 */
export function commit(disk: Disk, options: CommitOptions = {}): Promise<void> {
  return commitNode(disk.graph, disk.node, options);
}

/** Commits every disk of a graph that has an image below it, in the order they were opened; the first error ends it (BL-COMMIT-4). */
export async function commitAll(graph: Graph, options: Omit<CommitOptions, 'base'> = {}): Promise<void> {
  const isRoot = (node: BlockNode) => node.parents.some(({ parent }) => !(parent instanceof BlockNode));
  const tops = new Set(graph.nodes().filter(isRoot).map(skipFilters));
  for (const top of tops) {
    if (top.isOpen && top.backing !== undefined) await commitNode(graph, top, options);
  }
}

interface Plan {
  readonly graph: Graph;
  readonly top: BlockNode;
  readonly base: BlockNode;
  /** Images between the two. */
  readonly between: readonly BlockNode[];
  readonly empty: boolean;
  readonly options: CommitOptions;
}

/** The same for a node that is open already. */
export async function commitNode(graph: Graph, node: BlockNode, options: CommitOptions = {}): Promise<void> {
  const plan = checkedPlan(graph, node, options);
  const { top, base, between } = plan;
  const reason = { text: 'block device is in use by block job: commit' };
  const users = [top, ...between, base];
  for (const user of users) block(user, reason);
  try {
    const drain = await graph.drain(top);
    try {
      await withWritableBase(plan, () => withFilter(plan, () => withLinks(plan, (target) => run(plan, target))));
    } finally {
      drain.end();
    }
  } finally {
    for (const user of users) unblock(user, reason);
  }
}

/** BL-COMMIT-1. */
function checkedPlan(graph: Graph, node: BlockNode, options: CommitOptions): Plan {
  const top = skipFilters(node);
  if (!top.isOpen) throw new BlockError('ENOMEDIUM', 'No medium found', { node: top.name });
  const below = backingImage(top);
  if (below === undefined) {
    throw new BlockError('ENOTSUP', 'Image does not have a backing file', { node: top.name });
  }
  const base = options.base === undefined ? below : skipFilters(options.base);
  if (base === top || !chainContains(top, base)) {
    throw new BlockError('EINVAL', `Did not find '${base.filename}' in the backing chain of '${top.filename}'`, {
      node: top.name,
    });
  }
  requireUnblocked(top, 'commit-source', top.deviceOrNodeName);
  requireUnblocked(base, 'commit-target', base.deviceOrNodeName);
  const between: BlockNode[] = [];
  for (let each = below; each !== base; each = backingImage(each) ?? base) between.push(each);
  const empty = base === below && options.empty !== false && top.impl.makeEmpty !== undefined;
  if (empty && !top.writable) throw new BlockError('EACCES', 'Image is read-only', { node: top.name });
  return { graph, top, base, between, empty, options };
}

/** BL-COMMIT-1, -3: given back in every case. */
async function withWritableBase({ graph, base }: Plan, work: () => Promise<void>): Promise<void> {
  if (base.writable) return work();
  try {
    await setReadOnly(graph, base, false);
  } catch (error) {
    const { message, hint, holder } = asBlockError(error);
    throw new BlockError('EACCES', message, { node: base.name, cause: error, hint, holder });
  }
  try {
    await work();
  } finally {
    await setReadOnly(graph, base, true).catch((error) => graph.host.notice(String(error)));
  }
}

/** Puts the filter between the top image and what is below it, and lets nobody change the chain. */
async function withFilter({ graph, top, base }: Plan, work: () => Promise<void>): Promise<void> {
  const link = top.backing;
  if (link === undefined) throw new TypeError('the image was checked to have one below it');
  const child = link.node;
  const filter = await openInternalFilter(graph, COMMIT_TOP, child);
  const move = (from: BlockNode, to: BlockNode) =>
    graph.change((transaction) => {
      moveLink(transaction, link, to);
      updatePermissions(transaction, [top, from, to]);
    });
  try {
    move(child, filter);
    try {
      const unfreeze = freezeChain(top, base);
      try {
        await work();
      } finally {
        unfreeze();
      }
    } finally {
      move(filter, child);
    }
  } finally {
    await graph.release(filter);
  }
}

/** Links of the job's own (J-GRAPH-2): whoever relies on an image that is about to change is in conflict with them. */
async function withLinks({ graph, top, base, between }: Plan, work: (target: Link) => Promise<void>): Promise<void> {
  const user = { description: 'commit job' };
  const { consistentRead, write, writeUnchanged, resize } = Permission;
  const grows = base.impl.length() < top.impl.length();
  const links: Link[] = [];
  const attach = (name: string, node: BlockNode, need: PermissionSet, share: PermissionSet): Link => {
    const link = graph.attach(name, user, node, 'filtered', { need, share });
    links.push(link);
    return link;
  };
  try {
    attach('main node', top, NO_PERMISSIONS, ALL_PERMISSIONS);
    for (const node of between) attach('intermediate node', node, NO_PERMISSIONS, write | writeUnchanged);
    const need = consistentRead | write | (grows ? resize : NO_PERMISSIONS);
    await work(attach('base', base, need, consistentRead | writeUnchanged));
  } finally {
    for (const link of links.reverse()) await graph.detach(link);
  }
}

/** BL-COMMIT-2. What went down is durable before the top image forgets it. */
async function run({ top, base, empty, graph, options }: Plan, target: Link): Promise<void> {
  const length = top.impl.length();
  if (target.length() < length) await target.truncate(length);
  await copyDown(graph, top, base, target, options);
  await target.flush().catch(failure(`error while writing back '${base.filename}'`));
  if (!empty) return adoptBase(top, base);
  try {
    await top.impl.makeEmpty?.();
    top.writeGeneration++;
    await request.flush(top);
  } catch (error) {
    throw withErrno(codeOf(error), `Failed to empty ${top.filename}`, { node: top.name, cause: error });
  }
}

/** What checks the image below it (V-50) records the new state of that one, which fits what is stored above. */
async function adoptBase(top: BlockNode, base: BlockNode): Promise<void> {
  const reference = top.storedBacking;
  if (top.impl.checkBacking === undefined || reference === undefined) return;
  if (!top.writable || backingImage(top) !== base) return;
  await top.impl.changeBacking?.(reference);
  top.writeGeneration++;
  await request.flush(top);
}

interface Run {
  readonly offset: number;
  readonly length: number;
  readonly zero: boolean;
}

async function copyDown(
  graph: Graph,
  top: BlockNode,
  base: BlockNode,
  target: Link,
  { signal, progress, rateLimit: bytesPerSecond }: CommitOptions,
): Promise<void> {
  const length = top.impl.length();
  const rate = bytesPerSecond === undefined ? undefined : rateLimit(bytesPerSecond, graph.host.clock, signal);
  let planned = 0;
  let done = 0;
  const advance = (end: number) => {
    done = Math.max(done, end);
    progress?.(done, length);
  };
  progress?.(0, length);
  await inParallel<Run>({
    parallel: PARALLEL,
    bufferLength: STEP,
    signal,
    async next() {
      while (planned < length) {
        signal?.throwIfAborted();
        const offset = planned;
        const { length: run, allocated, zero } = await statusOf(top, base, offset, length - offset);
        planned += allocated ? Math.min(run, zero ? ZERO_STEP : STEP) : run;
        if (allocated) return { offset, length: planned - offset, zero };
      }
      return undefined;
    },
    async work({ offset, length: run, zero }, buffer) {
      if (zero)
        await target.writeZeroes(offset, run, { unmap: true }).catch(failure(`error while writing at byte ${offset}`));
      else {
        const piece = buffer().subarray(0, run);
        await request.read(top, offset, piece).catch(failure(`error while reading at byte ${offset}`));
        await rate?.take(run);
        await target.write(offset, piece).catch(failure(`error while writing at byte ${offset}`));
      }
      advance(offset + run);
    },
  });
  advance(length);
}

async function statusOf(top: BlockNode, base: BlockNode, offset: number, length: number) {
  return statusAbove(top, base, offset, length).catch(failure(`error while reading block status at offset ${offset}`));
}

function failure(text: string): (error: unknown) => never {
  return (error) => {
    throw error instanceof BlockError ? withErrno(error.code, text, { node: error.node, cause: error }) : error;
  };
}
