/** Checking, repairing, and checking again (T-CHECK-3); what a repair would do, without doing it (Q-CHK-6). */
import type { Disk } from '../core/disk.ts';
import type { CheckOptions, CheckReport, Progress, RepairMode } from '../core/driver.ts';
import { BlockError } from '../core/errors.ts';
import { type RehearsedImage, rehearse } from '../core/rehearsal.ts';

/** What is looked for, and mended. */
export interface CheckDiskOptions {
  /** Default `none`. Anything else needs a writable disk, unless it is only planned. */
  readonly repair?: RepairMode;
  /**
   * Nothing is written: the repair runs over files that keep in memory what it would write, at most `memory` bytes of it,
   * and tells its findings and repairs line by line.
   */
  readonly plan?: boolean;
  /** Decompresses every compressed cluster; those that do not decompress are corruptions. Default false. */
  readonly decompress?: boolean;
  /**
   * Not with `repair: 'all'`: storage that data share with metadata is no damage where reference counts allow for it, as the
   * programs of QEMU see it. Default false.
   */
  readonly countsOnly?: boolean;
  /** With `repair: 'all'`: what names storage past the end of the file reads as zeroes from then on. Default false. */
  readonly zeroBeyondEnd?: boolean;
  /** Bytes that counters may take, of images with very many clusters in several passes. Default 64 MiB. */
  readonly memory?: number;
  /** Gets each finding or repair of the first run, as a line for people. */
  readonly finding?: (line: string) => void;
  /** Gets what else is to be said of the first run, which the programs of QEMU do not say. */
  readonly detail?: (line: string) => void;
  /** Bytes of metadata, or of data that are looked at. */
  readonly progress?: Progress;
  /** Stops between two steps; a repair then leaves no more wrong than there was. */
  readonly signal?: AbortSignal | undefined;
}

/** What a check found and mended. */
export interface CheckResult {
  /** What the first run repaired; absent: nothing. */
  readonly repaired?: { readonly leaks: number; readonly corruptions: number };
  /** What a repair would mend, and what would be the matter then. Present when one was planned. */
  readonly planned?: { readonly leaks: number; readonly corruptions: number; readonly left: CheckReport };
  /** What is the matter now: of the second run if something was repaired, with the first one's counts of repairs. */
  readonly report: CheckReport;
}

/**
 * Looks for damage, and repairs it if asked; then looks again, so that the result tells what is left. Throws BlockError
 * ENOTSUP where the format has no check, ENOMEM where a plan takes more memory than it may, and what the signal holds.
 */
export async function checkDisk(disk: Disk, options: CheckDiskOptions = {}): Promise<CheckResult> {
  const { repair = 'none', plan = false, memory } = options;
  const isPlanned = plan && repair !== 'none';
  const runs = runsOf(options.progress, repair === 'none' ? 1 : isPlanned ? 3 : 2);
  if (!isPlanned) return mend((how) => disk.check(how), options, runs);
  const rehearsed = await disk.graph.alone(disk.node, () =>
    rehearse(disk.node, (image) => mend(lookAt(image), options, runs), memory),
  );
  const { leaks = 0, corruptions = 0 } = rehearsed.repaired ?? {};
  const report = await disk.check({ ...howTo(options, runs()), repair: 'none', finding() {} });
  return { planned: { leaks, corruptions, left: rehearsed.report }, report };
}

type Look = (how: CheckOptions) => Promise<CheckReport>;

function lookAt(image: RehearsedImage): Look {
  return async (how) => {
    if (image.check === undefined) throw new BlockError('ENOTSUP', 'This image format does not support checks');
    return image.check(how);
  };
}

async function mend(look: Look, options: CheckDiskOptions, runs: Runs): Promise<CheckResult> {
  const { repair = 'none', detail } = options;
  const first = await look({ ...howTo(options, runs()), repair, ...(detail && { detail }) });
  if (first.leaksFixed === 0 && first.corruptionsFixed === 0) return { report: first };
  const second = await look(howTo(options, runs()));
  const { leaksFixed, corruptionsFixed } = first;
  return {
    repaired: { leaks: leaksFixed, corruptions: corruptionsFixed },
    report: { ...second, leaksFixed, corruptionsFixed },
  };
}

/** Of a run that repairs nothing, and does not tell what is for people. */
function howTo(options: CheckDiskOptions, progress: Progress | undefined): CheckOptions {
  const { finding = () => {}, decompress, countsOnly, zeroBeyondEnd, memory, signal } = options;
  const chosen = { decompress, countsOnly, zeroBeyondEnd, memory, signal, progress };
  const given = Object.fromEntries(Object.entries(chosen).filter(([, value]) => value !== undefined));
  return { repair: 'none', finding, ...given };
}

/** The progress of the next of several runs, which are told as one. */
type Runs = () => Progress | undefined;

function runsOf(progress: Progress | undefined, count: number): Runs {
  let run = -1;
  let unit = 0;
  return () => {
    run++;
    const before = run;
    return (
      progress &&
      ((done, total) => {
        // Later runs count as much as the first one, whatever their own totals are.
        if (unit === 0) unit = total;
        progress(unit * (before + (total === 0 ? 1 : done / total)), unit * count);
      })
    );
  };
}
