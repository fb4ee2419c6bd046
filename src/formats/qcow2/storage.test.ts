/** Counts, writes and discards by single rules (Q-REF, Q-WR, Q-DISC, Q-SIZE, Q-BACK, Q-DATA). */
import { describe, expect, test } from 'vitest';
import {
  BASE,
  DATA,
  firstL2,
  makeImage,
  openDisk,
  openTrail,
  PATH,
  patchWords,
  some,
  useDisk,
  viewImage,
  wordsAt,
} from '../../../tests/support/qcow2-image.ts';
import { Graph } from '../../core/graph.ts';
import { DRIVERS } from '../../drivers.ts';
import { differsAt } from '../../testing/compare-bytes.ts';
import type { SimHost } from '../../testing/index.ts';

const COPIED = 1n << 63n;
const SMALL = { cluster_size: 512 };

const isSound = (host: SimHost) => {
  const { problems, leaks } = viewImage(host);
  expect([problems, leaks]).toEqual([[], []]);
};

const u16 = (host: SimHost, offset: number) =>
  Number((wordsAt(host, offset - (offset % 8))[0] ?? 0n) >> BigInt(48 - (offset % 8) * 8)) & 0xffff;
const placeOf = (host: SimHost, index: number) =>
  Number((wordsAt(host, firstL2(host) + index * 8)[0] ?? 0n) & 0x00fffffffffffe00n);

describe('refcounts', () => {
  test.each([1, 2, 4, 8, 16, 32, 64])(
    'Q-REF-1: counts of %i bits, narrow ones from the low bits of a byte',
    async (bits) => {
      const host = await makeImage({ ...SMALL, refcount_bits: bits });
      await useDisk(host, (disk) => disk.write(0, some(1, 20 * 512)));
      isSound(host);
      const table = Number(wordsAt(host, 48)[0]);
      const block = Number(wordsAt(host, table)[0]);
      const first = host.contents('/disk.img').slice(block, block + 8);
      const ones: Record<number, readonly number[]> = {
        1: [255, 255],
        2: [0x55, 0x55],
        4: [0x11, 0x11],
        8: [1, 1],
        16: [0, 1],
      };
      if (bits <= 16) expect([...first.slice(0, 2)]).toEqual(ones[bits]);
      else expect(first[bits / 8 - 1]).toBe(1);
    },
  );

  test('Q-REF-3: the lowest free cluster is taken, also one that became free', async () => {
    const host = await makeImage(SMALL);
    await useDisk(host, async (disk) => {
      for (let i = 0; i < 4; i++) await disk.write(i * 512, some(i, 512));
      await disk.discard(512, 512);
      await disk.flush();
      await disk.write(9 * 512, some(9, 512));
    });
    expect(placeOf(host, 9)).toBeLessThan(placeOf(host, 2));
    expect(placeOf(host, 2)).toBeLessThan(placeOf(host, 3));
    isSound(host);
  });

  test('Q-REF-3: nothing is put where the header is', async () => {
    const host = await makeImage(SMALL);
    const block = Number(wordsAt(host, Number(wordsAt(host, 48)[0]))[0]);
    await patchWords(host, block, 0n);
    const disk = await openDisk(host);
    await expect(disk.write(0, some(1, 512))).rejects.toThrow('Preventing invalid allocation of L2 table at offset 0');
    await disk.close();
  });

  test('Q-REF-5, Q-EV-1: a block that is missing is made before anything is put into its range', async () => {
    const host = await makeImage({ ...SMALL, refcount_bits: 64 });
    const { disk, during } = await openTrail(host);
    const trail = await during(() => disk.write(0, some(1, 100 * 512)));
    const made = trail.slice(trail.indexOf('refblock_alloc_write'));
    expect(made.slice(0, 4)).toEqual(['refblock_alloc_write', 'write', 'flush', 'refblock_alloc_hookup']);
    expect(trail.indexOf('cluster_alloc')).toBeLessThan(trail.indexOf('refblock_alloc_write'));
    await disk.close();
    isSound(host);
  });

  test('Q-REF-8: a block between clusters is damage', async () => {
    const host = await makeImage({});
    const table = Number(wordsAt(host, 48)[0]);
    await patchWords(host, table, 0x20200n);
    const disk = await openDisk(host);
    await expect(disk.write(0, some(1, 512))).rejects.toThrow('Refblock offset 0x20200 unaligned (reftable index: 0)');
    await disk.close();
  });
});

describe('writing', () => {
  test('Q-WR-3, Q-WR-5: head and tail come from below, in one write, and the entry says so', async () => {
    const base = some(7, 1 << 20);
    const host = await makeImage({ cluster_size: 4096 }, { base });
    const { disk, during } = await openTrail(host);
    await disk.write(9 * 4096, some(1, 4096));
    await disk.flush();
    const trail = await during(() => disk.write(4096 + 700, some(2, 100)));
    expect(trail.filter((each) => ['cow_read', 'cow_write', 'write_aio', 'write'].includes(each))).toEqual([
      'cow_read',
      'cow_write',
      'write_aio',
      'write',
    ]);
    await disk.close();
    const expected = base.slice(4096, 8192);
    expected.set(some(2, 100), 700);
    expect(host.contents('/disk.img').slice(placeOf(host, 1), placeOf(host, 1) + 4096)).toEqual(expected);
    expect((wordsAt(host, firstL2(host) + 8)[0] ?? 0n) >> 62n).toBe(2n);
    isSound(host);
  });

  test('Q-WR-3, Q-WR-5: of subclusters only those that are touched', async () => {
    const host = await makeImage({ cluster_size: 16384, extended_l2: true }, { base: some(7, 1 << 20) });
    await useDisk(host, (disk) => disk.write(700, some(2, 1000)));
    expect(wordsAt(host, firstL2(host) + 8)).toEqual([0b1110n]);
    expect(differsAt(viewImage(host).content(host.contents(BASE)).slice(700, 1700), some(2, 1000))).toBe(-1);
  });

  test('Q-WR-4: what is zero around the data is not written', async () => {
    const host = await makeImage({ cluster_size: 65536 });
    const { disk, during } = await openTrail(host);
    await disk.write(0, some(1, 512));
    const trail = await during(() => disk.write(65536 + 30_000, some(2, 512)));
    expect(trail).toContain('cluster_alloc_space');
    expect(trail).not.toContain('cow_write');
    await disk.close();
    isSound(host);
  });

  test('Q-WR-6: writes that allocate the same cluster come one after the other, others beside them', async () => {
    const host = await makeImage({ cluster_size: 4096 }, { base: some(7, 1 << 20) });
    const expected = host.contents(BASE);
    await useDisk(host, async (disk) => {
      const pieces = Array.from({ length: 12 }, (_, i) => ({ at: (i % 3) * 4096 + i * 300, data: some(i, 290) }));
      for (const { at, data } of pieces) expected.set(data, at);
      await Promise.all(pieces.map(({ at, data }) => disk.write(at, data)));
    });
    expect(differsAt(viewImage(host).content(host.contents(BASE)), expected)).toBe(-1);
    isSound(host);
  });

  test('Q-WR-7: a failure before linking gives the new cluster back, and changes nothing', async () => {
    const host = await makeImage({ cluster_size: 4096 });
    const disk = await openDisk(host);
    await disk.write(0, some(1, 4096));
    await disk.flush();
    const away = host.faults.inject({ operation: 'write', code: 'EIO', times: 1 });
    await expect(disk.write(4096, some(2, 4096))).rejects.toMatchObject({ code: 'EIO' });
    away();
    expect((await disk.read(4096, 4096)).every((byte) => byte === 0)).toBe(true);
    await disk.close();
    isSound(host);
    expect(viewImage(host).entries.size).toBe(1);
  });
});

describe('discards and zeroes', () => {
  const three = async (options: object, base?: Uint8Array) => {
    const host = await makeImage({ cluster_size: 4096, ...options }, base === undefined ? {} : { base });
    await useDisk(host, (disk) => disk.write(0, some(1, 3 * 4096)));
    return host;
  };
  const entries = (host: SimHost, count = 3) => wordsAt(host, firstL2(host), count);

  test('Q-DISC-1, Q-DISC-2: whole clusters only, which become zeroes and are free', async () => {
    const host = await three({});
    const [first, , third] = entries(host);
    await useDisk(host, (disk) => disk.discard(2048, 8192));
    expect(entries(host)).toEqual([first, 1n, third]);
    isSound(host);
  });

  test('Q-DISC-1: the last cluster, cut short, too', async () => {
    const host = await makeImage({ cluster_size: 4096 }, { size: 5 * 512 });
    await useDisk(host, async (disk) => {
      await disk.write(0, some(1, 5 * 512));
      await disk.discard(0, 5 * 512);
    });
    expect(entries(host, 1)).toEqual([1n]);
  });

  test('Q-DISC-1: version 2 keeps what it has where something is below', async () => {
    const host = await three({ compat: '0.10' }, some(7, 1 << 20));
    const before = entries(host);
    await useDisk(host, (disk) => disk.discard(0, 4096));
    expect(entries(host)).toEqual(before);
    const alone = await three({ compat: '0.10' });
    await useDisk(alone, (disk) => disk.discard(0, 4096));
    expect(entries(alone, 1)).toEqual([0n]);
  });

  test('Q-DISC-2: what is not allocated becomes zero where something is below', async () => {
    const host = await three({}, some(7, 1 << 20));
    await useDisk(host, (disk) => disk.discard(8 * 4096, 4096));
    expect(wordsAt(host, firstL2(host) + 64)).toEqual([1n]);
    const alone = await three({});
    await useDisk(alone, (disk) => disk.discard(8 * 4096, 4096));
    expect(wordsAt(alone, firstL2(alone) + 64)).toEqual([0n]);
  });

  test('Q-DISC-2: with discard-no-unref the storage stays', async () => {
    const host = await three({});
    const [first = 0n] = entries(host);
    await useDisk(host, (disk) => disk.discard(0, 4096), { 'discard-no-unref': true });
    expect(entries(host, 1)).toEqual([first | 1n]);
    isSound(host);
  });

  test.each([true, false])('Q-DISC-3: what a guest discards is passed on if the option says so: %s', async (passes) => {
    const host = await three({});
    const { disk, during } = await openTrail(host, { 'pass-discard-request': passes });
    const trail = await during(async () => {
      await disk.discard(0, 8192);
      await disk.flush();
    });
    expect(trail.includes('discard')).toBe(passes);
    // What a write replaces is never passed on.
    await disk.close();
  });

  test('Q-DISC-4: zeroes keep storage, or give it up where that is allowed', async () => {
    const host = await three({});
    const [first = 0n] = entries(host);
    await useDisk(host, async (disk) => {
      await disk.writeZeroes(0, 4096);
      await disk.writeZeroes(4096, 4096, { unmap: true });
    });
    expect(entries(host, 2)).toEqual([first | 1n, 1n]);
    isSound(host);
  });

  test.each([
    ['unmap', {}, true],
    ['ignore', {}, false],
    ['unmap', { 'pass-discard-request': false }, false],
    ['ignore', { 'pass-discard-request': true }, true],
  ] as const)(
    'Q-OPT-1: what zeroes give up is passed on as discards are, or as is said: %s %j',
    async (discard, options, passes) => {
      const host = await three({});
      const { disk, during } = await openTrail(host, { discard, ...options });
      const trail = await during(async () => {
        await disk.writeZeroes(0, 8192, { unmap: true });
        await disk.flush();
      });
      expect(trail.includes('discard')).toBe(passes);
      expect(entries(host, 2)).toEqual([1n, 1n]);
      await disk.close();
    },
  );

  test('Q-DISC-4: by subclusters', async () => {
    const host = await makeImage({ cluster_size: 16384, extended_l2: true });
    await useDisk(host, async (disk) => {
      await disk.write(0, some(1, 16384));
      await disk.writeZeroes(1024, 512);
    });
    expect(wordsAt(host, firstL2(host) + 8)).toEqual([(4n << 32n) | 0xfffffffbn]);
  });

  test('Q-DISC-4: a ragged edge works where the rest of its unit reads as zeroes and stores nothing', async () => {
    const host = await makeImage({ cluster_size: 4096 });
    await useDisk(host, async (disk) => {
      await disk.writeZeroes(4096 + 5, 8192, { noFallback: true });
      await disk.write(5 * 4096, some(1, 4096));
      await expect(disk.writeZeroes(5 * 4096 + 512, 512, { noFallback: true })).rejects.toMatchObject({
        code: 'ENOTSUP',
      });
      // One edge can be zeroed, the other is data.
      await disk.writeZeroes(4 * 4096 + 100, 5000);
      expect(await disk.status(4 * 4096, 8192)).toMatchObject({ zero: true, data: false, length: 4096 });
      expect(await disk.read(5 * 4096, 4096)).toEqual(some(1, 4096).fill(0, 0, 1004));
    });
    const stored = entries(host, 6).map((entry) => entry & ~COPIED);
    expect([...stored.slice(0, 5), stored[5] !== 0n]).toEqual([0n, 1n, 1n, 1n, 1n, true]);
    isSound(host);
  });

  test('Q-DISC-4: a ragged edge over a backing file that has data there is data', async () => {
    const host = await makeImage({ cluster_size: 4096 }, { base: some(3, 4096) });
    await useDisk(host, async (disk) => {
      await disk.writeZeroes(0, 512);
      await disk.writeZeroes(4096, 512);
      expect(await disk.read(0, 4096)).toEqual(some(3, 4096).fill(0, 0, 512));
      expect(await disk.status(4096, 4096)).toMatchObject({ zero: true, data: false, depth: 0 });
    });
    isSound(host);
  });

  test('Q-DISC-4: a write beside a ragged edge waits for it', async () => {
    const host = await makeImage({ cluster_size: 4096 });
    await useDisk(host, async (disk) => {
      await Promise.all([disk.writeZeroes(0, 512), disk.write(1024, some(1, 512)), disk.writeZeroes(2048, 512)]);
      const expected = new Uint8Array(4096);
      expected.set(some(1, 512), 1024);
      expect(await disk.read(0, 4096)).toEqual(expected);
    });
    isSound(host);
  });

  test('Q-DISC-5, Q-DATA-4: a raw data file holds what the disk reads, zeroes too', async () => {
    const host = await makeImage({ cluster_size: 4096, data_file: DATA, data_file_raw: true });
    await useDisk(
      host,
      async (disk) => {
        await disk.write(0, some(1, 3 * 4096));
        await disk.discard(4096, 4096);
        await disk.writeZeroes(0, 512);
      },
      { 'pass-discard-request': false },
    );
    const expected = new Uint8Array(1 << 20);
    expected.set(some(1, 3 * 4096));
    expected.fill(0, 0, 512).fill(0, 4096, 8192);
    expect(differsAt(host.contents(DATA), expected)).toBe(-1);
    expect(differsAt(viewImage(host).content(), expected)).toBe(-1);
    // Q-DATA-4: all is mapped when it is made, and when it grows.
    await useDisk(host, (disk) => disk.resize(2 << 20));
    expect(viewImage(host).entries.size).toBe(512);
  });
});

describe('sizes, and what is below', () => {
  test('Q-SIZE-2: the L1 table grows to the need, and the size comes last', async () => {
    const host = await makeImage(SMALL);
    const { disk, during } = await openTrail(host);
    const trail = await during(() => disk.resize(40 << 20));
    expect(trail.filter((each) => each.startsWith('l1_'))).toEqual([
      'l1_grow_alloc_table',
      'l1_grow_write_table',
      'l1_grow_activate_table',
    ]);
    expect(trail.slice(-2)).toEqual(['write', 'flush']);
    await disk.close();
    expect((wordsAt(host, 32)[0] ?? 0n) & 0xffffffffn).toBe(BigInt((40 << 20) / 512 / 64));
    isSound(host);
  });

  test.each(['metadata', 'full'] as const)(
    'Q-SIZE-4: preallocation=%s that fails leaves a few tables as leaks at most',
    async (preallocation) => {
      let failures = 0;
      for (let skip = 0; ; skip++) {
        const host = await makeImage(SMALL, { size: 1 << 16 });
        host.faults.inject({ operation: ['write', 'truncate'], code: 'ENOSPC', path: PATH, skip, times: 1 });
        const disk = await openDisk(host);
        const error = await disk.resize(1 << 20, { preallocation }).catch((cause: unknown) => cause);
        await disk.close();
        if (error === undefined) break;
        failures++;
        expect([skip, error]).toMatchObject([skip, { code: 'ENOSPC' }]);
        const { problems, leaks } = viewImage(host);
        expect([skip, disk.length, problems, leaks.length < 10]).toEqual([skip, 1 << 16, [], true]);
      }
      expect(failures).toBeGreaterThan(5);
    },
  );

  test('Q-BACK-1: behind a shorter image there are zeroes, of a longer one the rest is hidden', async () => {
    const host = await makeImage({ cluster_size: 4096 }, { base: some(7, 10_000), size: 20_480 });
    const read = () => useDisk(host, (disk) => disk.read(0, disk.length));
    expect((await read()).subarray(10_000).every((byte) => byte === 0)).toBe(true);
    host.put(BASE, some(8, 100_000));
    expect(differsAt(await read(), some(8, 20_480))).toBe(-1);
    // What growing brings to light is zero.
    await useDisk(host, (disk) => disk.resize(40_960));
    const grown = await read();
    expect(differsAt(grown.subarray(0, 20_480), some(8, 20_480))).toBe(-1);
    expect(grown.subarray(20_480).every((byte) => byte === 0)).toBe(true);
  });

  test('Q-DATA-1: data lie in the data file at their own place, and nobody counts them', async () => {
    const host = await makeImage({ cluster_size: 4096, data_file: DATA });
    await useDisk(host, (disk) => disk.write(9 * 4096 + 5, some(1, 1000)));
    expect(host.contents(DATA).slice(9 * 4096 + 5, 9 * 4096 + 1005)).toEqual(some(1, 1000));
    expect(wordsAt(host, firstL2(host) + 72)).toEqual([COPIED | BigInt(9 * 4096)]);
    const block = Number(wordsAt(host, Number(wordsAt(host, 48)[0]))[0]);
    expect(u16(host, block + 2 * 9)).toBe(0);
    isSound(host);
  });
});

test('Q-WR-4: a write over subclusters with data and some without that fails leaves what was there', async () => {
  const host = await makeImage({ cluster_size: 16384, extended_l2: true }, { size: 1 << 20 });
  await useDisk(host, (disk) => disk.write(4096, some(7, 4096)));
  const graph = new Graph({ host, drivers: DRIVERS });
  const image = { driver: 'file', filename: PATH };
  const failing = { driver: 'blkdebug', image, 'inject-error': [{ event: 'write_aio', errno: 5, once: true }] };
  const disk = await graph.open({ driver: 'qcow2', file: failing }, { writable: true });
  await expect(disk.write(1000, some(9, 6000))).rejects.toMatchObject({ code: 'EIO' });
  expect(await disk.read(4096, 4096)).toEqual(some(7, 4096));
  expect((await disk.read(0, 4096)).every((byte) => byte === 0)).toBe(true);
  await disk.close();
});
