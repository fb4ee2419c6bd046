/** Check and repair (Q-CHK): references are counted, compared, and what is wrong is told in qemu-img's lines. */
import type { CheckOptions, CheckReport } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { mendBitmaps } from './bitmaps/check.ts';
import { compareCounts } from './check-compare.ts';
import { testCompressed } from './check-compressed.ts';
import { checkCopied } from './check-copied.ts';
import { separateInactive } from './check-inactive.ts';
import { mendTables } from './check-mend.ts';
import {
  type CheckRun,
  correctCounts,
  correctLeaksFrom,
  countAgain,
  countRange,
  emptyReport,
  passesOf,
  rangesOf,
  type Survey,
  survey,
} from './check-passes.ts';
import { type SharedCluster, type SharedData, separate } from './check-shared.ts';
import { checkSnapshotTable, rewriteSnapshotTable } from './check-snapshots.ts';
import { stepsOf } from './check-steps.ts';
import { clustersOf, type Walk } from './check-walk.ts';
import { writeFeatures } from './corruption.ts';
import { Incompatible } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { rebuildRefcounts } from './rebuild.ts';
import type { ReferenceCounts } from './reference-counts.ts';
import { requireDisk } from './snapshots.ts';
import { flushAll } from './write-back.ts';

export async function check(image: Qcow2Image, options: CheckOptions): Promise<CheckReport> {
  requireDisk(image);
  await image.refcounts.ready();
  if (image.writable && image.broken === undefined) await flushAll(image);
  const faults = await checkSnapshotTable(image, options);
  const mends = options.repair === 'all';
  const report = await run(image, options, mends ? 0 : faults);
  if (mends && faults > 0) await mendSnapshotTable(image, options, report, faults);
  if (options.repair !== 'none') await settle(image, report, options.detail);
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

/** After a crash with lazy refcounts (Q-FEAT-3). What was found is warned of, as by QEMU's programs. */
export async function repairDirty(image: Qcow2Image): Promise<void> {
  const report = await run(image, { repair: 'all', finding: (line) => image.host.warn(line) });
  await settle(image, report);
}

/** `faults`: corruptions that were found before. */
async function run(image: Qcow2Image, options: CheckOptions, faults = 0): Promise<CheckReport> {
  const report = emptyReport(image);
  report.corruptions = faults;
  const step = stepsOf(image, options, passesOf(image, options));
  const checkRun: CheckRun = { image, options, report, step };
  if (options.repair === 'all') {
    await mendTables(checkRun);
    await mendBitmaps(image, report, options);
  }
  const found = await survey(checkRun);
  const { walk, shared } = found;
  let usedEnd = await settleCounts(checkRun, found);
  // Nor is anything else that a repair makes to lie where entries past the end would find it.
  image.refcounts.hint = Math.max(image.refcounts.hint, walk.strayEnd);
  const told: Walk = { ...walk, report, tell: (line) => options.finding(line) };
  const isElseSound = report.corruptions + report.leaks + report.checkErrors === 0;
  if (!isElseSound || !isAllAlone(walk)) {
    await checkCopied(told, options.repair === 'all' || (options.repair === 'leaks' && isElseSound));
  }
  if (options.repair === 'all' && shared.active.size + shared.crossed.size > 0) {
    const before = clustersOf(image);
    const mended = (await separate(told, inOrder(shared.active))) + (await separateInactive(told, shared.crossed));
    report.corruptions = Math.max(0, report.corruptions - mended);
    if (found.isCounted) await correctLeaksFrom(checkRun, before);
    usedEnd = Math.max(usedEnd, clustersOf(image));
    // Who keeps the storage is alone with it now.
    await checkCopied({ ...told, report: emptyReport(image), tell: () => {} }, true);
  }
  if (options.decompress === true) await testCompressed(told);
  report.imageEndOffset = usedEnd * image.layout.clusterSize;
  return report;
}

/** As the disk has them, however many passes it took to find them. */
function inOrder(shared: SharedData['active']): SharedCluster[] {
  return [...shared.values()].sort((a, b) => a.guest - b.guest);
}

/** Corrects counts as far as the mode says. Resolves with the cluster behind the last that is used or counted. */
async function settleCounts(checkRun: CheckRun, found: Survey): Promise<number> {
  const { image, options, report } = checkRun;
  const { walk, differences, usedEnd, isCounted } = found;
  const all = options.repair === 'all';
  const wrong = report.corruptions + report.leaks + differences.corruptions + differences.leaks;
  if (options.repair === 'none' || !isCounted || (!walk.rebuild && wrong === 0)) {
    addCounts(report, differences);
    report.checkErrors += differences.checkErrors;
    return usedEnd;
  }
  if (!walk.rebuild) {
    report.checkErrors += differences.checkErrors;
    return correctCounts(checkRun, found, { leaks: true, errors: all });
  }
  if (all) {
    // What could not be read of the old structure is none of the new one's errors.
    addCounts(report, differences);
    return rebuild(checkRun, found);
  }
  options.finding('ERROR need to rebuild refcount structures');
  throw new BlockError('EIO', 'Input/output error', { node: image.node });
}

function addCounts(report: CheckReport, { corruptions, leaks }: CheckReport): void {
  report.corruptions += corruptions;
  report.leaks += leaks;
}

/** Where counts are right, and nothing is used twice, all copied bits must be set: there is no need to look at each. */
function isAllAlone({ image, doubtful, uncopied }: Walk): boolean {
  return !doubtful && uncopied === 0 && image.snapshots.length === 0;
}

/** What was wrong with counts is right then; the old structure is given up. */
async function rebuild(checkRun: CheckRun, found: Survey): Promise<number> {
  const { image, report, options } = checkRun;
  options.finding('Rebuilding refcount structure');
  // Entries may name what lies past the end, and must not find the new structure there.
  await rebuildRefcounts(image, countedAnew(checkRun, found), found.walk.strayEnd);
  const fixed = { corruptions: report.corruptions, leaks: report.leaks };
  const again = emptyReport(image);
  const second = { ...checkRun, report: again, options: { ...options, repair: 'none' as const } };
  let usedEnd = 0;
  for (const range of rangesOf(image, options)) {
    const walk = await countRange(second, range, range.from === 0 ? 'all' : 'range');
    usedEnd = Math.max(usedEnd, await compareCounts(walk, { leaks: true, errors: false }, again));
  }
  report.corruptionsFixed += Math.max(0, fixed.corruptions - again.corruptions);
  report.leaksFixed += Math.max(0, fixed.leaks - again.leaks);
  report.corruptions = again.corruptions;
  report.leaks = again.leaks;
  report.checkErrors += again.checkErrors;
  return usedEnd;
}

/** References of all ranges, in order: those of the survey where it took one pass. */
async function* countedAnew(checkRun: CheckRun, { walk }: Survey): AsyncGenerator<ReferenceCounts> {
  const { image, options } = checkRun;
  // The file gets longer meanwhile.
  const ranges = [...rangesOf(image, options)];
  for (const range of ranges) {
    yield ranges.length === 1 ? walk.references : (await countAgain(checkRun, range)).references;
  }
}

/** Makes repairs durable; an image without errors is neither dirty nor corrupt any more. */
async function settle(image: Qcow2Image, report: CheckReport, detail?: (line: string) => void): Promise<void> {
  const { refcounts, file, header } = image;
  await refcounts.writeBack();
  await file.flush();
  if (report.corruptions > 0 || report.checkErrors > 0) return;
  const marks = Incompatible.dirty | Incompatible.corrupt;
  if ((header.incompatible & marks) === 0n) return;
  detail?.('Repairing the marks in the header: the image is neither dirty nor corrupt');
  header.incompatible &= ~marks;
  await writeFeatures(image);
  await file.flush();
  image.dirtyBitSet = false;
}
