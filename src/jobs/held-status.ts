/** Jobs that ask disks for their status from end to end may be told it as it was when they began (`holdStatus`). */
import type { Disk } from '../core/disk.ts';
import { holdStatus } from '../core/status.ts';

/** Runs `work` so that drivers which are slow to ask may keep what they are told meanwhile. */
export async function withHeldStatus<T>(disks: readonly Disk[], work: () => Promise<T>): Promise<T> {
  const releases = disks.map((disk) => holdStatus(disk.node));
  try {
    return await work();
  } finally {
    for (const release of releases) release();
  }
}
