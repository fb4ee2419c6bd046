/**
 * Copy-on-read: what a read finds in a lower image of the chain is written to the top one too (BL-OPEN-24). It changes no
 * content, so that nobody is told of a change; it runs beside no request that overlaps it, so that it undoes no write.
 */

import { alignUp } from '../bytes/align.ts';
import { backingImage, imagesOf, skipFilters } from './chain.ts';
import { debugEvent } from './debug.ts';
import { codeOf } from './errors.ts';
import type { BlockNode } from './node.ts';
import * as request from './request.ts';
import { type BlockStatus, status, tryStatus } from './status.ts';

/** Data are copied in pieces of about this many bytes. */
const PIECE = 1 << 20;

/** What is to be done with a run of the top image. */
type Verdict = 'leave' | 'zero' | 'copy';

/**
 * Reads as `request.read` does, and first copies to `node` what it does not store itself: what the images below it store,
 * down to `bottom`, or all of them. Where none does, zeroes are written, unless there is a `bottom`. Without images below
 * there is nothing to copy. Throws what reading or writing throws; then some may have been copied.
 */
export async function readCopying(
  node: BlockNode,
  offset: number,
  target: Uint8Array,
  bottom?: BlockNode,
): Promise<void> {
  const end = Math.min(offset + target.length, node.impl.length());
  const lowest = lowestDepth(node, bottom);
  if (lowest > 0 && (await anyToCopy(node, offset, end, lowest))) await copyUp(node, offset, end, lowest);
  await request.readPlain(node, offset, target);
}

/** The same at once, where nothing is to be copied; else false. */
export function tryReadCopying(node: BlockNode, offset: number, target: Uint8Array, bottom?: BlockNode): boolean {
  const lowest = lowestDepth(node, bottom);
  if (lowest > 0) {
    const run = tryStatus(node, offset, target.length);
    if (run === undefined || run.length < target.length || verdictOf(run, lowest) !== 'leave') return false;
  }
  return request.tryReadPlain(node, offset, target);
}

/** Has all reads of a node copy to it what they find below, until as many users have disabled it (BL-OPEN-24). */
export function enableCopyOnRead(node: BlockNode): void {
  node.copyOnRead++;
  node.copyingRead = (offset, target) => readCopying(node, offset, target);
}

export function disableCopyOnRead(node: BlockNode): void {
  node.copyOnRead--;
  if (node.copyOnRead === 0) node.copyingRead = undefined;
}

/** How many images below `node` are copied from. Infinity: all, and zeroes where none has any. */
function lowestDepth(node: BlockNode, bottom: BlockNode | undefined): number {
  if (backingImage(node) === undefined) return 0;
  return bottom === undefined ? Number.POSITIVE_INFINITY : imagesOf(node).indexOf(skipFilters(bottom));
}

function verdictOf(run: BlockStatus, lowest: number): Verdict {
  if (!run.allocated) return lowest === Number.POSITIVE_INFINITY ? 'zero' : 'leave';
  if (run.depth === 0 || run.depth > lowest) return 'leave';
  return run.zero ? 'zero' : 'copy';
}

async function anyToCopy(node: BlockNode, offset: number, end: number, lowest: number): Promise<boolean> {
  for (let at = offset; at < end; ) {
    const run = await status(node, at, end - at);
    if (verdictOf(run, lowest) !== 'leave') return true;
    at += run.length;
  }
  return false;
}

/** In whole units of the image: a part of a cluster would cost as much. */
async function copyUp(node: BlockNode, offset: number, end: number, lowest: number): Promise<void> {
  const { requestAlign, preferred } = node.limits;
  const unit = alignUp(Math.max(preferred, requestAlign), requestAlign);
  const start = offset - (offset % unit);
  const tracked = node.tracker.begin(start, alignUp(end, unit) - start, true);
  node.tracker.serialise(tracked, tracked.offset, tracked.end);
  try {
    await node.tracker.wait(tracked);
    const stop = Math.min(tracked.end, alignUp(node.impl.length(), requestAlign));
    for (let at = start; at < stop; ) {
      const run = await nextRun(node, at, stop, { unit, lowest });
      if (run.verdict !== 'leave') await debugEvent(node, 'cor_write');
      if (run.verdict === 'copy' || (run.verdict === 'zero' && !(await zero(node, at, run.end)))) {
        await copy(node, at, run.end);
      }
      at = run.end;
    }
  } finally {
    node.writeGeneration++;
    node.tracker.end(tracked);
  }
}

/** A run of whole units, from `at`, that are to be treated alike. */
async function nextRun(
  node: BlockNode,
  at: number,
  stop: number,
  { unit, lowest }: { readonly unit: number; readonly lowest: number },
): Promise<{ readonly verdict: Verdict; readonly end: number }> {
  const inside = Math.min(stop, node.impl.length());
  const first = await status(node, at, inside - at);
  const verdict = verdictOf(first, lowest);
  if (at + first.length >= inside) return { verdict, end: stop };
  if (first.length >= unit) return { verdict, end: at + first.length - (first.length % unit) };
  const end = Math.min(at + unit, stop);
  const more = await anyToCopy(node, at + first.length, Math.min(end, inside), lowest);
  return { verdict: more || verdict !== 'leave' ? 'copy' : 'leave', end };
}

async function copy(node: BlockNode, start: number, end: number): Promise<void> {
  const { requestAlign, transferMax } = node.limits;
  const longest = Math.max(requestAlign, Math.min(PIECE, transferMax));
  const buffer = new Uint8Array(Math.min(longest - (longest % requestAlign), end - start));
  for (let at = start; at < end; at += buffer.length) {
    const piece = buffer.subarray(0, end - at);
    await node.impl.read(at, piece);
    await node.impl.write?.(at, piece, request.NO_FLAGS);
  }
}

/** False where the driver cannot do it without writing them as data. */
async function zero(node: BlockNode, start: number, end: number): Promise<boolean> {
  const { zeroAlign, zeroMax } = node.limits;
  const aligned = start % zeroAlign === 0 && (end % zeroAlign === 0 || end >= node.impl.length());
  if (!aligned || node.impl.writeZeroes === undefined) return false;
  try {
    for (let at = start; at < end; at += zeroMax) {
      await node.impl.writeZeroes(at, Math.min(zeroMax, end - at), request.NO_FLAGS);
    }
    return true;
  } catch (error) {
    if (codeOf(error) !== 'ENOTSUP') throw error;
    return false;
  }
}
