/** Answers to BLOCK_STATUS (N-60 to N-64): extents of each context that was chosen. */
import type { Disk } from '../../core/disk.ts';
import type { HostClock } from '../../core/host.ts';
import type { BlockStatus } from '../../core/status.ts';
import { AllocationFlag } from '../protocol.ts';
import { viewOf, writeLength } from '../wire.ts';

/** A context that can be asked for. */
export interface MetaContext {
  readonly id: number;
  /** One run of like state from `at`, at most `length` long, never empty. */
  extent(at: number, length: number): Promise<{ readonly length: number; readonly flags: number }>;
  /** The same at once, where it can. */
  extentNow?(at: number, length: number): { readonly length: number; readonly flags: number } | undefined;
}

interface Extent {
  length: number;
  flags: number;
}

/** Extents in one chunk, and milliseconds of walking; at least one extent is told (N-63). */
const EXTENTS_MAX = 2 ** 17;
const WALK_MS = 100;
/** Looked at the clock after so many extents. */
const CLOCK_STEP = 256;
/** The longest extent of an old-style answer, in whole blocks of any size in use. */
const LENGTH_MAX = 2 ** 32 - 65536;

interface Range {
  readonly at: number;
  readonly length: number;
  /** Where the export ends: the last extent may reach past what was asked for, but not past this. */
  readonly end: number;
}

interface Limits {
  readonly one: boolean;
  readonly extended: boolean;
  readonly clock: HostClock;
}

/** The payload of one chunk for each context. */
export async function statusChunks(
  contexts: readonly MetaContext[],
  range: Range,
  limits: Limits,
): Promise<Uint8Array[]> {
  const chunks: Uint8Array[] = [];
  for (const context of contexts) {
    chunks.push(encodeExtents(context.id, await extentsOf(context, range, limits), limits.extended));
  }
  return chunks;
}

async function extentsOf(context: MetaContext, range: Range, { one, extended, clock }: Limits): Promise<Extent[]> {
  const extents: Extent[] = [];
  const deadline = clock.now() + WALK_MS;
  const stop = range.at + range.length;
  for (let at = range.at, seen = 0; at < stop; seen++) {
    if (seen % CLOCK_STEP === CLOCK_STEP - 1 && clock.now() > deadline) break;
    const asked = one ? stop - at : range.end - at;
    const run = context.extentNow?.(at, asked) ?? (await context.extent(at, asked));
    at += run.length;
    const last = extents.at(-1);
    if (last !== undefined && last.flags === run.flags && (extended || last.length + run.length <= LENGTH_MAX)) {
      last.length += run.length;
      continue;
    }
    if (last !== undefined && one) break;
    if (extents.length === EXTENTS_MAX) break;
    const length = extended ? run.length : Math.min(run.length, LENGTH_MAX);
    extents.push({ length, flags: run.flags });
    // A run that is cut short ends the answer: what follows would begin at the wrong place.
    if (length < run.length) break;
  }
  return extents;
}

function encodeExtents(id: number, extents: readonly Extent[], extended: boolean): Uint8Array {
  const bytes = new Uint8Array(extended ? 8 + 16 * extents.length : 4 + 8 * extents.length);
  const view = viewOf(bytes);
  view.setUint32(0, id);
  if (extended) view.setUint32(4, extents.length);
  extents.forEach(({ length, flags }, index) => {
    if (extended) {
      writeLength(view, 8 + 16 * index, length);
      writeLength(view, 16 + 16 * index, flags);
    } else {
      view.setUint32(4 + 8 * index, length);
      view.setUint32(8 + 8 * index, flags);
    }
  });
  return bytes;
}

/** `base:allocation` (N-61). */
export function allocationContext(id: number, disk: Disk): MetaContext {
  return statusContext(id, disk, ({ allocated, data, zero, at }) => {
    if (!zero) return 0;
    // Storage that is there, and reads as zeroes, is no hole.
    const stored = allocated && !data && at !== undefined && disk.format !== 'raw';
    return stored ? AllocationFlag.zero : AllocationFlag.zero | AllocationFlag.hole;
  });
}

/** `qemu:allocation-depth` (N-62). */
export function depthContext(id: number, disk: Disk): MetaContext {
  return statusContext(id, disk, ({ allocated, depth }) => (allocated ? depth + 1 : 0));
}

function statusContext(id: number, disk: Disk, flagsOf: (status: BlockStatus) => number): MetaContext {
  const told = (status: BlockStatus) => ({ length: status.length, flags: flagsOf(status) });
  return {
    id,
    extent: async (at, length) => told(await disk.status(at, length)),
    extentNow(at, length) {
      const status = disk.tryStatusNow(at, length);
      return status && told(status);
    },
  };
}

/** `qemu:dirty-bitmap:NAME`: bit 0 where it is dirty. */
export function bitmapContext(
  id: number,
  run: (at: number, length: number) => { readonly length: number; readonly dirty: boolean },
): MetaContext {
  const told = (at: number, length: number) => {
    const { length: found, dirty } = run(at, length);
    return { length: found, flags: dirty ? 1 : 0 };
  };
  return { id, extent: async (at, length) => told(at, length), extentNow: told };
}
