import { describe, expect, test } from 'vitest';
import { graphOn, PATH } from '../../../tests/support/sim-disks.ts';
import { FREE, ZERO } from '../../../tests/support/vdi-bytes.ts';
import {
  BLOCK,
  block,
  blocks,
  expectSame,
  hostWith,
  newImage,
  openOn,
  stored,
  withDisk,
} from '../../../tests/support/vdi-on-sim.ts';

describe('a write (V-22)', () => {
  test('to a stored block is done in place', async () => {
    const host = hostWith({ map: [1, 0] });
    await withDisk(host, (disk) => disk.write(BLOCK - 2, block(9, 4)));
    expect(stored(host).map).toEqual([1, 0]);
    const expected = blocks(2, 1);
    expected.fill(9, BLOCK - 2, BLOCK + 2);
    expectSame(stored(host).content(), expected);
  });

  test('to an unallocated block takes the next place, zero around the data', async () => {
    const host = hostWith({ map: [0, FREE, ZERO, FREE] });
    await withDisk(host, async (disk) => {
      await disk.write(3 * BLOCK + 5, block(9, 10));
      await disk.write(2 * BLOCK, block(8, 10));
    });
    expect(stored(host)).toMatchObject({ map: [0, FREE, 2, 1], allocated: 3 });
    const expected = blocks(1, 0, 0, 0);
    expected.fill(9, 3 * BLOCK + 5, 3 * BLOCK + 15).fill(8, 2 * BLOCK, 2 * BLOCK + 10);
    expectSame(stored(host).content(), expected);
  });

  test('does not let old bytes of the file show around the data', async () => {
    // A file that is longer than its blocks, as after a crash.
    const host = hostWith({ map: [0, FREE, FREE], slots: 3 });
    await withDisk(host, (disk) => disk.write(BLOCK + 5, block(9, 10)));
    const found = stored(host)
      .content()
      .subarray(BLOCK, 2 * BLOCK);
    expectSame(
      found.filter((byte) => byte !== 0),
      block(9, 10),
    );
  });

  test('over many blocks allocates them side by side, and writes them in one operation', async () => {
    const host = await newImage(8, {}, { refuseNow: 1 });
    await withDisk(host, async (disk) => {
      await disk.write(0, block(1, 10));
      const before = host.counters.operations.write ?? 0;
      await disk.write(2 * BLOCK + 100, block(7, 4 * BLOCK));
      expect((host.counters.operations.write ?? 0) - before).toBe(1);
    });
    expect(stored(host).map).toEqual([0, FREE, 1, 2, 3, 4, 5, FREE]);
  });

  test('at once: in place and into new blocks, not where it must wait', async () => {
    const host = await newImage(4);
    await withDisk(host, async (disk) => {
      await disk.write(0, block(1));
      expect(disk.tryWriteNow(10, block(2, 10))).toBe(true);
      expect(disk.tryWriteNow(BLOCK + 10, block(3, 10))).toBe(true);
      expect(disk.tryWriteNow(4 * BLOCK - 5, block(3, 10))).toBe(false);
      const found = await disk.read(0, 2 * BLOCK);
      expect([...found.subarray(8, 22)]).toEqual([1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1]);
      expectSame(
        found.subarray(BLOCK).filter((byte) => byte !== 0),
        block(3, 10),
      );
    });
    expect(stored(host)).toMatchObject({ map: [0, 1, FREE, FREE], problems: [] });
  });

  test('V-66: of zeroes over a whole unallocated block stores nothing', async () => {
    const host = hostWith({ map: [FREE, ZERO, 0, FREE], diskSize: 3 * BLOCK + 512 });
    const length = host.contents(PATH).length;
    await withDisk(host, async (disk) => {
      await disk.write(0, blocks(0, 0, 0));
      await disk.write(3 * BLOCK, block(0, 512));
      expect(disk.tryWriteNow(0, block(0)) || (await disk.write(0, block(0))) === undefined).toBe(true);
    });
    expect(stored(host).map).toEqual([FREE, ZERO, 0, FREE]);
    expectSame(stored(host).content(), block(0, 3 * BLOCK + 512));
    expect(host.contents(PATH).length).toBe(length);
  });

  test('of zeroes inside a request stores the other blocks only', async () => {
    const host = await newImage(5);
    await withDisk(host, (disk) => disk.write(0, blocks(1, 0, 0, 2, 3)));
    expect(stored(host).map).toEqual([0, FREE, FREE, 1, 2]);
    expectSame(stored(host).content(), blocks(1, 0, 0, 2, 3));
  });
});

test('in a file that only a truncate makes longer works like in any other', async () => {
  const host = await newImage(8);
  const tree = { driver: 'vdi', file: { driver: 'raw', file: { driver: 'file', filename: PATH } } };
  const disk = await graphOn(host).open(tree, { writable: true });
  await Promise.all([1, 2, 3].map((value) => disk.write((value - 1) * BLOCK + 5, block(value, 10))));
  await disk.write(3 * BLOCK, blocks(4, 5, 6, 7));
  await disk.resize(3000 * BLOCK);
  await disk.write(2000 * BLOCK + 5, block(9, 10));
  await disk.discard(3 * BLOCK, 2 * BLOCK);
  await disk.flush();
  await disk.compact();
  await disk.close();
  expect(stored(host)).toMatchObject({ problems: [], allocated: 6 });
  expectSame(
    stored(host)
      .content()
      .subarray(5 * BLOCK, 7 * BLOCK),
    blocks(6, 7),
  );
  const empty = await newImage(1);
  const grown = await graphOn(empty).open(tree, { writable: true });
  await grown.resize(5000 * BLOCK);
  await grown.close();
  expect(stored(empty)).toMatchObject({ problems: [], diskSize: 5000 * BLOCK });
});

describe('concurrent writes (V-23)', () => {
  test('into one unallocated block: one allocates, the others write in place', async () => {
    for (let seed = 0; seed < 10; seed++) {
      const host = await newImage(3, {}, { seed, latency: { min: 0, max: 20 }, refuseNow: 1 });
      await withDisk(host, async (disk) => {
        await Promise.all(Array.from({ length: 8 }, (_, i) => disk.write(BLOCK + i * 512, block(i + 1, 512))));
        const found = await disk.read(BLOCK, BLOCK);
        for (let i = 0; i < 8; i++) expectSame(found.subarray(i * 512, (i + 1) * 512), block(i + 1, 512));
      });
      expect(stored(host)).toMatchObject({ map: [FREE, 0, FREE], allocated: 1 });
    }
  });

  test('the others go on when the one that allocates fails', async () => {
    const host = await newImage(3, {}, { latency: { min: 1, max: 1 }, refuseNow: 1 });
    const disk = await openOn(host);
    // Makes the file grow for the first time, which is looked at apart.
    await disk.write(0, block(1));
    host.faults.inject({ operation: 'write', code: 'EIO', times: 1 });
    const results = await Promise.allSettled(
      Array.from({ length: 4 }, (_, i) => disk.write(BLOCK + i * 1024, block(i + 1, 1024))),
    );
    expect(results.filter(({ status }) => status === 'rejected')).toHaveLength(1);
    const found = await disk.read(BLOCK, BLOCK);
    for (const [i, { status }] of results.entries()) {
      if (status === 'fulfilled') expectSame(found.subarray(i * 1024, (i + 1) * 1024), block(i + 1, 1024));
    }
    await disk.close();
    expect(stored(host)).toMatchObject({ map: [0, 1, FREE], problems: [] });
  });

  test('in place to another block does not wait for an allocation', async () => {
    const host = hostWith({ map: [0, FREE] }, {}, { latency: { min: 10, max: 10 }, refuseNow: 1 });
    const disk = await openOn(host);
    const done: string[] = [];
    await Promise.all([
      disk.write(BLOCK + 9, block(1, 9)).then(() => done.push('allocating')),
      disk.write(9, block(1, 9)).then(() => done.push('in place')),
    ]);
    expect(done[0]).toBe('in place');
    await disk.close();
  });
});
