/** Growing and shrinking (V-29, V-67). */
import { describe, expect, test } from 'vitest';
import { PATH } from '../../../tests/support/sim-disks.ts';
import { FREE, ZERO } from '../../../tests/support/vdi-bytes.ts';
import {
  BLOCK,
  block,
  blocks,
  checked,
  concat,
  expectSame,
  field,
  hostWith,
  newImage,
  openOn,
  stored,
  withDisk,
} from '../../../tests/support/vdi-on-sim.ts';
import { SeededRandom, type SimHost } from '../../testing/index.ts';

/** Content 1, 2, 3… of so many blocks. */
function counted(count: number): Uint8Array {
  return blocks(...Array.from({ length: count }, (_, i) => (i % 255) + 1));
}

async function expectClean(host: SimHost): Promise<void> {
  expect(stored(host).problems).toEqual([]);
  await withDisk(
    host,
    async (disk) => {
      const { report, findings } = await checked(disk);
      expect([report.corruptions, report.leaks, findings]).toEqual([0, 0, []]);
    },
    { writable: false },
  );
}

describe('growing', () => {
  test('extends the map in place where there is room', async () => {
    const host = hostWith({ map: [1, 0, FREE] });
    await withDisk(host, async (disk) => {
      await disk.resize(100 * BLOCK);
      expect(disk.length).toBe(100 * BLOCK);
      await disk.write(99 * BLOCK, block(7));
    });
    expect(field(host, 'mapOffset')).toBe(0x200);
    expect(field(host, 'dataOffset')).toBe(0x400);
    expectSame(stored(host).content(), concat(blocks(2, 1), block(0, 97 * BLOCK), block(7)));
    await expectClean(host);
  });

  test.each([1, 60, 127, 128])(
    'moves the first blocks out of the way of a longer map, %i of 128 stored',
    async (count) => {
      const map = Array.from({ length: 128 }, (_, i) => (i < count ? count - 1 - i : FREE));
      const host = hostWith({ map });
      const before = stored(host).content();
      await withDisk(host, async (disk) => {
        await disk.resize(2000 * BLOCK);
        expectSame(await disk.read(0, 128 * BLOCK), before);
        expectSame(await disk.read(128 * BLOCK, 1872 * BLOCK), block(0, 1872 * BLOCK));
        await disk.write(1999 * BLOCK, block(9));
      });
      expect(field(host, 'dataOffset')).toBe(0x400 + Math.ceil((2000 * 4) / BLOCK) * BLOCK);
      expectSame(
        stored(host)
          .content()
          .subarray(0, 128 * BLOCK),
        before,
      );
      await expectClean(host);
    },
  );

  test('an image without blocks just begins its data later', async () => {
    const host = await newImage(5);
    await withDisk(host, async (disk) => {
      await disk.resize(5000 * BLOCK);
      await disk.write(4999 * BLOCK, block(3));
    });
    expect(field(host, 'dataOffset') % 512).toBe(0);
    expect(field(host, 'mapOffset')).toBe(0x200);
    await expectClean(host);
  });

  test('again and again, with content between', async () => {
    const host = await newImage(1);
    const model: number[] = [];
    for (let turn = 1; turn <= 12; turn++) {
      await withDisk(host, async (disk) => {
        const length = turn * 150;
        await disk.resize(length * BLOCK);
        for (const at of [length - 1, length - 70, turn]) {
          await disk.write(at * BLOCK, block(turn));
          model[at] = turn;
        }
        for (let at = 0; at < length; at++) expect((await disk.read(at * BLOCK, 1))[0]).toBe(model[at] ?? 0);
      });
    }
    await expectClean(host);
  });

  test('shows no old bytes behind the former end', async () => {
    // The last block holds more than the disk had of it, and the map more entries than it needs.
    const host = hostWith({ map: [0, 1, 2, FREE] }, { diskSizeLow: BLOCK + 512 });
    await withDisk(host, async (disk) => {
      await disk.resize(4 * BLOCK);
      const found = await disk.read(0, 4 * BLOCK);
      expectSame(found.subarray(0, BLOCK + 512), concat(block(1), block(2, 512)));
      expectSame(found.subarray(BLOCK + 512), block(0, 3 * BLOCK - 512));
    });
    expect(stored(host).problems).toEqual([]);
  });

  test('static images stay static, and what they get is zero even where the file holds old bytes', async () => {
    const host = hostWith({ map: [0, 1], type: 2, slots: 4 });
    await withDisk(host, async (disk) => {
      await disk.resize(6 * BLOCK);
      expectSame(await disk.read(0, 6 * BLOCK), blocks(1, 2, 0, 0, 0, 0));
    });
    expect(stored(host)).toMatchObject({ map: [0, 1, 2, 3, 4, 5], allocated: 6 });
    expect(host.contents(PATH).length).toBe(stored(host).dataOffset + 6 * BLOCK);
    await expectClean(host);
  });

  test('a static image past its map’s room', async () => {
    const host = hostWith({ map: Array.from({ length: 128 }, (_, i) => i), type: 2 });
    await withDisk(host, (disk) => disk.resize(300 * BLOCK));
    expect(stored(host).allocated).toBe(300);
    expect(stored(host).map.every((slot) => slot < 300)).toBe(true);
    expectSame(
      stored(host)
        .content()
        .subarray(0, 128 * BLOCK),
      counted(128),
    );
    await expectClean(host);
  });

  test.each(['metadata', 'falloc', 'full'] as const)(
    'with preallocation=%s gives the new blocks places',
    async (preallocation) => {
      const host = hostWith({ map: [0, FREE] });
      await withDisk(host, (disk) => disk.resize(4 * BLOCK, { preallocation }));
      expect(
        stored(host)
          .map.slice(2)
          .every((slot) => slot < ZERO),
      ).toBe(true);
      expectSame(stored(host).content(), blocks(1, 0, 0, 0));
      await expectClean(host);
    },
  );

  test('beyond what a map can hold is refused, and changes nothing', async () => {
    const host = hostWith({ map: [0] });
    await withDisk(host, async (disk) => {
      const refusal = { code: 'ENOTSUP', message: expect.stringContaining('Unsupported VDI image size (size is 0x') };
      await expect(disk.resize(0x1fffff8000200)).rejects.toMatchObject(refusal);
      await expect(disk.resize(536_870_785 * BLOCK)).rejects.toMatchObject(refusal);
      expect(disk.length).toBe(BLOCK);
    });
  });

  test('to an odd size rounds up to a sector', async () => {
    const host = hostWith({ map: [0] });
    await withDisk(host, (disk) => disk.resize(BLOCK + 1));
    expect(stored(host).diskSize).toBe(BLOCK + 512);
  });

  test('keeps extra bytes with their blocks', async () => {
    const host = hostWith({ map: Array.from({ length: 128 }, (_, i) => (i < 3 ? 2 - i : FREE)), blockExtra: 1024 });
    const bytes = host.contents(PATH);
    expect(bytes.length).toBe(0x400 + 3 * (BLOCK + 1024));
    await withDisk(host, async (disk) => {
      await disk.resize(500 * BLOCK);
      expectSame(await disk.read(0, 4 * BLOCK), blocks(3, 2, 1, 0));
    });
    await expectClean(host);
  });
});

describe('shrinking', () => {
  test('needs to be asked for', async () => {
    await withDisk(hostWith({ map: [0, 1] }), async (disk) => {
      await expect(disk.resize(BLOCK)).rejects.toMatchObject({ code: 'EINVAL' });
      expect(disk.length).toBe(2 * BLOCK);
    });
  });

  test('drops what is cut off, and moves blocks that the shorter map could not name', async () => {
    const host = hostWith({ map: [5, 0, 4, 1, FREE, 2, 3] });
    await withDisk(host, async (disk) => {
      await disk.resize(3 * BLOCK, { shrink: true });
      expect(disk.length).toBe(3 * BLOCK);
      expectSame(await disk.read(0, 3 * BLOCK), blocks(6, 1, 5));
    });
    expect(stored(host).map.every((slot) => slot < 3)).toBe(true);
    expectSame(stored(host).content(), blocks(6, 1, 5));
    expect(host.contents(PATH).length).toBe(stored(host).dataOffset + 3 * BLOCK);
    await expectClean(host);
  });

  test('and growing again gives zeroes', async () => {
    const host = hostWith({ map: [0, 1, 2] });
    await withDisk(host, async (disk) => {
      await disk.resize(BLOCK + 512, { shrink: true });
      await disk.resize(3 * BLOCK);
      const expected = blocks(1, 2, 0);
      expected.fill(0, BLOCK + 512);
      expectSame(await disk.read(0, 3 * BLOCK), expected);
    });
    await expectClean(host);
  });

  test('static images stay static', async () => {
    const host = hostWith({ map: [0, 1, 2, 3], type: 2 });
    await withDisk(host, (disk) => disk.resize(2 * BLOCK, { shrink: true }));
    expect(stored(host)).toMatchObject({ map: [0, 1], allocated: 2 });
    expect(host.contents(PATH).length).toBe(stored(host).dataOffset + 2 * BLOCK);
    await expectClean(host);
  });

  test('to nothing', async () => {
    const host = hostWith({ map: [0, 1] });
    await withDisk(host, (disk) => disk.resize(0, { shrink: true }));
    expect(stored(host)).toMatchObject({ diskSize: 0, map: [], allocated: 0 });
    await expectClean(host);
  });
});

describe('beside requests', () => {
  test('reads and writes below the sizes see every block in its place while blocks move', async () => {
    for (let seed = 0; seed < 8; seed++) {
      const map = Array.from({ length: 128 }, (_, i) => (i < 40 ? i : FREE));
      const host = hostWith({ map }, {}, { seed, latency: { min: 0, max: 5 }, refuseNow: seed % 2 === 0 ? 0 : 0.5 });
      const disk = await openOn(host);
      const random = new SeededRandom(seed);
      const expected = counted(40).slice();
      const resizing = disk.resize(3000 * BLOCK);
      let over = false;
      void resizing.finally(() => {
        over = true;
      });
      const work = async () => {
        do {
          const at = random.below(40);
          expect((await disk.read(at * BLOCK, 1))[0]).toBe(expected[at * BLOCK]);
          const value = random.between(1, 255);
          expected.fill(value, at * BLOCK, at * BLOCK + 100);
          await disk.write(at * BLOCK, block(value, 100));
        } while (!over);
      };
      await Promise.all([work(), resizing]);
      expectSame(await disk.read(0, 40 * BLOCK), expected);
      await disk.close();
      await expectClean(host);
    }
  });
});

describe('a failure on the way', () => {
  test.each(['write', 'flush', 'truncate', 'read'] as const)(
    '(%s) leaves the content whole, and the image sound',
    async (operation) => {
      for (const wanted of [3, 60, 2000]) {
        for (let skip = 0; skip < 25; skip++) {
          const host = hostWith({ map: Array.from({ length: 128 }, (_, i) => (i < 70 ? 69 - i : FREE)) });
          const kept = stored(host)
            .content()
            .subarray(0, Math.min(wanted, 70) * BLOCK);
          const disk = await openOn(host);
          const away = host.faults.inject({ operation, code: 'EIO', skip, times: 1 });
          await disk.resize(wanted * BLOCK, { shrink: true }).catch((error: unknown) => {
            expect(error).toMatchObject({ code: 'EIO' });
          });
          away();
          expectSame(await disk.read(0, kept.length), kept);
          // Where the header may or may not have been written, writing is refused until the image is opened anew.
          await disk.write(0, block(1, 10)).catch((error: unknown) => expect(error).toMatchObject({ code: 'EIO' }));
          await disk.close().catch(() => {});
          expect(stored(host).problems).toEqual([]);
          await withDisk(host, async (again) => {
            expect((await checked(again)).report.corruptions).toBe(0);
            expectSame((await again.read(0, kept.length)).subarray(10), kept.subarray(10));
            await again.resize(wanted * BLOCK, { shrink: true });
            expectSame((await again.read(0, kept.length)).subarray(10), kept.subarray(10));
          });
        }
      }
    },
  );
});
