/** Giving unused storage back (V-51). */
import type { Disk } from '../core/disk.ts';
import type { CompactOptions } from '../core/driver.ts';

/** What a compaction gained. */
export interface CompactResult {
  /** Bytes of host storage in use before and after; undefined where the host cannot tell. */
  readonly before: number | undefined;
  readonly after: number | undefined;
}

/** Compacts in place. Crash-safe; when aborted, the image is whole, and partly compacted. ENOTSUP where the format cannot. */
export async function compactDisk(disk: Disk, options: CompactOptions = {}): Promise<CompactResult> {
  const before = disk.allocatedSize();
  await disk.compact(options);
  await disk.flush();
  return { before, after: disk.allocatedSize() };
}
