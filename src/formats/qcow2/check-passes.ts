/** Counting references in as many passes over the image file as the memory for counters asks for (Q-CHK-7). */
import type { CheckOptions, CheckReport } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { type CountFixes, compareCounts, NO_FIXES } from './check-compare.ts';
import { findShared, type SharedData } from './check-shared.ts';
import type { Step } from './check-steps.ts';
import { clustersOf, type Walk, walkImage } from './check-walk.ts';
import type { Qcow2Image } from './image.ts';
import { ClusterMarks, ReferenceCounts } from './reference-counts.ts';

/** Bytes of counters: clusters whose references are counted in one pass have one each. */
const MEMORY = 64 << 20;
const SHARED_BYTES = 256;
const SHARED_MIN = 1024;

/** A check under way. */
export interface CheckRun {
  readonly image: Qcow2Image;
  readonly options: CheckOptions;
  readonly report: CheckReport;
  readonly step: Step;
}

/** Clusters [from, to) of the image file. */
export interface ClusterRange {
  readonly from: number;
  readonly to: number;
  /** The file ends there, maybe in the midst of what begins before. */
  readonly isLast: boolean;
}

function memoryOf({ memory = MEMORY }: CheckOptions): number {
  return Math.max(1, memory);
}

/** Shared clusters that may be remembered: some hundreds of bytes each. */
function sharedMax(options: CheckOptions): number {
  return Math.max(SHARED_MIN, Math.floor(memoryOf(options) / SHARED_BYTES));
}

/** How many passes there will be. */
export function passesOf(image: Qcow2Image, options: CheckOptions): number {
  return Math.max(1, Math.ceil(clustersOf(image) / memoryOf(options)));
}

/** What each pass counts. */
export function* rangesOf(image: Qcow2Image, options: CheckOptions): Generator<ClusterRange> {
  const [clusters, memory] = [clustersOf(image), memoryOf(options)];
  for (let from = 0; from === 0 || from < clusters; from += memory) {
    const to = Math.min(clusters, from + memory);
    yield { from, to, isLast: to === clusters };
  }
}

export function emptyReport(image: Qcow2Image): CheckReport {
  return {
    corruptions: 0,
    leaks: 0,
    checkErrors: 0,
    corruptionsFixed: 0,
    leaksFixed: 0,
    totalClusters: Math.ceil(image.length / image.layout.clusterSize),
    allocatedClusters: 0,
    fragmentedClusters: 0,
    compressedClusters: 0,
  };
}

/** Who is told of what a walk finds. */
export type Telling = 'all' | 'range' | 'nothing';

/** Counts what is in a range. `range`: only what no other pass finds is told, and counted in the run's report. */
export async function countRange(run: CheckRun, { from, to, isLast }: ClusterRange, telling: Telling): Promise<Walk> {
  const { image, options, report, step } = run;
  const scratch = telling === 'all' ? report : emptyReport(image);
  const tell = (line: string) => options.finding(line);
  const silent = () => {};
  const walk: Walk = {
    image,
    references: new ReferenceCounts(from, to, isLast),
    report: scratch,
    inRange: telling === 'nothing' ? { report: scratch, tell: silent } : { report, tell },
    repairing: options.repair === 'all',
    signal: options.signal,
    step,
    tell: telling === 'all' ? tell : silent,
    detail: (line) => options.detail?.(line),
    rebuild: false,
    doubtful: false,
    uncopied: 0,
    strayEnd: 0,
    packed: undefined,
    metadata: image.snapshots.length > 0 ? new ClusterMarks(from, to) : undefined,
  };
  await walkImage(walk);
  return walk;
}

/** What all passes have found, before anything is mended. */
export interface Survey {
  /** Of the last pass; what it says of the whole is that of all passes. */
  readonly walk: Walk;
  readonly shared: SharedData;
  /** What is wrong with counts. */
  readonly differences: CheckReport;
  /** The cluster behind the last that is used or counted. */
  readonly usedEnd: number;
  /** False: what a table that cannot be read refers to looks like leaks. */
  readonly isCounted: boolean;
}

/** Counts and compares everything, and tells of it. */
export async function survey(run: CheckRun): Promise<Survey> {
  const { image, options, report } = run;
  const differences = emptyReport(image);
  const shared: SharedData = { active: new Map(), crossed: new Map() };
  let usedEnd = 0;
  let isCounted = true;
  let last: Walk | undefined;
  for (const range of rangesOf(image, options)) {
    const walk = await countRange(run, range, range.from === 0 ? 'all' : 'range');
    isCounted &&= walk.report.checkErrors === 0;
    // The same tables are read in each pass.
    report.checkErrors = Math.max(report.checkErrors, walk.report.checkErrors);
    const before = differences.corruptions;
    usedEnd = Math.max(usedEnd, await compareCounts(walk, NO_FIXES, differences));
    const countsTooLow = differences.corruptions > before;
    if (options.countsOnly !== true) {
      await findShared(walk, { report, shared, countsTooLow, limit: sharedMax(options) });
    }
    if (last !== undefined) {
      walk.rebuild ||= last.rebuild;
      walk.doubtful ||= last.doubtful;
    }
    last = walk;
  }
  if (last === undefined) throw new TypeError('there is a range always');
  return { walk: last, shared, differences, usedEnd, isCounted };
}

/** Corrects counts; what cannot be is told again. Resolves with the cluster behind the last that is used or counted. */
export async function correctCounts(run: CheckRun, { walk }: Survey, fixes: CountFixes): Promise<number> {
  const { image, options, report } = run;
  if (passesOf(image, options) === 1) return compareCounts(walk, fixes, report);
  let usedEnd = 0;
  for (const range of rangesOf(image, options)) {
    const again = await countAgain(run, range);
    usedEnd = Math.max(usedEnd, await compareCounts(again, fixes, report));
  }
  return usedEnd;
}

/** Once the file is longer: counts from cluster `from` on were behind its end, where nobody looks, and may be of nothing. */
export async function correctLeaksFrom(run: CheckRun, from: number): Promise<void> {
  const [end, memory] = [clustersOf(run.image), memoryOf(run.options)];
  for (let at = from; at < end; at += memory) {
    const walk = await countAgain(run, { from: at, to: Math.min(end, at + memory), isLast: false });
    await compareCounts(walk, { leaks: true, errors: false }, run.report);
  }
}

/** For who relies on it: throws BlockError EIO where something could not be read that could be before. */
export async function countAgain(run: CheckRun, range: ClusterRange): Promise<Walk> {
  const walk = await countRange(run, range, 'nothing');
  if (walk.report.checkErrors > 0) {
    throw new BlockError('EIO', 'A table could be read in one pass and not in the next', { node: run.image.node });
  }
  return { ...walk, inRange: { report: run.report, tell: (line) => run.options.finding(line) } };
}
