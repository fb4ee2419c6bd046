/** Requests of a driver's own alignment, in pieces no longer than its limit; and writes of any, which are widened to it. */
import { alignDown, alignUp } from '../bytes/align.ts';
import { debugEvent } from './debug.ts';
import type { WriteFlags } from './driver.ts';
import { BlockError, notSupported } from './errors.ts';
import { invariant } from './invariant.ts';
import type { BlockNode } from './node.ts';
import type { TrackedRequest } from './tracker.ts';

/** The first 512 bytes are what formats are probed on (BL-OPEN-13). */
export const PROBED_BYTES = 512;

/** Aligned already. */
export async function readPieces(node: BlockNode, offset: number, target: Uint8Array): Promise<void> {
  const { transferMax } = node.limits;
  checkShape(node, offset, target.length);
  if (target.length <= transferMax) return node.impl.read(offset, target);
  for (let done = 0; done < target.length; done += transferMax) {
    await node.impl.read(offset + done, target.subarray(done, done + transferMax));
  }
}

/**
 * Unaligned ends are merged with what is there; such a request runs beside no overlapping one. Events are raised as QEMU
 * raises them (BD-41), unless `quiet`: what stands in for a driver's zero write raised its own. `flags` are as the driver
 * takes them.
 */
export async function writeAligned(
  node: BlockNode,
  request: TrackedRequest,
  offset: number,
  source: Uint8Array,
  flags: WriteFlags,
  quiet = false,
): Promise<void> {
  const { requestAlign: align } = node.limits;
  const end = offset + source.length;
  const start = alignDown(offset, align);
  const stop = alignUp(end, align);
  if (start === offset && stop === end) {
    if (node.tracker.mustWait(request)) await node.tracker.wait(request);
    return writePieces(node, offset, source, flags, quiet);
  }
  node.tracker.serialise(request, start, stop);
  await node.tracker.wait(request);
  const merged = new Uint8Array(stop - start);
  const ends = { head: start < offset, tail: stop > end };
  // Blocks that touch are read as one.
  if (merged.length <= (ends.head && ends.tail ? 2 * align : align)) {
    await readEnds(node, start, merged, ends, quiet);
  } else {
    if (ends.head) await readEnds(node, start, merged.subarray(0, align), { head: true, tail: false }, quiet);
    const tail = merged.subarray(merged.length - align);
    if (ends.tail) await readEnds(node, stop - align, tail, { head: false, tail: true }, quiet);
  }
  merged.set(source, offset - start);
  await writePieces(node, start, merged, flags, quiet);
}

/** Blocks for read-modify-write; past the disk's end they are zero. */
async function readEnds(
  node: BlockNode,
  offset: number,
  target: Uint8Array,
  { head, tail }: { readonly head: boolean; readonly tail: boolean },
  quiet: boolean,
): Promise<void> {
  const { impl } = node;
  const raise = quiet || impl.debugEvent === undefined ? undefined : (event: string) => debugEvent(node, event);
  if (head) await raise?.('pwritev_rmw_head');
  if (tail) await raise?.('pwritev_rmw_tail');
  const inside = Math.max(0, Math.min(target.length, alignUp(impl.length(), node.limits.requestAlign) - offset));
  if (inside > 0) await readPieces(node, offset, inside === target.length ? target : target.subarray(0, inside));
  if (head) await raise?.('pwritev_rmw_after_head');
  if (tail) await raise?.('pwritev_rmw_after_tail');
}

async function writePieces(
  node: BlockNode,
  offset: number,
  source: Uint8Array,
  flags: WriteFlags,
  quiet: boolean,
): Promise<void> {
  const { impl } = node;
  if (impl.write === undefined) throw notSupported(node, 'writing');
  checkShape(node, offset, source.length);
  guardBlockZero(node, offset, source);
  if (quiet || impl.debugEvent === undefined) return putPieces(node, offset, source, flags);
  await debugEvent(node, 'pwritev');
  try {
    await putPieces(node, offset, source, flags);
  } finally {
    await debugEvent(node, 'pwritev_done');
  }
}

/** With `fua` each piece is to be durable by itself. */
async function putPieces(
  { impl, limits }: BlockNode,
  offset: number,
  source: Uint8Array,
  flags: WriteFlags,
): Promise<void> {
  const { transferMax } = limits;
  if (source.length <= transferMax) return impl.write?.(offset, source, flags);
  for (let done = 0; done < source.length; done += transferMax) {
    await impl.write?.(offset + done, source.subarray(done, done + transferMax), flags);
  }
}

/** A guest must not turn a raw image of guessed format into something else (BL-OPEN-16); such a node is aligned to 512. */
function guardBlockZero(node: BlockNode, offset: number, source: Uint8Array): void {
  if (offset === 0 && node.probesAsOther?.(source.subarray(0, PROBED_BYTES))) {
    throw new BlockError('EPERM', 'Operation not permitted', { node: node.name });
  }
}

function checkShape(node: BlockNode, offset: number, length: number): void {
  const { requestAlign } = node.limits;
  invariant(length > 0 && offset >= 0 && Number.isSafeInteger(offset + length), 'a request is non-empty and in range');
  invariant(offset % requestAlign === 0 && length % requestAlign === 0, 'a request is aligned');
}
