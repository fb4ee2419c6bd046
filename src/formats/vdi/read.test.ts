import { describe, expect, test } from 'vitest';
import { PATH } from '../../../tests/support/sim-disks.ts';
import { FREE, makeVdi, ZERO } from '../../../tests/support/vdi-bytes.ts';
import {
  BLOCK,
  block,
  blocks,
  expectSame,
  hostHolding,
  hostWith,
  openOn,
  withDisk,
} from '../../../tests/support/vdi-on-sim.ts';

const readOnly = { writable: false };

describe('reading (V-20)', () => {
  test('gives zeroes, without I/O, for what is not stored', async () => {
    const host = hostWith({ map: [FREE, ZERO, FREE, 0] }, {}, { refuseNow: 1 });
    await withDisk(
      host,
      async (disk) => {
        const before = host.counters.total;
        expectSame(await disk.read(100, 3 * BLOCK - 100), block(0, 3 * BLOCK - 100));
        expect(host.counters.total).toBe(before);
      },
      readOnly,
    );
  });

  test('takes blocks that lie side by side in the file in one operation', async () => {
    const host = hostWith({ map: [3, 4, 5, FREE, 1, 0, 2] }, {}, { refuseNow: 1 });
    await withDisk(
      host,
      async (disk) => {
        const reads = () => host.counters.operations.read ?? 0;
        const before = reads();
        expectSame(await disk.read(10, 3 * BLOCK - 20), blocks(4, 5, 6).subarray(10, 3 * BLOCK - 10));
        expect(reads() - before).toBe(1);
        expectSame(await disk.read(0, 7 * BLOCK), blocks(4, 5, 6, 0, 2, 1, 3));
        expect(reads() - before).toBe(1 + 4);
      },
      readOnly,
    );
  });

  test('runs the pieces of one request at the same time', async () => {
    const host = hostWith({ map: [8, 6, 4, 2, 0, 7, 5, 3, 1] }, {}, { refuseNow: 1, latency: { min: 10, max: 10 } });
    await withDisk(
      host,
      async (disk) => {
        const start = host.clock.now();
        await disk.read(0, 9 * BLOCK);
        expect(host.clock.now() - start).toBeLessThanOrEqual(20);
      },
      readOnly,
    );
  });

  test('answers at once what the file answers at once', async () => {
    const host = hostWith({ map: [1, FREE, 0] });
    await withDisk(
      host,
      async (disk) => {
        const target = new Uint8Array(3 * BLOCK).fill(0x55);
        expect(disk.tryReadNow(0, target)).toBe(true);
        expect(target).toEqual(blocks(2, 0, 1));
        expect(disk.tryReadNow(3 * BLOCK - 1, new Uint8Array(2))).toBe(false);
      },
      readOnly,
    );
  });
});

describe('damage (V-15)', () => {
  const cases: readonly (readonly [string, number[], number[], RegExp])[] = [
    ['an entry at or above the number of blocks', [0, 4, 1, FREE], [1], /block 1 .*4 is beyond the 4/],
    ['an entry behind the end of the file', [0, 3, 1, FREE], [1], /block 1 .*place 3/],
    ['an entry used twice', [0, 1, 1, FREE], [1, 2], /block [12] .*another block/],
  ];

  test.each(cases)('%s: EIO that names the block, the others are read', async (_, map, bad, message) => {
    const host = hostWith({ map, slots: 2 });
    await withDisk(
      host,
      async (disk) => {
        for (const [number, entry] of map.entries()) {
          const reading = disk.read(number * BLOCK, BLOCK);
          if (bad.includes(number)) {
            await expect(reading).rejects.toMatchObject({ code: 'EIO', message: expect.stringMatching(message) });
            expect(disk.tryReadNow(number * BLOCK, new Uint8Array(10))).toBe(false);
          } else expect(await reading).toEqual(block(entry === FREE ? 0 : entry + 1));
        }
        await expect(disk.read(0, 4 * BLOCK)).rejects.toMatchObject({ code: 'EIO' });
      },
      readOnly,
    );
  });

  test.each(cases)('%s: nothing is written until it is repaired', async (_, map) => {
    const host = hostWith({ map, slots: 2 });
    const before = host.contents(PATH);
    await withDisk(host, async (disk) => {
      expectSame(await disk.read(0, BLOCK), block(1));
      await expect(disk.write(0, block(9))).rejects.toMatchObject({ code: 'EIO' });
      expect(disk.tryWriteNow(0, block(9))).toBe(false);
      await expect(disk.writeZeroes(0, BLOCK)).rejects.toMatchObject({ code: 'EIO' });
      await expect(disk.resize(8 * BLOCK)).rejects.toMatchObject({ code: 'EIO' });
      await expect(disk.compact()).rejects.toMatchObject({ code: 'EIO' });
      await disk.discard(0, BLOCK);
    });
    expect(host.contents(PATH)).toEqual(before);
  });
});

describe('a file that ends inside its last block (V-63)', () => {
  const cut = () => hostHolding(makeVdi({ diskSize: 3 * BLOCK, blockSize: BLOCK, map: [1, 0, FREE] }).slice(0, -1000));

  test('EIO for what is missing', async () => {
    await withDisk(
      cut(),
      async (disk) => {
        await expect(disk.read(0, BLOCK)).rejects.toMatchObject({
          code: 'EIO',
          message: expect.stringContaining('block 0'),
        });
        expectSame(await disk.read(BLOCK, 2 * BLOCK), blocks(1, 0));
      },
      readOnly,
    );
  });

  test('zeroes for one who salvages', async () => {
    await withDisk(
      cut(),
      async (disk) => {
        const expected = block(2);
        expected.fill(0, BLOCK - 1000);
        expectSame(await disk.read(0, BLOCK), expected);
      },
      { ...readOnly, salvage: true },
    );
  });

  test('but not for a block that lies wholly behind the end', async () => {
    const bytes = makeVdi({ diskSize: 3 * BLOCK, blockSize: BLOCK, map: [2, 0, FREE] }).slice(0, -BLOCK - 1000);
    const disk = await openOn(hostHolding(bytes), { ...readOnly, salvage: true });
    await expect(disk.read(0, BLOCK)).rejects.toMatchObject({ code: 'EIO' });
    await disk.close();
  });
});
