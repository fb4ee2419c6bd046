/** What a check found, for people and as JSON (T-CHECK-2 to T-CHECK-4). */
import type { CheckReport } from '../../core/driver.ts';
import type { CheckResult } from '../../jobs/check.ts';
import type { JsonObject } from './json.ts';

/** What was repaired, before the second look. */
export function repairedText({ leaks, corruptions }: NonNullable<CheckResult['repaired']>): string {
  return [
    'The following inconsistencies were found and repaired:',
    '',
    `    ${leaks} leaked clusters`,
    `    ${corruptions} corruptions`,
    '',
    'Double checking the fixed image now...',
    '',
  ].join('\n');
}

type Planned = NonNullable<CheckResult['planned']>;

/** What a repair would do, before what is the matter now. */
export function plannedText({ leaks, corruptions, left }: Planned): string {
  const found = left.leaks + left.corruptions + left.checkErrors;
  const rest = `${left.leaks} leaked clusters, ${left.corruptions} corruptions, ${left.checkErrors} internal errors`;
  return [
    'Nothing was written. This would be repaired:',
    '',
    `    ${leaks} leaked clusters`,
    `    ${corruptions} corruptions`,
    '',
    found === 0
      ? 'Nothing would be wrong with the image then. What is wrong now:'
      : `What would be left: ${rest}. What is wrong now:`,
    '',
  ].join('\n');
}

export function plannedJson({ leaks, corruptions, left }: Planned): JsonObject {
  return {
    'leaks-fixed': leaks,
    'corruptions-fixed': corruptions,
    left: { leaks: left.leaks, corruptions: left.corruptions, 'check-errors': left.checkErrors },
  };
}

export function reportText(report: CheckReport): string {
  const { corruptions, leaks, checkErrors } = report;
  const lines: string[] = [];
  if (corruptions === 0 && leaks === 0 && checkErrors === 0) lines.push('No errors were found on the image.');
  if (corruptions > 0) {
    lines.push('', `${corruptions} errors were found on the image.`);
    lines.push('Data may be corrupted, or further writes to the image may corrupt it.');
  }
  if (leaks > 0) {
    lines.push('', `${leaks} leaked clusters were found on the image.`);
    lines.push('This means waste of disk space, but no harm to data.');
  }
  if (checkErrors > 0) lines.push('', `${checkErrors} internal errors have occurred during the check.`);
  lines.push(...statistics(report));
  if (report.imageEndOffset !== undefined && report.imageEndOffset > 0) {
    lines.push(`Image end offset: ${report.imageEndOffset}`);
  }
  return lines.map((line) => `${line}\n`).join('');
}

/** As C prints it: what lies in the middle goes to the even digit. */
function percent(part: number, whole: number): string {
  const share = (part / whole) * 100;
  const eighths = share * 8;
  // Only odd eighths lie in the middle between two hundredths.
  const isMiddle = Number.isInteger(eighths) && eighths % 2 === 1;
  const text = share.toFixed(2);
  return isMiddle && Number(text.at(-1)) % 2 === 1 ? `${(share - 0.005).toFixed(2)}%` : `${text}%`;
}

/** Shares of all clusters, and of the allocated ones. */
function statistics(report: CheckReport): string[] {
  const { totalClusters = 0, allocatedClusters = 0, fragmentedClusters = 0, compressedClusters = 0 } = report;
  if (totalClusters === 0 || allocatedClusters === 0) return [];
  const shares = [
    `${allocatedClusters}/${totalClusters} = ${percent(allocatedClusters, totalClusters)} allocated`,
    `${percent(fragmentedClusters, allocatedClusters)} fragmented`,
    `${percent(compressedClusters, allocatedClusters)} compressed clusters`,
  ];
  return [shares.join(', ')];
}

export function reportJson(filename: string, format: string, report: CheckReport): JsonObject {
  const counts = {
    'image-end-offset': report.imageEndOffset,
    'total-clusters': report.totalClusters,
    'allocated-clusters': report.allocatedClusters,
    'fragmented-clusters': report.fragmentedClusters,
    'compressed-clusters': report.compressedClusters,
    corruptions: report.corruptions,
    leaks: report.leaks,
    'corruptions-fixed': report.corruptionsFixed,
    'leaks-fixed': report.leaksFixed,
  };
  const present = Object.entries(counts).filter(([, count]) => count !== undefined && count !== 0);
  return { filename, format, 'check-errors': report.checkErrors, ...Object.fromEntries(present) };
}
