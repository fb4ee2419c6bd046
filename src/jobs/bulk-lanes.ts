/** Threads for jobs over whole disks, where there is enough to do for them. */
import { filePlace } from '../core/bulk.ts';
import type { Disk } from '../core/disk.ts';
import type { BulkLanes } from '../core/host-bulk.ts';

/** Less than this, in bytes, is sooner done than a thread is started. */
export const WORTHWHILE = 64 * 1024 * 1024;
/** Pieces that are handed over at a time. */
export const BATCH = 4096;

/** Runs that are looked at for the first data. */
const LOOKED_AT = 16;

/**
 * Starts the host's threads for a job that reads all of the disks: as early as can be, since they take tens of
 * milliseconds to come. Undefined where the host has none, or the disks' files store too little, or not as it is read. To be closed.
 */
export function startLanes(disks: readonly Disk[]): BulkLanes | undefined {
  const stored = disks.reduce((sum, disk) => sum + (disk.allocatedSize() ?? 0), 0);
  if (stored < WORTHWHILE || !disks.every(beginsPlainly)) return undefined;
  return disks[0]?.graph.host.bulkLanes?.();
}

/** Whether the first data of a disk are plainly in a file, not compressed or encrypted say, as far as that can be told soon. */
function beginsPlainly(disk: Disk): boolean {
  let offset = 0;
  for (let looked = 0; looked < LOOKED_AT && offset < disk.length; looked++) {
    const run = disk.tryStatusNow(offset, disk.length - offset);
    if (run === undefined) return true;
    if (!run.zero) return filePlace(disk.node, offset, Math.min(run.length, 512)) !== undefined;
    offset += run.length;
  }
  return true;
}
