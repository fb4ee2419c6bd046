import { describe, expect, test } from 'vitest';
import type { CheckReport } from '../../core/driver.ts';
import { plannedJson, plannedText, repairedText, reportJson, reportText } from './check-result.ts';
import { jsonText } from './json.ts';

const CLEAN: CheckReport = { corruptions: 0, leaks: 0, checkErrors: 0, corruptionsFixed: 0, leaksFixed: 0 };

describe('the result of a check for people (T-CHECK-2)', () => {
  test('nothing found', () => expect(reportText(CLEAN)).toBe('No errors were found on the image.\n'));

  test('each kind of finding has its paragraph', () => {
    expect(reportText({ ...CLEAN, corruptions: 2, leaks: 3, checkErrors: 1 })).toBe(
      `
2 errors were found on the image.
Data may be corrupted, or further writes to the image may corrupt it.

3 leaked clusters were found on the image.
This means waste of disk space, but no harm to data.

1 internal errors have occurred during the check.
`,
    );
  });

  test('what a repair would do, and what it would leave', () => {
    const planned = { leaks: 2, corruptions: 3, left: CLEAN };
    expect(plannedText(planned)).toBe(
      `Nothing was written. This would be repaired:

    2 leaked clusters
    3 corruptions

Nothing would be wrong with the image then. What is wrong now:
`,
    );
    const left = { ...CLEAN, corruptions: 1 };
    expect(plannedText({ ...planned, left })).toContain(
      '\nWhat would be left: 0 leaked clusters, 1 corruptions, 0 internal errors. What is wrong now:\n',
    );
    expect(plannedJson({ ...planned, left })).toEqual({
      'leaks-fixed': 2,
      'corruptions-fixed': 3,
      left: { leaks: 0, corruptions: 1, 'check-errors': 0 },
    });
  });

  test('statistics only when total and allocated are known and not zero', () => {
    const counted = {
      ...CLEAN,
      totalClusters: 16384,
      allocatedClusters: 4,
      fragmentedClusters: 1,
      compressedClusters: 1,
    };
    expect(reportText({ ...counted, imageEndOffset: 589824 })).toBe(
      `No errors were found on the image.
4/16384 = 0.02% allocated, 25.00% fragmented, 25.00% compressed clusters
Image end offset: 589824
`,
    );
    expect(reportText({ ...counted, allocatedClusters: 0 })).toBe('No errors were found on the image.\n');
  });

  test('repairs are told before the second look (T-CHECK-3)', () => {
    expect(repairedText({ leaks: 2, corruptions: 0 })).toBe(
      `The following inconsistencies were found and repaired:

    2 leaked clusters
    0 corruptions

Double checking the fixed image now...
`,
    );
  });
});

test('the result of a check as JSON: names and check-errors always, the rest when not zero (T-CHECK-4)', () => {
  expect(jsonText(reportJson('v.vdi', 'vdi', CLEAN))).toBe(
    '{\n    "check-errors": 0,\n    "filename": "v.vdi",\n    "format": "vdi"\n}',
  );
  const report = {
    ...CLEAN,
    corruptions: 2,
    leaksFixed: 1,
    imageEndOffset: 589824,
    totalClusters: 4,
    allocatedClusters: 0,
  };
  expect(Object.keys(JSON.parse(jsonText(reportJson('a', 'qcow2', report))))).toEqual([
    'image-end-offset',
    'total-clusters',
    'corruptions',
    'check-errors',
    'leaks-fixed',
    'filename',
    'format',
  ]);
});
