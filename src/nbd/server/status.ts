/** Answers to BLOCK_STATUS (N-60 to N-64): extents of each context that was chosen. */

import { setU64, viewOf } from '../../bytes/big-endian.ts';
import type { HostClock } from '../../core/host.ts';
import type { ContextExtent, MetaContext } from './meta-context.ts';

interface Extent {
  length: number;
  flags: number;
}

/** Extents in one chunk, and milliseconds of walking; at least one extent is told (N-63). */
const EXTENTS_MAX = 2 ** 17;
const WALK_MS = 100;
/** The longest extent of an old-style answer, in whole blocks of any size in use. */
const LENGTH_MAX = 2 ** 32 - 65536;

/** A context by its id. */
export interface ChosenContext {
  readonly id: number;
  readonly context: MetaContext;
}

interface Range {
  /** On the disk, bytes; `start` is where the export begins. */
  readonly start: number;
  readonly at: number;
  readonly length: number;
  /** Where the export ends: the last extent may reach past what was asked for, but not past this. */
  readonly end: number;
  /** Extents are multiples of it. */
  readonly minimumBlock: number;
}

interface Limits {
  readonly one: boolean;
  readonly extended: boolean;
  readonly clock: HostClock;
}

/** The payload of one chunk for each context. */
export async function statusChunks(
  chosen: readonly ChosenContext[],
  range: Range,
  limits: Limits,
): Promise<Uint8Array[]> {
  const chunks: Uint8Array[] = [];
  for (const { id, context } of chosen) {
    chunks.push(encodeExtents(id, await extentsOf(context, range, limits), limits.extended));
  }
  return chunks;
}

async function extentsOf(context: MetaContext, range: Range, { one, extended, clock }: Limits): Promise<Extent[]> {
  const extents: Extent[] = [];
  const deadline = clock.now() + WALK_MS;
  const stop = range.at + range.length;
  for (let at = range.at; at < stop; ) {
    if (extents.length > 0 && clock.now() > deadline) break;
    const run = await wholeBlocks(context, range, at, (one ? stop : range.end) - at);
    at += run.length;
    const last = extents.at(-1);
    if (last !== undefined && last.flags === run.flags && (extended || last.length + run.length <= LENGTH_MAX)) {
      last.length += run.length;
      continue;
    }
    if (last !== undefined && (one || extents.length === EXTENTS_MAX)) break;
    const length = extended ? run.length : Math.min(run.length, LENGTH_MAX);
    extents.push({ length, flags: run.flags });
    // A run that is cut short ends the answer: what follows would begin at the wrong place.
    if (length < run.length) break;
  }
  return extents;
}

/** One run in whole blocks; a block whose parts differ is one run of what holds for all of it. */
async function wholeBlocks(context: MetaContext, range: Range, at: number, length: number): Promise<ContextExtent> {
  const { minimumBlock: block, start, end } = range;
  const run = context.extentNow(at, length) ?? (await context.extent(at, length));
  const over = (at - start + run.length) % block;
  if (block === 1 || over === 0 || at + run.length === end) return run;
  const whole = run.length - over;
  if (whole > 0) return { length: whole, flags: run.flags };
  const stop = Math.min(at + block - ((at - start) % block), end, at + length);
  let { flags } = run;
  for (let next = at + run.length; next < stop; ) {
    const part = context.extentNow(next, stop - next) ?? (await context.extent(next, stop - next));
    flags = context.join(flags, part.flags);
    next += part.length;
  }
  return { length: stop - at, flags };
}

function encodeExtents(id: number, extents: readonly Extent[], extended: boolean): Uint8Array {
  const bytes = new Uint8Array(extended ? 8 + 16 * extents.length : 4 + 8 * extents.length);
  const view = viewOf(bytes);
  view.setUint32(0, id);
  if (extended) view.setUint32(4, extents.length);
  extents.forEach(({ length, flags }, index) => {
    if (extended) {
      setU64(view, 8 + 16 * index, length);
      setU64(view, 16 + 16 * index, flags);
    } else {
      view.setUint32(4 + 8 * index, length);
      view.setUint32(8 + 8 * index, flags);
    }
  });
  return bytes;
}
