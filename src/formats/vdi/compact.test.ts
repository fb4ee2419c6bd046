/** Compaction (V-51). */
import { describe, expect, test } from 'vitest';
import { PATH } from '../../../tests/support/sim-disks.ts';
import { FREE, ZERO } from '../../../tests/support/vdi-bytes.ts';
import {
  BLOCK,
  block,
  blocks,
  checked,
  expectSame,
  hostWith,
  newImage,
  openOn,
  stored,
  withDisk,
} from '../../../tests/support/vdi-on-sim.ts';
import type { SimHost } from '../../testing/index.ts';

async function expectTight(host: SimHost, slots: number): Promise<void> {
  const image = stored(host);
  expect(image).toMatchObject({ allocated: slots, problems: [] });
  expect(host.contents(PATH).length).toBe(image.dataOffset + slots * BLOCK);
  await withDisk(
    host,
    async (disk) => expect((await checked(disk)).report).toMatchObject({ corruptions: 0, leaks: 0 }),
    { writable: false },
  );
}

describe('compaction', () => {
  test('drops blocks of zeroes and discarded ones, and closes the gaps', async () => {
    const host = hostWith({ map: [4, 0, 3, 1, 2, FREE, ZERO] });
    await withDisk(host, async (disk) => {
      await disk.write(BLOCK, block(0));
      await disk.discard(3 * BLOCK, BLOCK);
      await disk.compact();
      expectSame(await disk.read(0, 7 * BLOCK), blocks(5, 0, 4, 0, 3, 0, 0));
    });
    expect(stored(host).map.map((slot) => slot < ZERO)).toEqual([true, false, true, false, true, false, false]);
    await expectTight(host, 3);
  });

  test('keeps what it need not move', async () => {
    const host = hostWith({ map: [2, 1, 0, FREE] });
    const before = host.contents(PATH).subarray(0x200);
    await withDisk(host, (disk) => disk.compact());
    expectSame(host.contents(PATH).subarray(0x200), before);
  });

  test('of an image with nothing in it, or with nothing left', async () => {
    const empty = await newImage(3);
    await withDisk(empty, (disk) => disk.compact());
    await expectTight(empty, 0);
    const host = hostWith({ map: [0, 1] });
    await withDisk(host, async (disk) => {
      await disk.writeZeroes(0, 2 * BLOCK);
      await disk.compact();
    });
    expect(stored(host).map).toEqual([ZERO, ZERO]);
    await expectTight(host, 0);
  });

  test('ends the file behind the last block, also where more is there, as after a crash', async () => {
    const host = hostWith({ map: [3, FREE, FREE, 0, FREE], slots: 5 });
    await withDisk(host, (disk) => disk.compact());
    expectSame(stored(host).content(), blocks(4, 0, 0, 1, 0));
    await expectTight(host, 2);
  });

  test('looks only at what the disk has of its last block', async () => {
    const host = hostWith({ map: [1, 0], diskSize: BLOCK + 512 });
    await withDisk(host, async (disk) => {
      await disk.writeZeroes(BLOCK, 512);
      await disk.compact();
    });
    expect(stored(host).map).toEqual([0, ZERO]);
  });

  test('is refused for static images', async () => {
    await withDisk(hostWith({ map: [0], type: 2 }), async (disk) => {
      await expect(disk.compact()).rejects.toMatchObject({
        code: 'ENOTSUP',
        message: expect.stringContaining('is a static image'),
      });
    });
  });

  test('reports progress that only grows, from nothing to all', async () => {
    const host = hostWith({ map: [5, 1, 2, 3, 4, 0] });
    await withDisk(host, async (disk) => {
      await disk.writeZeroes(2 * BLOCK, 2 * BLOCK);
      const seen: [number, number][] = [];
      await disk.compact({ progress: (done, total) => void seen.push([done, total]) });
      expect(seen[0]?.[0]).toBe(0);
      expect(seen.at(-1)?.[0]).toBe(seen.at(-1)?.[1]);
      for (const [i, [done, total]] of seen.entries()) {
        expect(done).toBeGreaterThanOrEqual(seen[i - 1]?.[0] ?? 0);
        expect([done <= total, total]).toEqual([true, seen[0]?.[1]]);
      }
    });
  });

  test('stopped anywhere leaves a sound image with the same content, and can be done again', async () => {
    const content = blocks(8, 0, 6, 5, 0, 3, 2, 1);
    let stoppedOnce = false;
    for (let stop = 1; stop < 14; stop++) {
      const host = hostWith({ map: [7, 6, 5, 4, 3, 2, 1, 0] });
      const disk = await openOn(host);
      await disk.writeZeroes(BLOCK, BLOCK);
      await disk.writeZeroes(4 * BLOCK, BLOCK);
      const control = new AbortController();
      let steps = 0;
      const work = disk.compact({
        signal: control.signal,
        progress: () => {
          if (++steps === stop) control.abort();
        },
      });
      await work.catch((error: unknown) => {
        stoppedOnce = true;
        expect(error).toMatchObject({ name: 'AbortError' });
      });
      expectSame(await disk.read(0, 8 * BLOCK), content);
      // Other requests go on.
      await disk.write(0, block(8));
      await disk.close();
      expect(stored(host).problems).toEqual([]);
      await withDisk(host, async (again) => {
        expect((await checked(again)).report.corruptions).toBe(0);
        await again.compact();
      });
      expectSame(stored(host).content(), content);
      await expectTight(host, 6);
    }
    expect(stoppedOnce).toBe(true);
  });

  test.each(['read', 'write', 'flush', 'truncate'] as const)('that fails (%s) loses nothing', async (operation) => {
    for (let skip = 0; skip < 14; skip++) {
      const host = hostWith({ map: [7, 6, 5, 4, 3, 2, 1, 0] });
      const content = blocks(8, 0, 6, 5, 0, 3, 2, 1);
      const disk = await openOn(host);
      await disk.writeZeroes(BLOCK, BLOCK);
      await disk.discard(4 * BLOCK, BLOCK);
      const away = host.faults.inject({ operation, code: 'EIO', skip, times: 1 });
      await disk.compact().catch((error: unknown) => expect(error).toMatchObject({ code: 'EIO' }));
      away();
      expectSame(await disk.read(0, 8 * BLOCK), content);
      await disk.write(7 * BLOCK, block(1));
      await disk.compact();
      await disk.close();
      expectSame(stored(host).content(), content);
      await expectTight(host, 6);
    }
  });
});
