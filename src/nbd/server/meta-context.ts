/** What contexts tell of an export's blocks (N-61, N-62). Places are those of the disk, not of the export's window. */
import type { DirtyBitmap } from '../../bitmaps/dirty-bitmap.ts';
import { skipFilters } from '../../core/chain.ts';
import type { Disk } from '../../core/disk.ts';
import type { BlockStatus } from '../../core/status.ts';
import { AllocationFlag, BASE_ALLOCATION } from '../protocol.ts';

export interface ContextExtent {
  readonly length: number;
  readonly flags: number;
}

export interface MetaContext {
  readonly name: string;
  /** One run of like state from `at`, at most `length` long, never empty. */
  extent(at: number, length: number): Promise<ContextExtent>;
  /** The same at once, or undefined where it must wait. */
  extentNow(at: number, length: number): ContextExtent | undefined;
  /** The state of a block whose parts differ. */
  join(a: number, b: number): number;
}

/** `base:allocation` (N-61). */
export function allocationContext(disk: Disk): MetaContext {
  const flagsOf = ({ allocated, data, zero, at, depth }: BlockStatus) => {
    if (!zero) return 0;
    // Space that a format keeps for what reads as zeroes is no hole; a file's holes have a place, and no storage.
    const kept = allocated && !data && at !== undefined && depth === 0 && keepsSpace(disk);
    return kept ? AllocationFlag.zero : AllocationFlag.zero | AllocationFlag.hole;
  };
  return statusContext(BASE_ALLOCATION, disk, flagsOf, (a, b) => a & b);
}

function keepsSpace(disk: Disk): boolean {
  const { driver } = skipFilters(disk.node);
  return driver.kind === 'format' && driver.name !== 'raw';
}

/** `qemu:allocation-depth`: the layer that holds the data, counted from 1; 0: none. */
export function depthContext(disk: Disk): MetaContext {
  const flagsOf = ({ allocated, depth }: BlockStatus) => (allocated ? depth + 1 : 0);
  return statusContext('qemu:allocation-depth', disk, flagsOf, Math.max);
}

function statusContext(
  name: string,
  disk: Disk,
  flagsOf: (status: BlockStatus) => number,
  join: MetaContext['join'],
): MetaContext {
  const told = (status: BlockStatus) => ({ length: status.length, flags: flagsOf(status) });
  return {
    name,
    join,
    extent: async (at, length) => told(await disk.status(at, length)),
    extentNow(at, length) {
      const status = disk.tryStatusNow(at, length);
      return status && told(status);
    },
  };
}

/** `qemu:dirty-bitmap:NAME`: bit 0 where it is dirty. */
export function bitmapContext(name: string, { content }: DirtyBitmap): MetaContext {
  const run = (at: number, length: number) => {
    const { dirty, length: found } = content.status(at, length);
    return { length: found, flags: dirty ? 1 : 0 };
  };
  return {
    name: `qemu:dirty-bitmap:${name}`,
    extent: async (at, length) => run(at, length),
    extentNow: run,
    join: (a, b) => a | b,
  };
}
