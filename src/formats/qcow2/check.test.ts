/** What a check finds and repairs, on images broken by hand (Q-CHK). */
import { describe, expect, test } from 'vitest';
import {
  CLUSTER,
  COPIED,
  changeCount,
  checkImage,
  checkWhole,
  entryAt,
  entryOf,
  filledImage,
  refcountBlock,
} from '../../../tests/support/qcow2-checks.ts';
import { makeImage, patchWords, some, useDisk, viewImage, wordsAt } from '../../../tests/support/qcow2-image.ts';

describe('counts (Q-CHK-1, Q-CHK-2)', () => {
  test('a sound image', async () => {
    const { lines, report } = await checkImage(await filledImage());
    expect(lines).toEqual([]);
    expect(report).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
  });

  test('counts that are too low and too high, told and mended', async () => {
    const host = await filledImage();
    // Clusters 4 to 7 of the file are the L2 table and data, 8 too; 9 is nothing.
    await patchWords(host, refcountBlock(host) + 8, 0x0001_0001_0000_0001n);
    await patchWords(host, refcountBlock(host) + 16, 0x0001_0003_0000_0000n);
    expect(await checkImage(host)).toMatchObject({
      lines: ['ERROR cluster 6 refcount=0 reference=1', 'Leaked cluster 9 refcount=3 reference=0', expect.any(String)],
      report: { corruptions: 2, leaks: 1 },
    });
    expect((await checkImage(host, { repair: 'all' })).lines).toContain('Rebuilding refcount structure');
    expect([viewImage(host).problems, viewImage(host).leaks]).toEqual([[], []]);
    expect((await checkImage(host)).report).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  test('Q-CHK-4: of leaks alone, nothing else is touched', async () => {
    const host = await filledImage();
    await patchWords(host, refcountBlock(host) + 16, 0x0001_0003_0000_0000n);
    const { lines, report } = await checkImage(host, { repair: 'leaks' });
    expect(lines).toEqual(['Leaked cluster 9 refcount=3 reference=0', 'Repairing cluster 9 refcount=3 reference=0']);
    expect(report).toMatchObject({ leaks: 0, leaksFixed: 1, corruptions: 0 });
    expect(viewImage(host).leaks).toEqual([]);
  });

  test('dirty and corrupt marks are taken away when nothing is wrong any more, and only then', async () => {
    const host = await filledImage();
    await patchWords(host, 72, 3n);
    await checkImage(host);
    expect(wordsAt(host, 72)).toEqual([3n]);
    await checkImage(host, { repair: 'leaks' });
    expect(wordsAt(host, 72)).toEqual([0n]);
  });

  test('Q-CHK-5: fragments, allocation, the end', async () => {
    const host = await filledImage();
    await patchWords(host, entryAt(host, 1), entryOf(8), entryOf(7), entryOf(6));
    const { report } = await checkImage(host);
    expect(report).toMatchObject({
      totalClusters: 16,
      allocatedClusters: 4,
      fragmentedClusters: 3,
      compressedClusters: 0,
      imageEndOffset: 9 * CLUSTER,
    });
  });

  test('Q-CHK-4, Q-CHK-6: bits that must be zero are cleared, and preallocated storage that cannot be is given up', async () => {
    const host = await filledImage();
    const [first = 0n] = wordsAt(host, entryAt(host, 0));
    await patchWords(host, entryAt(host, 0), first | (1n << 58n), COPIED | 0x12345601n);
    const { lines, report } = await checkImage(host, { repair: 'all' });
    expect(lines.slice(0, 2)).toEqual([
      'Repairing found l2 entry with reserved bits set: 8400000000005000',
      'Repairing offset=12345600: Preallocated cluster is not properly aligned; L2 entry corrupted.',
    ]);
    expect(report).toMatchObject({ corruptions: 0, leaks: 0, corruptionsFixed: 2, leaksFixed: 1 });
    expect(wordsAt(host, entryAt(host, 0), 2)).toEqual([first, 1n]);
    expect([viewImage(host).problems, viewImage(host).leaks]).toEqual([[], []]);
  });

  test('Q-CHK-3: more uses than a count can hold', async () => {
    const host = await makeImage({ cluster_size: CLUSTER, refcount_bits: 1 });
    await useDisk(host, (disk) => disk.write(0, some(1, 2 * CLUSTER)));
    await patchWords(host, entryAt(host, 1), entryOf(5));
    const { lines, report } = await checkImage(host);
    expect(lines).toEqual([
      'ERROR: overflow cluster offset=0x5000',
      'Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a clean copy if the image cannot be opened for writing',
      'Leaked cluster 6 refcount=1 reference=0',
    ]);
    expect(report).toMatchObject({ corruptions: 1, leaks: 1 });
  });

  test('Q-CHK-7: counters of few bytes take more passes, and find the same', async () => {
    const host = await filledImage();
    await patchWords(host, refcountBlock(host) + 8, 0x0001_0002_0000_0001n);
    await patchWords(host, entryAt(host, 3), entryOf(5));
    const whole = await checkImage(host);
    const passes = await checkImage(host, { memory: 3 });
    expect(passes.lines).toEqual(whole.lines);
    expect(passes.report).toEqual(whole.report);
    expect(whole.report.corruptions).toBeGreaterThan(2);
  });
});

describe('storage that two have (Q-CHK-6)', () => {
  test('data of two guest clusters: who shares is told, and each gets its own', async () => {
    const host = await filledImage();
    await patchWords(host, entryAt(host, 2), entryOf(5));
    const before = viewImage(host).content();
    const found = await checkImage(host);
    expect(found.details).toEqual(['cluster 5 holds data of guest offset 0x2000 and data of guest offset 0x0']);
    expect(found.report).toMatchObject({ corruptions: 1, leaks: 1 });
    const { repaired, report } = await checkWhole(host, { repair: 'all' });
    expect(report).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
    expect(repaired?.corruptions).toBeGreaterThan(0);
    await useDisk(host, (disk) => disk.write(2 * CLUSTER, some(9, CLUSTER)));
    const { problems, leaks, content } = viewImage(host);
    expect([problems, leaks]).toEqual([[], []]);
    expect(content().subarray(0, CLUSTER)).toEqual(before.subarray(0, CLUSTER));
    expect(content().subarray(2 * CLUSTER, 3 * CLUSTER)).toEqual(some(9, CLUSTER));
  });

  test.each([
    ['L1 table', 3, 'active L1 table'],
    ['L2 table', 4, 'active L2 table'],
    ['refcount block', 2, 'refcount block'],
  ])('data and the %s: the data go elsewhere, and metadata stay', async (_name, cluster, text) => {
    const host = await filledImage();
    await patchWords(host, entryAt(host, 1), entryOf(cluster));
    const found = await checkImage(host);
    expect(found.details).toEqual([`cluster ${cluster} holds data of guest offset 0x1000 and the ${text}`]);
    const { report } = await checkWhole(host, { repair: 'all' });
    expect(report).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
    await useDisk(host, (disk) => disk.write(CLUSTER, new Uint8Array(CLUSTER)));
    expect([viewImage(host).problems, viewImage(host).leaks]).toEqual([[], []]);
  });

  test('data in an L2 table, where counts allow for it: damage, but not to the programs of QEMU', async () => {
    const host = await filledImage();
    await patchWords(host, entryAt(host, 1), BigInt(4 * CLUSTER));
    await patchWords(host, Number(wordsAt(host, 40)[0]), BigInt(4 * CLUSTER));
    await changeCount(host, 4, 1n);
    await changeCount(host, 6, -1n);
    expect(await checkImage(host)).toMatchObject({
      lines: [],
      details: ['cluster 4 holds data of guest offset 0x1000 and the active L2 table'],
      report: { corruptions: 1, leaks: 0 },
    });
    const asQemu = await checkImage(host, { countsOnly: true });
    expect(asQemu).toMatchObject({ lines: [], details: [], report: { corruptions: 0, leaks: 0 } });
    const { report } = await checkWhole(host, { repair: 'all' });
    expect(report).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
    expect([viewImage(host).problems, viewImage(host).leaks]).toEqual([[], []]);
  });

  test.each([undefined, 3])(
    'a count behind the end of the file, which a repair makes longer (memory: %s)',
    async (memory) => {
      const host = await filledImage();
      await patchWords(host, entryAt(host, 2), ...Array<bigint>(6).fill(entryOf(5)));
      await changeCount(host, 10, 1n);
      const before = await checkImage(host);
      expect(before.lines).not.toContainEqual(expect.stringContaining('cluster 10 '));
      const { report } = await checkWhole(host, { repair: 'all', ...(memory === undefined ? {} : { memory }) });
      expect(report).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
      expect([viewImage(host).problems, viewImage(host).leaks]).toEqual([[], []]);
    },
  );

  test('machine state behind the disk gets its own too', async () => {
    const host = await filledImage();
    await patchWords(host, entryAt(host, 20), entryOf(5));
    const { report, details } = await checkWhole(host, { repair: 'all' });
    expect(details).toContain('Repairing guest offset 0x14000: it has storage of its own now');
    expect(report).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
    expect([viewImage(host).problems, viewImage(host).leaks]).toEqual([[], []]);
  });

  test('where counts say that two have it, nothing is wrong about that', async () => {
    const host = await filledImage();
    await patchWords(host, entryAt(host, 2), BigInt(5 * CLUSTER));
    await patchWords(host, entryAt(host, 0), BigInt(5 * CLUSTER));
    await patchWords(host, refcountBlock(host) + 8, 0x0001_0002_0001_0000n);
    await patchWords(host, refcountBlock(host) + 16, 0x0001_0000_0000_0000n);
    expect(await checkImage(host)).toMatchObject({ details: [], lines: [], report: { corruptions: 0, leaks: 0 } });
  });
});
