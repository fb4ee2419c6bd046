/** What names storage past the end of the file: told, and made zeroes on demand only (Q-CHK-6). */
import { describe, expect, test } from 'vitest';
import {
  CLUSTER,
  COPIED,
  checkWhole,
  entryAt,
  entryOf,
  faultsOf,
  filledImage,
  refcountBlock,
  SOUND,
} from '../../../tests/support/qcow2-checks.ts';
import {
  makeImage,
  openDisk,
  patchWords,
  some,
  useDisk,
  viewImage,
  wordsAt,
} from '../../../tests/support/qcow2-image.ts';
import { differsAt } from '../../testing/compare-bytes.ts';

const PACKED = 1n << 62n;
const FAR = 0x1000;
const TOLD = /^ERROR: counting reference for region exceeding the end of the file by one cluster or more/;

describe('Q-CHK-6: storage past the end', () => {
  test.each([
    ['data', entryOf(FAR)],
    ['compressed data', PACKED | BigInt(FAR * CLUSTER)],
    ['preallocated zeroes', entryOf(FAR) | 1n],
  ])('%s: left by a repair, and zeroes on demand', async (_name, entry) => {
    const host = await filledImage();
    await patchWords(host, entryAt(host, 1), entry);
    const left = await checkWhole(host, { repair: 'all' });
    expect(left.lines).toContainEqual(expect.stringMatching(TOLD));
    expect(left.report.corruptions).toBe(1);
    // Only that nobody else has it is not said any more.
    expect(wordsAt(host, entryAt(host, 1))).toEqual([entry & ~COPIED]);
    const { lines, report } = await checkWhole(host, { repair: 'all', zeroBeyondEnd: true });
    expect(lines[0]).toBe(
      'Repairing guest offset 0x1000: host offset 0x1000000 is past the end of the file, so it reads as zeroes now',
    );
    expect(report).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
    expect(faultsOf(host)).toEqual(SOUND);
    const expected = some(1, 4 * CLUSTER).fill(0, CLUSTER, 2 * CLUSTER);
    expect(
      differsAt(
        viewImage(host)
          .content()
          .subarray(0, 4 * CLUSTER),
        expected,
      ),
    ).toBe(-1);
  });

  test('of a snapshot', async () => {
    const host = await filledImage();
    await useDisk(host, (disk) => disk.snapshots.create('s'));
    const [table = 0n] = wordsAt(host, 64);
    const [l1 = 0n] = wordsAt(host, Number(table));
    const [l2 = 0n] = wordsAt(host, Number(l1));
    await patchWords(host, Number(l2 & 0xffff_fe00n) + 8, BigInt(FAR * CLUSTER));
    const { lines, report } = await checkWhole(host, { repair: 'all', zeroBeyondEnd: true });
    expect(lines[0]).toMatch(/^Repairing guest offset 0x1000 of snapshot 1 \(s\): host offset 0x1000000 is past/);
    expect(report).toMatchObject({ corruptions: 0, leaks: 0 });
    expect(faultsOf(host)).toEqual(SOUND);
  });

  test('an L2 table: all below it is zeroes', async () => {
    const host = await filledImage();
    await patchWords(host, Number(wordsAt(host, 40)[0]), entryOf(FAR));
    const { lines, report } = await checkWhole(host, { repair: 'all', zeroBeyondEnd: true });
    expect(lines[0]).toMatch(/^Repairing guest offset 0x0: host offset 0x1000000 is past the end/);
    expect(report).toMatchObject({ corruptions: 0, leaks: 0 });
    expect(
      viewImage(host)
        .content()
        .every((byte) => byte === 0),
    ).toBe(true);
    await useDisk(host, (disk) => disk.write(0, some(5, CLUSTER)));
    expect(faultsOf(host)).toEqual(SOUND);
  });

  test.each([10, 11, 13])('a new refcount structure does not go where entries name cluster %d', async (cluster) => {
    const host = await filledImage();
    await patchWords(host, entryAt(host, 1), entryOf(cluster));
    await patchWords(host, refcountBlock(host) + 8, 0x0001_0000_0000_0001n);
    const { lines, report } = await checkWhole(host, { repair: 'all' });
    expect(lines).toContain('Rebuilding refcount structure');
    expect(report.corruptions).toBe(1);
    expect(viewImage(host).references.get(cluster)).toBe(1);
    expect(refcountBlock(host)).toBe((cluster + 1) * CLUSTER);
    const { report: again } = await checkWhole(host, { repair: 'all' });
    expect(again).toMatchObject({ corruptions: 0, leaks: 0 });
    expect(faultsOf(host)).toEqual(SOUND);
  });

  test('data that get storage of their own do not get it there', async () => {
    const host = await filledImage();
    // More of them than the file has free clusters.
    await patchWords(host, entryAt(host, 1), entryOf(10), ...Array<bigint>(8).fill(entryOf(5)));
    await checkWhole(host, { repair: 'all' });
    expect(viewImage(host).references.get(10)).toBe(1);
    const data = some(1, CLUSTER);
    for (const guest of [0, 2, 9]) {
      const content = viewImage(host)
        .content()
        .subarray(guest * CLUSTER, (guest + 1) * CLUSTER);
      expect(differsAt(content, data)).toBe(-1);
    }
  });

  test('with subclusters', async () => {
    const options = { cluster_size: 16384, extended_l2: true };
    const host = await makeImage(options, { base: some(3, 1 << 17) });
    await useDisk(host, (disk) => disk.write(16384, some(1, 16384)));
    const [l1 = 0n] = wordsAt(host, Number(wordsAt(host, 40)[0]));
    await patchWords(host, Number(l1 & 0xffff_fe00n) + 16, (1n << 63n) | 0x10000000n);
    expect((await checkWhole(host, { repair: 'all', zeroBeyondEnd: true })).report).toMatchObject({ corruptions: 0 });
    const disk = await openDisk(host, {}, {});
    expect((await disk.read(16384, 16384)).every((byte) => byte === 0)).toBe(true);
    await disk.close();
  });

  test('where the backing file would show instead: left, with the reason', async () => {
    const host = await makeImage(
      { cluster_size: CLUSTER, compat: '0.10' },
      { size: 16 * CLUSTER, base: some(3, 9000) },
    );
    await useDisk(host, (disk) => disk.write(0, some(1, 4 * CLUSTER)));
    await patchWords(host, entryAt(host, 1), entryOf(FAR));
    const { details, report } = await checkWhole(host, { repair: 'all', zeroBeyondEnd: true });
    expect(details).toContain(
      'guest offset 0x1000 is left with what is past the end of the file at host offset 0x1000000: else the backing file would show there',
    );
    expect(report.corruptions).toBe(1);
    expect(wordsAt(host, entryAt(host, 1))).toEqual([entryOf(FAR) & ~COPIED]);
  });
});
