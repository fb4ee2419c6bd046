/** Where guest data are, what is read of them and what is told about them (Q-MAP, Q-READ), from tables written by hand. */
import { describe, expect, test } from 'vitest';
import {
  BASE,
  DATA,
  firstL2,
  makeImage,
  openDisk,
  openTrail,
  patchWords,
  some,
  useDisk,
  viewImage,
  wordsAt,
} from '../../../tests/support/qcow2-image.ts';
import { SimHost } from '../../testing/index.ts';

const COPIED = 1n << 63n;
const CLUSTER = 4096;

async function read(host: SimHost, offset: number, length: number): Promise<Uint8Array> {
  const disk = await openDisk(host, {}, { writable: false });
  const bytes = await disk.read(offset, length);
  await disk.close();
  return bytes;
}

async function statusOf(host: SimHost, offset: number, length: number) {
  const disk = await openDisk(host, {}, { writable: false });
  const status = await disk.status(offset, length);
  await disk.close();
  return status;
}

describe('tables', () => {
  test('Q-MAP-1, Q-MAP-2: an L2 table is a cluster of entries, and the L1 table names it with the copied bit', async () => {
    const host = await makeImage({ cluster_size: 512 }, { size: 10 << 20 });
    // 64 entries of 512 bytes each.
    const guest = 3 * 64 * 512 + 5 * 512;
    await useDisk(host, (disk) => disk.write(guest, some(1, 512)));
    const [l1 = 0n] = wordsAt(host, 40);
    const entries = wordsAt(host, Number(l1), 4);
    expect(entries.slice(0, 3)).toEqual([0n, 0n, 0n]);
    const l2 = entries[3] ?? 0n;
    expect([l2 & COPIED, (l2 & ~COPIED) % 512n]).toEqual([COPIED, 0n]);
    const words = wordsAt(host, Number(l2 & ~COPIED), 64);
    expect(words.flatMap((word, i) => (word === 0n ? [] : [i]))).toEqual([5]);
    // Q-MAP-3: offset and copied bit, nothing else.
    expect((words[5] ?? 0n) >> 62n).toBe(2n);
    expect(await read(host, guest, 512)).toEqual(some(1, 512));
  });

  test('Q-MAP-1: with extended entries half as many', async () => {
    const host = await makeImage({ cluster_size: 16384, extended_l2: true }, { size: 64 << 20 });
    await useDisk(host, (disk) => disk.write(1024 * 16384, some(1, 512)));
    const [l1 = 0n] = wordsAt(host, 40);
    expect(wordsAt(host, Number(l1), 2).map((word) => word !== 0n)).toEqual([false, true]);
  });

  test('Q-MAP-4: zero flag, with storage and without, hides what is below', async () => {
    const host = await makeImage({ cluster_size: CLUSTER }, { base: some(7, 1 << 20) });
    await useDisk(host, (disk) => disk.write(0, some(1, 4 * CLUSTER)));
    const l2 = firstL2(host);
    const [first = 0n] = wordsAt(host, l2);
    await patchWords(host, l2, first | 1n, 1n, 0n);
    const bytes = await read(host, 0, 4 * CLUSTER);
    expect(bytes.subarray(0, 2 * CLUSTER).every((byte) => byte === 0)).toBe(true);
    expect(bytes.subarray(2 * CLUSTER, 3 * CLUSTER)).toEqual(host.contents(BASE).slice(2 * CLUSTER, 3 * CLUSTER));
    expect(bytes.subarray(3 * CLUSTER)).toEqual(some(1, 4 * CLUSTER).subarray(3 * CLUSTER));
  });

  test('Q-MAP-4: with a data file, the copied bit alone says that offset 0 is stored', async () => {
    const host = await makeImage({ cluster_size: CLUSTER, data_file: DATA });
    await useDisk(host, (disk) => disk.write(0, some(1, CLUSTER)));
    const l2 = firstL2(host);
    expect(wordsAt(host, l2)).toEqual([COPIED]);
    await patchWords(host, l2, 0n);
    expect((await read(host, 0, CLUSTER)).every((byte) => byte === 0)).toBe(true);
  });

  test('Q-MAP-7: bits of subclusters, lowest first; neither shows what is below', async () => {
    const host = await makeImage({ cluster_size: 16384, extended_l2: true }, { base: some(7, 1 << 20) });
    await useDisk(host, (disk) => disk.write(512, some(1, 512)));
    const l2 = firstL2(host);
    expect(wordsAt(host, l2 + 8)).toEqual([2n]);
    await patchWords(host, l2 + 8, (4n << 32n) | 2n);
    const bytes = await read(host, 0, 4 * 512);
    const below = host.contents(BASE);
    expect(bytes).toEqual(
      Uint8Array.of(...below.subarray(0, 512), ...some(1, 512), ...new Uint8Array(512), ...below.subarray(1536, 2048)),
    );
    // Both bits of one subcluster, or an allocated one without a place, cannot be.
    for (const [entry, bits] of [
      [undefined, (2n << 32n) | 2n],
      [0n, 2n],
    ] as const) {
      if (entry !== undefined) await patchWords(host, l2, entry);
      await patchWords(host, l2 + 8, bits);
      await expect(read(host, 512, 512)).rejects.toMatchObject({ code: 'EIO' });
    }
  });
});

describe('reading', () => {
  test('Q-READ-1: what is side by side in the file is read at once, across L2 tables too', async () => {
    const host = await makeImage({ cluster_size: 512 }, { host: new SimHost({ record: false }) });
    await useDisk(host, (disk) => disk.write(0, some(1, 128 * 512)));
    // The second L2 table is put behind what both name, so that data are in one run.
    const { disk, during } = await openTrail(host);
    await disk.read(0, 512);
    await disk.read(64 * 512, 512);
    const trail = await during(() => disk.read(0, 128 * 512));
    const reads = trail.filter((each) => each === 'read').length;
    const entries = [...viewImage(host).entries].sort(([a], [b]) => a - b).map(([, { entry }]) => entry & ~COPIED);
    const runs = entries.filter((entry, i) => i === 0 || entry !== (entries[i - 1] ?? 0n) + 512n).length;
    expect(reads).toBe(runs);
    await disk.close();
  });

  test('Q-READ-2: nothing is read for zeroes, and behind the end of what is below there are zeroes', async () => {
    const host = await makeImage({ cluster_size: CLUSTER }, { base: some(7, 5000) });
    await useDisk(host, (disk) => disk.writeZeroes(0, CLUSTER));
    const { disk, during } = await openTrail(host);
    await disk.read(0, 512);
    expect(await during(() => disk.read(0, CLUSTER))).toEqual([]);
    expect(await during(() => disk.read(100 * CLUSTER, CLUSTER))).not.toContain('read');
    expect(await disk.read(CLUSTER, CLUSTER)).toEqual(
      Uint8Array.of(...some(7, 5000).subarray(CLUSTER), ...new Uint8Array(2 * CLUSTER - 5000)),
    );
    await disk.close();
  });

  test('Q-READ-4: what is told of each kind', async () => {
    const host = await makeImage({ cluster_size: CLUSTER });
    await useDisk(host, async (disk) => {
      await disk.write(0, some(1, 2 * CLUSTER));
      await disk.writeZeroes(CLUSTER, CLUSTER);
      await disk.writeZeroes(2 * CLUSTER, CLUSTER, { unmap: true });
    });
    const [stored = 0n, kept = 0n] = wordsAt(host, firstL2(host), 2);
    const place = (word: bigint) => Number(word & ~(COPIED | 1n));
    expect(await statusOf(host, 0, CLUSTER)).toMatchObject({ data: true, zero: false, at: { offset: place(stored) } });
    expect(await statusOf(host, CLUSTER, CLUSTER)).toMatchObject({
      data: false,
      zero: true,
      at: { offset: place(kept) },
    });
    const plain = await statusOf(host, 2 * CLUSTER, CLUSTER);
    expect(plain).toMatchObject({ data: false, zero: true });
    expect(plain.at).toBeUndefined();
  });

  test('Q-READ-4: metadata preallocated, data not: holes of the file show through', async () => {
    const host = await makeImage({ cluster_size: 65536, preallocation: 'metadata' }, { size: 4 << 20 });
    expect(await statusOf(host, 1 << 20, 65536)).toMatchObject({ data: true, zero: true });
  });

  test('Q-READ-5: what is aligned to what, and whether a new image reads as zeroes', async () => {
    const limits = async (options: object) => {
      const disk = await openDisk(await makeImage({ ...options }));
      const { zeroAlign, discardAlign } = disk.limits;
      await disk.close();
      return [zeroAlign, discardAlign];
    };
    expect(await limits({})).toEqual([65536, 65536]);
    expect(await limits({ extended_l2: true })).toEqual([2048, 65536]);
    const host = await makeImage({});
    expect(await useDisk(host, async (disk) => disk.zeroInit())).toBe(true);
  });
});
