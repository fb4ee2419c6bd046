/** Threads for jobs over whole disks, where there is enough to do for them. */
import type { Disk } from '../core/disk.ts';
import type { BulkLanes } from '../core/host-bulk.ts';

/** Less than this, in bytes, is sooner done than a thread is started. */
const WORTHWHILE = 64 * 1024 * 1024;
/** Pieces that are handed over at a time. A thread that has nothing to do yet is still starting, so many are planned first. */
export const BATCH = 4096;

/**
 * Starts the host's threads for a job that reads all of the disks: as early as can be, since they take tens of
 * milliseconds to come. Undefined where the host has none, or their files store too little. To be closed.
 */
export function startLanes(disks: readonly Disk[]): BulkLanes | undefined {
  const stored = disks.reduce((sum, disk) => sum + (disk.allocatedSize() ?? 0), 0);
  return stored < WORTHWHILE ? undefined : disks[0]?.graph.host.bulkLanes?.();
}
