/**
 * The request path of a node: everything between a request of any shape and a driver that sees only aligned,
 * in-bounds, non-empty ones no longer than its limits. Zero and discard fallbacks, read-modify-write, the order
 * of overlapping requests, FUA and flush live here once, for all drivers.
 */
import { alignDown, alignUp, isPowerOfTwo } from '../bytes/align.ts';
import { isZero } from '../bytes/zero.ts';
import { PROBED_BYTES, readPieces, writeAligned } from './aligned-request.ts';
import { writeCompressed } from './compressed-write.ts';
import { debugEvent } from './debug.ts';
import type { DataFlags, Limits, TruncateOptions, WriteFlags, WriteKind, ZeroFlags } from './driver.ts';
import { BlockError, codeOf, notSupported } from './errors.ts';
import { lengthOf } from './info.ts';
import { invariant } from './invariant.ts';
import type { BlockNode } from './node.ts';
import { status } from './status.ts';
import type { TrackedRequest } from './tracker.ts';

export const NO_FLAGS: Readonly<DataFlags & ZeroFlags> = Object.freeze({});

/** Longest single request, bytes: the largest multiple of 512 below 2^31. */
const REQUEST_MAX = 0x7ffffe00;

export const DEFAULT_LIMITS: Limits = Object.freeze({
  requestAlign: 1,
  zeroAlign: 1,
  zeroWidens: false,
  discardAlign: 1,
  transferMax: REQUEST_MAX,
  zeroMax: Number.MAX_SAFE_INTEGER,
  discardMax: Number.MAX_SAFE_INTEGER,
  preferred: 0,
  compressUnit: 0,
});

/** Zeroes are written as data in pieces of this many bytes. */
const ZERO_PIECE = 1 << 20;
let zeroes: Uint8Array | undefined;

/** Fills in a driver's limits and checks them; throws BlockError EINVAL for limits that make no sense (BL-SIZE-7). */
export function completeLimits(partial: Partial<Limits>, node: string): Limits {
  const requestAlign = partial.requestAlign ?? 1;
  if (requestAlign > 2 ** 30) {
    throw new BlockError('EINVAL', 'Driver requires too large request alignment', { node });
  }
  const limits = { ...DEFAULT_LIMITS, zeroAlign: requestAlign, discardAlign: requestAlign, ...partial };
  invariant(isPowerOfTwo(requestAlign), 'request alignment is a power of two');
  invariant(limits.zeroAlign % requestAlign === 0, 'zero alignment is a multiple of the request alignment');
  invariant(limits.discardAlign % requestAlign === 0, 'discard alignment is a multiple of the request alignment');
  invariant(limits.transferMax >= requestAlign, 'transfers can hold an aligned block');
  return {
    ...limits,
    transferMax: alignDown(limits.transferMax, requestAlign),
    zeroMax: alignDown(limits.zeroMax, limits.zeroAlign),
    discardMax: alignDown(limits.discardMax, limits.discardAlign),
  };
}

/** Asks the driver for its limits anew; a raw image of guessed format is aligned to what is probed. */
export function refreshLimits(node: BlockNode): void {
  const limits = completeLimits(node.impl.limits?.() ?? {}, node.name);
  if (node.probesAsOther === undefined) node.limits = limits;
  else {
    const widen = (align: number) => Math.max(PROBED_BYTES, align);
    const { requestAlign, zeroAlign, discardAlign } = limits;
    const widened = {
      requestAlign: widen(requestAlign),
      zeroAlign: widen(zeroAlign),
      discardAlign: widen(discardAlign),
    };
    node.limits = completeLimits({ ...limits, ...widened }, node.name);
  }
}

/** Reads; what lies past the node's end is zero (BL-OPEN-18, step 5). Copies to the node what is read, if that is on. */
export function read(node: BlockNode, offset: number, target: Uint8Array): Promise<void> {
  return node.copyingRead === undefined ? readPlain(node, offset, target) : node.copyingRead(offset, target);
}

/** The same, without copying. */
export async function readPlain(node: BlockNode, offset: number, target: Uint8Array): Promise<void> {
  const inside = Math.max(0, Math.min(target.length, node.impl.length() - offset));
  if (inside < target.length) target.fill(0, inside);
  if (inside === 0) return;
  const request = node.tracker.begin(offset, inside, false);
  try {
    if (node.tracker.mustWait(request)) await node.tracker.wait(request);
    await readAligned(node, offset, inside === target.length ? target : target.subarray(0, inside));
  } finally {
    node.tracker.end(request);
  }
}

/** At once, or false (design: the fast path). Refused when an overlapping change is under way. */
export function tryRead(node: BlockNode, offset: number, target: Uint8Array): boolean {
  return node.copyingRead === undefined && tryReadPlain(node, offset, target);
}

/** The same, without a thought for copying. */
export function tryReadPlain(node: BlockNode, offset: number, target: Uint8Array): boolean {
  const impl = node.impl;
  if (impl.tryReadNow === undefined) return false;
  const { requestAlign, transferMax } = node.limits;
  const length = target.length;
  if (offset + length > impl.length() || length > transferMax) return false;
  if (requestAlign > 1 && (offset % requestAlign !== 0 || length % requestAlign !== 0)) return false;
  if (!node.tracker.idle && node.tracker.overlaps(offset, length, false)) return false;
  return impl.tryReadNow(offset, target);
}

/** Widens to the alignment through bounce buffers, for the unaligned ends only. */
async function readAligned(node: BlockNode, offset: number, target: Uint8Array): Promise<void> {
  const { requestAlign: align } = node.limits;
  const end = offset + target.length;
  if (offset % align === 0 && end % align === 0) return readPieces(node, offset, target);
  const start = alignDown(offset, align);
  const stop = alignUp(end, align);
  if (stop - start <= 2 * align) {
    const bounce = new Uint8Array(stop - start);
    await readPieces(node, start, bounce);
    target.set(bounce.subarray(offset - start, end - start));
    return;
  }
  const bodyStart = alignUp(offset, align);
  const bodyEnd = alignDown(end, align);
  await Promise.all([
    bodyStart > offset ? readAligned(node, offset, target.subarray(0, bodyStart - offset)) : undefined,
    readPieces(node, bodyStart, target.subarray(bodyStart - offset, bodyEnd - offset)),
    end > bodyEnd ? readAligned(node, bodyEnd, target.subarray(bodyEnd - offset)) : undefined,
  ]);
}

/** Writes. Past the end only where the node can grow, else ENOSPC. With `fua`, durable when it resolves: by the driver, or by a flush. */
export async function write(node: BlockNode, offset: number, source: Uint8Array, flags: DataFlags): Promise<void> {
  if (source.length === 0) return;
  requireRoom(node, offset + source.length);
  const { detectZeroes, discard: discardSetting } = node.settings;
  if (detectZeroes !== 'off' && isZero(source)) {
    const unmap = detectZeroes === 'unmap' && discardSetting === 'unmap';
    return writeZeroes(node, offset, source.length, { ...flags, unmap });
  }
  const compressed = flags.compressed === true;
  const fua = flags.fua === true && !compressed && passesFua(node, 'write');
  const request = node.tracker.begin(offset, source.length, true);
  try {
    if (compressed) await writeCompressed(node, request, offset, source);
    else await writeAligned(node, request, offset, source, fua ? FUA : NO_FLAGS);
  } finally {
    noteChange(node, offset, source.length);
    node.tracker.end(request);
  }
  if (flags.fua && !fua) await flush(node, 1);
}

const FUA: Readonly<WriteFlags> = Object.freeze({ fua: true });

/** Whether the driver makes a durable write durable by itself. Where flushes are ignored, it is asked for none. */
function passesFua({ impl, driver, settings }: BlockNode, kind: WriteKind): boolean {
  if (driver.kind === 'protocol' && settings.cache.noFlush) return false;
  return impl.takesFua?.(kind) === true;
}

/** Something was written, or may have been: for the next flush, and for those who keep track (BL-BITMAP-7). */
export function noteChange(node: BlockNode, offset: number, length: number): void {
  node.writeGeneration++;
  for (const tracker of node.trackers) tracker.changed(offset, length);
  if (offset + length > node.toldLength) noteLength(node);
}

/** At once and not durable, or false. Refused when any overlapping request is under way. */
export function tryWrite(node: BlockNode, offset: number, source: Uint8Array): boolean {
  const impl = node.impl;
  if (impl.tryWriteNow === undefined || node.settings.detectZeroes !== 'off') return false;
  const { requestAlign, transferMax } = node.limits;
  const length = source.length;
  if (length === 0 || length > transferMax) return false;
  if (requestAlign > 1 && (offset % requestAlign !== 0 || length % requestAlign !== 0)) return false;
  if (offset + length > impl.length() && !node.growable) return false;
  if (offset < PROBED_BYTES && node.probesAsOther !== undefined) return false;
  if (!node.tracker.idle && node.tracker.overlaps(offset, length, true)) return false;
  if (!impl.tryWriteNow(offset, source)) return false;
  noteChange(node, offset, length);
  return true;
}

/** Makes a range read as zeroes: by the driver where it can, else by writing zeroes, unless `noFallback` (ENOTSUP). */
export async function writeZeroes(node: BlockNode, offset: number, length: number, flags: ZeroFlags): Promise<void> {
  if (length === 0) return;
  requireRoom(node, offset + length);
  // Parts of it may be written as data.
  const fua = flags.fua === true && passesFua(node, 'zeroes') && passesFua(node, 'write');
  const driverFlags: ZeroFlags = {
    ...(fua && FUA),
    unmap: flags.unmap === true,
    noFallback: flags.noFallback === true,
  };
  const request = node.tracker.begin(offset, length, true);
  try {
    await zeroRange(node, request, offset, offset + length, driverFlags);
  } finally {
    noteChange(node, offset, length);
    node.tracker.end(request);
  }
  if (flags.fua && !fua) await flush(node, 1);
}

/** What is not aligned for requests is written as data, with what is around it. */
async function zeroRange(
  node: BlockNode,
  request: TrackedRequest,
  offset: number,
  end: number,
  flags: ZeroFlags,
): Promise<void> {
  const { impl, limits } = node;
  const { requestAlign, zeroAlign, zeroWidens } = limits;
  // The disk's own end counts as aligned: there is nothing behind it to keep.
  const atEnd = end === impl.length();
  const isAligned = (unit: number) => offset % unit === 0 && (atEnd || end % unit === 0);
  const aligned = isAligned(zeroAlign);
  if (flags.noFallback && !isAligned(zeroWidens ? requestAlign : zeroAlign)) {
    throw notSupported(node, 'unaligned zero writes');
  }
  // What is around it is looked at, or read, and must not change then.
  const changed = zeroWidens ? zeroAlign : requestAlign;
  if (!aligned) node.tracker.serialise(request, alignDown(offset, changed), alignUp(end, changed));
  else if (impl.clearsAlone) node.tracker.serialise(request, offset, end);
  if (node.tracker.mustWait(request)) await node.tracker.wait(request);
  const start = Math.min(alignUp(offset, requestAlign), end);
  const stop = atEnd ? end : Math.max(start, alignDown(end, requestAlign));
  await zeroesAsData(node, request, offset, start, flags);
  if (start < stop) await zeroAligned(node, request, start, stop, flags);
  await zeroesAsData(node, request, stop, end, flags);
}

async function zeroAligned(
  node: BlockNode,
  request: TrackedRequest,
  offset: number,
  end: number,
  flags: ZeroFlags,
): Promise<void> {
  const { impl, limits } = node;
  await debugEvent(node, 'pwritev_zero');
  try {
    const start = Math.min(alignUp(offset, limits.zeroAlign), end);
    const stop = end === impl.length() ? end : Math.max(start, alignDown(end, limits.zeroAlign));
    await zeroInUnit(node, request, offset, start, flags);
    for (let at = start; at < stop; ) {
      const piece = Math.min(limits.zeroMax, stop - at);
      await zeroPiece(node, request, at, piece, flags);
      at += piece;
    }
    await zeroInUnit(node, request, stop, end, flags);
  } finally {
    await debugEvent(node, 'pwritev_done');
  }
}

/** A part of a unit of `zeroAlign`: all of it where that makes no difference, else data. */
async function zeroInUnit(
  node: BlockNode,
  request: TrackedRequest,
  offset: number,
  end: number,
  flags: ZeroFlags,
): Promise<void> {
  if (offset >= end) return;
  const { impl, limits } = node;
  const from = alignDown(offset, limits.zeroAlign);
  const to = Math.min(from + limits.zeroAlign, impl.length());
  const hasZeroes = limits.zeroWidens && impl.writeZeroes !== undefined;
  if (hasZeroes && (await storesNothing(node, from, offset)) && (await storesNothing(node, end, to))) {
    try {
      await impl.writeZeroes?.(offset, end - offset, { ...flags, edgesAreZero: true });
      return;
    } catch (error) {
      if (codeOf(error) !== 'ENOTSUP') throw error;
    }
  }
  if (flags.noFallback) throw notSupported(node, 'zero writes');
  await zeroesAsData(node, request, offset, end, flags, true);
}

/** Whether a range reads as zeroes, as status tells, and has no data; what status cannot tell is not so. */
async function storesNothing(node: BlockNode, from: number, to: number): Promise<boolean> {
  for (let at = from; at < to; ) {
    const run = await status(node, at, to - at).catch(() => undefined);
    if (run === undefined || !run.zero || run.data) return false;
    at += run.length;
  }
  return true;
}

async function zeroPiece(
  node: BlockNode,
  request: TrackedRequest,
  offset: number,
  length: number,
  flags: ZeroFlags,
): Promise<void> {
  const { impl } = node;
  if (impl.writeZeroes !== undefined) {
    try {
      await impl.writeZeroes(offset, length, flags);
      return;
    } catch (error) {
      if (codeOf(error) !== 'ENOTSUP' || flags.noFallback) throw error;
    }
  } else if (flags.noFallback) throw notSupported(node, 'zero writes');
  await zeroesAsData(node, request, offset, offset + length, flags, true);
}

async function zeroesAsData(
  node: BlockNode,
  request: TrackedRequest,
  start: number,
  end: number,
  { fua }: ZeroFlags,
  quiet = false,
): Promise<void> {
  if (start >= end) return;
  zeroes ??= new Uint8Array(ZERO_PIECE);
  for (let at = start; at < end; ) {
    const piece = Math.min(ZERO_PIECE - (at % ZERO_PIECE), end - at);
    await writeAligned(node, request, at, zeroes.subarray(0, piece), fua ? FUA : NO_FLAGS, quiet);
    at += piece;
  }
}

/** A hint: what is not aligned is left alone, and a driver that cannot is no error. */
export async function discard(node: BlockNode, offset: number, length: number): Promise<void> {
  const { impl, limits } = node;
  if (length === 0 || impl.discard === undefined || node.settings.discard === 'ignore') return;
  const end = offset + length;
  const start = alignUp(offset, limits.discardAlign);
  const stop = end >= impl.length() ? Math.min(end, impl.length()) : alignDown(end, limits.discardAlign);
  if (stop <= start) return;
  const request = node.tracker.begin(start, stop - start, true);
  if (impl.clearsAlone) node.tracker.serialise(request, start, stop);
  try {
    if (node.tracker.mustWait(request)) await node.tracker.wait(request);
    for (let at = start; at < stop; at += limits.discardMax) {
      await impl.discard(at, Math.min(limits.discardMax, stop - at));
    }
  } catch (error) {
    if (codeOf(error) !== 'ENOTSUP') throw error;
  } finally {
    noteChange(node, start, stop - start);
    node.tracker.end(request);
  }
}

/**
 * Makes every write that was completed before the call durable. A format always gets the call, since it may hold
 * metadata back; a protocol only when something was written since the last one, and never with `cache.no-flush`.
 * `own`: changes that the flush is a part of.
 */
export async function flush(node: BlockNode, own = 0): Promise<void> {
  const generation = node.writeGeneration;
  if (node.driver.kind === 'protocol') {
    if (node.settings.cache.noFlush || generation === node.flushedGeneration) return;
  }
  const request = node.tracker.begin(0, 0, false);
  try {
    await raiseFlush(node, generation - own);
    if (node.impl.flush !== undefined) await node.impl.flush();
    else await Promise.all(node.children.map((link) => flush(link.node)));
    node.flushedGeneration = Math.max(node.flushedGeneration, generation);
  } finally {
    node.tracker.end(request);
  }
}

/** On the primary child: the second one only where an earlier change was not flushed yet (BD-41). */
async function raiseFlush(node: BlockNode, generation: number): Promise<void> {
  if (node.children.length === 0) return;
  const below = node.primary?.node;
  if (below?.impl.debugEvent === undefined) return;
  await debugEvent(below, 'flush_to_os');
  if (node.settings.cache.noFlush || generation <= node.raisedGeneration) return;
  node.raisedGeneration = generation;
  await debugEvent(below, 'flush_to_disk');
}

/** Changes the size (BL-SIZE-3). No request that reaches past the new or the old end runs beside it. */
export async function truncate(node: BlockNode, length: number, options: TruncateOptions): Promise<void> {
  const { impl } = node;
  if (impl.truncate === undefined) {
    throw new BlockError('ENOTSUP', 'Image format driver does not support resize', { node: node.name });
  }
  const old = lengthOf(node, 'Failed to get old image size');
  const below = node.backing && lengthOf(node.backing.node, 'Could not get backing file size', node);
  const from = Math.min(length, old);
  const request = node.tracker.begin(from, Number.MAX_SAFE_INTEGER - from, true);
  node.tracker.serialise(request, request.offset, request.end);
  try {
    await node.tracker.wait(request);
    for (const tracker of node.trackers) tracker.checkResize(length);
    await impl.truncate(length, options);
    await hideBacking(node, request, old, below ?? 0);
  } finally {
    node.writeGeneration++;
    noteLength(node);
    node.tracker.end(request);
  }
}

/**
 * What a longer backing image has behind the old end must not come to light (BL-SIZE-4). For drivers that have not seen to it
 * before the new size was durable.
 */
async function hideBacking(node: BlockNode, request: TrackedRequest, old: number, below: number): Promise<void> {
  const end = Math.min(below, node.impl.length());
  if (end > old) await zeroRange(node, request, old, end, NO_FLAGS);
}

/** Tells of a new length: those who keep track of changes, and the users of this node and of those that show its size. */
export function noteLength(node: BlockNode): void {
  const length = node.impl.length();
  if (length === node.toldLength) return;
  node.toldLength = length;
  for (const tracker of node.trackers) tracker.resized(length);
  for (const { parent, name } of node.parents) {
    if (!('parents' in parent)) parent.resized?.(length);
    else if (parent.isOpen && parent.primary?.name === name) noteLength(parent);
  }
}

function requireRoom(node: BlockNode, end: number): void {
  if (end > node.impl.length() && !node.growable) {
    throw new BlockError(
      'ENOSPC',
      `Cannot write up to byte ${end} of '${node.filename}': its end is at ${node.impl.length()}`,
      {
        node: node.name,
      },
    );
  }
}
