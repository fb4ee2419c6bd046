/** Checking, repairing, and checking again (T-CHECK-3). */
import type { Disk } from '../core/disk.ts';
import type { CheckReport, RepairMode } from '../core/driver.ts';

export interface CheckDiskOptions {
  /** Default `none`. Anything else needs a writable disk. */
  readonly repair?: RepairMode;
  /** Gets each finding or repair of the first run, as a line for people. */
  readonly finding?: (line: string) => void;
  /** Gets what else is to be said of the first run, which the programs of QEMU do not say. */
  readonly detail?: (line: string) => void;
  readonly signal?: AbortSignal | undefined;
}

export interface CheckResult {
  /** What the first run repaired; absent: nothing. */
  readonly repaired?: { readonly leaks: number; readonly corruptions: number };
  /** What is the matter now: of the second run if something was repaired, with the first one's counts of repairs. */
  readonly report: CheckReport;
}

/**
 * Looks for damage, and repairs it if asked; then looks again, so that the result tells what is left.
 * Throws BlockError ENOTSUP where the format has no check.
 */
export async function checkDisk(disk: Disk, options: CheckDiskOptions = {}): Promise<CheckResult> {
  const { repair = 'none', finding = () => {}, detail, signal } = options;
  const first = await disk.check({ repair, finding, ...(detail && { detail }), ...(signal && { signal }) });
  if (first.leaksFixed === 0 && first.corruptionsFixed === 0) return { report: first };
  await disk.flush();
  const second = await disk.check({ repair: 'none', finding, ...(signal && { signal }) });
  const { leaksFixed, corruptionsFixed } = first;
  return {
    repaired: { leaks: leaksFixed, corruptions: corruptionsFixed },
    report: { ...second, leaksFixed, corruptionsFixed },
  };
}
