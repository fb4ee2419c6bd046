/** Check and repair (Q-CHK): references are counted, compared, and what is wrong is told in qemu-img's lines. */
import type { CheckOptions, CheckReport } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { mendBitmaps } from './bitmaps/check.ts';
import { compareCounts } from './check-compare.ts';
import { checkCopied } from './check-copied.ts';
import { mendTables } from './check-mend.ts';
import { findShared, separate } from './check-shared.ts';
import { checkSnapshotTable, rewriteSnapshotTable } from './check-snapshots.ts';
import { clustersOf, type Walk, walkImage } from './check-walk.ts';
import { writeFeatures } from './corruption.ts';
import { Incompatible } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { rebuildRefcounts } from './rebuild.ts';
import { ReferenceCounts } from './reference-counts.ts';
import { requireDisk } from './snapshots.ts';
import { flushAll } from './write-back.ts';

/** Bytes of counters: clusters whose references are counted in one pass have one each. */
const MEMORY = 64 << 20;
const NO_FIXES = { leaks: false, errors: false };

export async function check(image: Qcow2Image, options: CheckOptions): Promise<CheckReport> {
  requireDisk(image);
  await image.refcounts.ready();
  if (image.writable && image.broken === undefined) await flushAll(image);
  const faults = await checkSnapshotTable(image, options);
  const mends = options.repair === 'all';
  const report = await run(image, options, mends ? 0 : faults);
  if (mends && faults > 0) await mendSnapshotTable(image, options, report, faults);
  if (options.repair !== 'none') await settle(image, report);
  return report;
}

/** Last, when counts are right. */
async function mendSnapshotTable(
  image: Qcow2Image,
  { finding }: CheckOptions,
  report: CheckReport,
  faults: number,
): Promise<void> {
  try {
    await rewriteSnapshotTable(image);
    await flushAll(image);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    finding(`ERROR failed to update snapshot table: ${error.message}`);
    report.corruptions += faults;
    report.checkErrors++;
    return;
  }
  report.corruptionsFixed += faults;
}

/** After a crash with lazy refcounts (Q-FEAT-3). */
export async function repairDirty(image: Qcow2Image): Promise<void> {
  const report = await run(image, { repair: 'all', finding: (line) => image.host.notice(line) });
  await settle(image, report);
}

function emptyReport(image: Qcow2Image): CheckReport {
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

/** `faults`: corruptions that were found before. */
async function run(image: Qcow2Image, options: CheckOptions, faults = 0): Promise<CheckReport> {
  const clusters = clustersOf(image);
  const report = emptyReport(image);
  report.corruptions = faults;
  const { memory = MEMORY } = options;
  if (clusters > memory && options.repair === 'none') return inPasses(image, options, report, clusters);
  if (options.repair === 'all') {
    await mendTables(image, report, options);
    await mendBitmaps(image, report, options);
  }
  const walk = await countAll(image, options, report, options.repair === 'all', { from: 0, to: clusters });
  // What a table that cannot be read refers to looks like leaks.
  const isCounted = report.checkErrors === 0;
  const shared = await findShared(walk);
  const before = { ...report };
  let usedEnd = await compareCounts(walk, NO_FIXES);
  if (options.repair !== 'none' && isCounted) {
    if (walk.rebuild && options.repair === 'all') {
      // What could not be read of the old structure is none of the new one's errors.
      report.checkErrors = before.checkErrors;
      usedEnd = await rebuild(walk, options);
    } else if (walk.rebuild) {
      options.finding('ERROR need to rebuild refcount structures');
      throw new BlockError('EIO', 'Input/output error', { node: image.node });
    } else if (report.leaks > 0 || report.corruptions > 0) {
      report.leaks = before.leaks;
      report.corruptions = before.corruptions;
      usedEnd = await compareCounts(walk, { leaks: true, errors: options.repair === 'all' });
    }
  }
  const isElseSound = report.corruptions + report.leaks + report.checkErrors === 0;
  if (!isElseSound || !isAllAlone(walk)) {
    await checkCopied(walk, options.repair === 'all' || (options.repair === 'leaks' && isElseSound));
  }
  if (options.repair === 'all' && shared.length > 0) {
    const mended = await separate(walk, shared);
    report.corruptions = Math.max(0, report.corruptions - mended);
    usedEnd = Math.max(usedEnd, clustersOf(image));
    // Who keeps the storage is alone with it now.
    await checkCopied({ ...walk, report: emptyReport(image), tell: () => {} }, true);
  }
  report.imageEndOffset = usedEnd * image.layout.clusterSize;
  return report;
}

/** Where counts are right, and nothing is used twice, all copied bits must be set: there is no need to look at each. */
function isAllAlone({ image, doubtful, uncopied }: Walk): boolean {
  return !doubtful && uncopied === 0 && image.snapshots.length === 0;
}

async function countAll(
  image: Qcow2Image,
  options: CheckOptions,
  report: CheckReport,
  repairing: boolean,
  { from, to }: { readonly from: number; readonly to: number },
): Promise<Walk> {
  const walk: Walk = {
    image,
    references: new ReferenceCounts(from, to),
    report,
    repairing,
    signal: options.signal,
    tell: (line) => options.finding(line),
    detail: (line) => options.detail?.(line),
    rebuild: false,
    doubtful: false,
    uncopied: 0,
    packed: undefined,
  };
  await walkImage(walk);
  return walk;
}

/** Very large files: the tables are walked once for each part of the file, and told of the first time (Q-CHK-7). */
async function inPasses(
  image: Qcow2Image,
  options: CheckOptions,
  report: CheckReport,
  clusters: number,
): Promise<CheckReport> {
  let usedEnd = 0;
  const { memory = MEMORY } = options;
  for (let from = 0; from < clusters; from += memory) {
    const range = { from, to: Math.min(clusters, from + memory) };
    const silent = { ...options, finding: () => {} };
    const walk = await countAll(
      image,
      from === 0 ? options : silent,
      from === 0 ? report : emptyReport(image),
      false,
      range,
    );
    usedEnd = Math.max(usedEnd, await compareCounts({ ...walk, report, tell: options.finding }, NO_FIXES));
    if (range.to === clusters) await checkCopied({ ...walk, report, tell: options.finding }, false);
  }
  report.imageEndOffset = usedEnd * image.layout.clusterSize;
  return report;
}

/** What was wrong with counts is right then; the old structure is given up. */
async function rebuild(walk: Walk, options: CheckOptions): Promise<number> {
  const { image, report } = walk;
  options.finding('Rebuilding refcount structure');
  await rebuildRefcounts(walk);
  const fixed = { corruptions: report.corruptions, leaks: report.leaks };
  const again = emptyReport(image);
  const second = await countAll(image, options, again, false, { from: 0, to: clustersOf(image) });
  const usedEnd = await compareCounts(second, { leaks: true, errors: false });
  report.corruptionsFixed += Math.max(0, fixed.corruptions - again.corruptions);
  report.leaksFixed += Math.max(0, fixed.leaks - again.leaks);
  report.corruptions = again.corruptions;
  report.leaks = again.leaks;
  report.checkErrors += again.checkErrors;
  return usedEnd;
}

/** Makes repairs durable; an image without errors is neither dirty nor corrupt any more. */
async function settle(image: Qcow2Image, report: CheckReport): Promise<void> {
  const { refcounts, file, header } = image;
  await refcounts.writeBack();
  await file.flush();
  if (report.corruptions > 0 || report.checkErrors > 0) return;
  const marks = Incompatible.dirty | Incompatible.corrupt;
  if ((header.incompatible & marks) === 0n) return;
  header.incompatible &= ~marks;
  await writeFeatures(image);
  await file.flush();
  image.dirtyBitSet = false;
}
