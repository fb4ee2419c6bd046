/** L2 entries that cannot be as they are: what is told, in qemu-img's words, and mended (Q-CHK-3, Q-CHK-4, Q-CHK-6). */
import { describe, expect, test } from 'vitest';
import {
  COPIED,
  checkImage,
  checkWhole,
  entryAt,
  faultsOf,
  filledImage,
  refcountBlock,
  SOUND,
} from '../../../tests/support/qcow2-checks.ts';
import {
  contentsOf,
  DATA,
  firstL2,
  makeImage,
  patchWords,
  some,
  useDisk,
  wordsAt,
} from '../../../tests/support/qcow2-image.ts';
import { differsAt } from '../../testing/compare-bytes.ts';
import type { SimHost } from '../../testing/index.ts';

const CLUSTER = 16384;

/** Two compressed clusters, a whole one, nothing; entries of 16 bytes. */
async function withSubclusters(): Promise<SimHost> {
  const host = await makeImage({ cluster_size: CLUSTER, extended_l2: true });
  await useDisk(host, async (disk) => {
    await disk.write(0, some(1, 2 * CLUSTER).fill(7, 500), { compressed: true });
    await disk.write(2 * CLUSTER, some(2, CLUSTER));
  });
  return host;
}

const hexOf = (word: bigint | undefined) => `0x${(word ?? 0n).toString(16)}`;

describe('compressed clusters', () => {
  test.each([
    ['allocated', 1n],
    ['zero', 1n << 32n],
    ['both', (1n << 64n) - 1n],
  ])('with subclusters that are %s', async (_name, bitmap) => {
    const host = await withSubclusters();
    const at = firstL2(host) + 16;
    const [entry] = wordsAt(host, at);
    await patchWords(host, at + 8, bitmap);
    const before = contentsOf(host);
    const what = `compressed cluster 1 with non-zero subcluster allocation bitmap, entry=${hexOf(entry)}`;
    const { lines, report } = await checkImage(host);
    expect(lines).toEqual([`ERROR ${what}`, expect.stringMatching(/^Leaked cluster 5 refcount=2 reference=1$/)]);
    expect(report).toMatchObject({ corruptions: 1, leaks: 1, allocatedClusters: 2, compressedClusters: 1 });
    const mended = await checkWhole(host, { repair: 'all' });
    expect(mended.lines).toEqual([`Repairing ${what}`]);
    expect(mended.report).toMatchObject({ corruptions: 0, leaks: 0, corruptionsFixed: 1, leaksFixed: 0 });
    expect(wordsAt(host, at, 2)).toEqual([entry, 0n]);
    expect(faultsOf(host)).toEqual(SOUND);
    expect(differsAt(contentsOf(host).disk, before.disk)).toBe(-1);
  });

  test('with such a bitmap: a repair of leaks does not give up what can be read', async () => {
    const host = await withSubclusters();
    await patchWords(host, firstL2(host) + 24, 1n);
    const { report, lines } = await checkImage(host, { repair: 'leaks' });
    expect(lines).toEqual([expect.stringMatching(/^ERROR compressed cluster 1 /)]);
    expect(report).toMatchObject({ corruptions: 1, leaks: 0, leaksFixed: 0 });
    await patchWords(host, firstL2(host) + 24, 0n);
    expect(faultsOf(host)).toEqual(SOUND);
  });

  test('that are said to be used once', async () => {
    const host = await withSubclusters();
    const at = firstL2(host) + 16;
    const [entry = 0n] = wordsAt(host, at);
    await patchWords(host, at, entry | COPIED);
    const { lines, report } = await checkImage(host);
    const what = expect.stringMatching(/coffset=0x14[0-9a-f]+: copied flag must never be set for compressed clusters$/);
    expect(lines).toEqual([what]);
    expect(report).toMatchObject({ corruptions: 1, leaks: 0 });
    const mended = await checkWhole(host, { repair: 'all' });
    expect(mended.lines).toEqual([what]);
    expect(mended.report).toMatchObject({ corruptions: 0, leaks: 0, corruptionsFixed: 1 });
    expect(wordsAt(host, at)).toEqual([entry]);
  });
});

describe('subclusters that are allocated and zero', () => {
  const OVERLAP = (3n << 32n) | 6n;

  test('of a cluster without storage: it has no storage for them', async () => {
    const host = await withSubclusters();
    await patchWords(host, firstL2(host) + 3 * 16, 0n, OVERLAP);
    const { lines, report } = await checkImage(host);
    expect(lines).toEqual(['ERROR: Unallocated cluster has non-zero subcluster allocation map']);
    expect(report).toMatchObject({ corruptions: 1, allocatedClusters: 3 });
  });

  test('of the first cluster of a data file: it counts as one', async () => {
    const host = await makeImage({ cluster_size: CLUSTER, extended_l2: true, data_file: DATA });
    await useDisk(host, (disk) => disk.write(0, some(1, 2 * CLUSTER)));
    await patchWords(host, firstL2(host), COPIED, OVERLAP);
    const { lines, report } = await checkImage(host);
    expect(lines).toEqual(['ERROR offset=0: Allocated cluster has corrupted subcluster allocation bitmap']);
    expect(report).toMatchObject({ corruptions: 1, allocatedClusters: 2 });
  });
});

test.each([1 << 20, 7])(
  'data that end behind the last cluster of the file: that one is used too (memory: %i)',
  async (memory) => {
    const host = await filledImage();
    await patchWords(host, entryAt(host, 4), COPIED | BigInt(9 * 4096 + 512));
    const { lines, report } = await checkImage(host, { memory });
    expect(lines).toEqual([
      'ERROR offset=9200: Data cluster is not properly aligned; L2 entry corrupted.',
      'ERROR cluster 9 refcount=0 reference=1',
      'ERROR cluster 10 refcount=0 reference=1',
      'ERROR OFLAG_COPIED data cluster: l2_entry=8000000000009200 refcount=0',
    ]);
    expect(report).toMatchObject({ corruptions: 4, leaks: 0, imageEndOffset: 11 * 4096 });
    const mended = await checkWhole(host, { repair: 'all', memory });
    // What is not aligned stays so.
    expect(mended.report).toMatchObject({ corruptions: 1, leaks: 0, checkErrors: 0 });
    expect(Number(wordsAt(host, 48)[0])).toBeGreaterThan(10 * 4096);
    expect(refcountBlock(host)).toBe(11 * 4096);
  },
);

describe('with a data file', () => {
  test('what lies there is the guest’s alone: copied bits are set', async () => {
    const host = await makeImage({ cluster_size: CLUSTER, data_file: DATA });
    await useDisk(host, (disk) => disk.write(0, some(1, 3 * CLUSTER)));
    const at = firstL2(host) + 8;
    await patchWords(host, at, BigInt(CLUSTER));
    expect(await checkImage(host)).toMatchObject({
      lines: ['ERROR OFLAG_COPIED data cluster: l2_entry=4000 refcount=1'],
      report: { corruptions: 1, leaks: 0 },
    });
    const { report } = await checkWhole(host, { repair: 'all' });
    expect(report).toMatchObject({ corruptions: 0, leaks: 0, corruptionsFixed: 1 });
    expect(wordsAt(host, at)).toEqual([COPIED | BigInt(CLUSTER)]);
  });

  test('a compressed cluster, by its number in the table', async () => {
    const host = await makeImage({ cluster_size: CLUSTER, data_file: DATA });
    await useDisk(host, (disk) => disk.write(0, some(1, 3 * CLUSTER)));
    await patchWords(host, firstL2(host) + 16, (3n << 62n) | 0x14000n);
    const { lines } = await checkImage(host);
    expect(lines).toEqual([
      'ERROR: coffset=0x14000: copied flag must never be set for compressed clusters',
      'ERROR compressed cluster 2 with data file, entry=0x4000000000014000',
    ]);
  });
});
