/** The order of what reaches the file (V-24 to V-26), seen in the log of a simulated host. */
import { describe, expect, test } from 'vitest';
import { Loopback } from '../../../tests/support/nbd-client.ts';
import { PATH } from '../../../tests/support/sim-disks.ts';
import { FREE, makeVdi, ZERO } from '../../../tests/support/vdi-bytes.ts';
import {
  BLOCK,
  block,
  blocks,
  checked,
  expectSame,
  field,
  hostWith,
  newImage,
  openOn,
  stored,
  withDisk,
} from '../../../tests/support/vdi-on-sim.ts';
import type { SimHost } from '../../testing/index.ts';

/** What the log holds from entry `from` on: header, map, data, flush, truncate. Data begins at 0x400. */
function kinds(host: SimHost, from: number): string[] {
  return host.log.slice(from).map((entry) => {
    if (entry.type !== 'change') return entry.type;
    const { change } = entry;
    if (change.kind !== 'write') return change.kind;
    if (change.offset === 0) return 'header';
    return change.offset < 0x400 ? 'map' : 'data';
  });
}

/** Without repeats of the same kind in a row, and without changes of length only. */
function order(host: SimHost, from: number): string[] {
  const all = kinds(host, from).filter((kind) => kind !== 'truncate' && kind !== 'punch');
  return all.filter((kind, i) => kind !== all[i - 1]);
}

/** Whether a power cut now would lose nothing but storage given back to the host. */
function isDurable(host: SimHost): boolean {
  const covered = host.log.reduce((most, entry) => (entry.type === 'flush' ? Math.max(most, entry.covers) : most), 0);
  return host.log.findLastIndex((entry) => entry.type === 'change' && entry.change.kind === 'write') < covered;
}

describe('a flush after an allocation (V-24)', () => {
  test('makes data, then the count, then the map durable', async () => {
    const host = await newImage(8);
    await withDisk(host, async (disk) => {
      const from = host.log.length;
      await disk.write(0, block(1));
      await disk.write(3 * BLOCK + 5, block(2, 100));
      expect(kinds(host, from).filter((kind) => kind === 'map' || kind === 'header')).toEqual([]);
      await disk.flush();
      const done = order(host, from);
      const map = done.indexOf('map');
      expect(done.lastIndexOf('map')).toBe(map);
      expect(done.lastIndexOf('data')).toBeLessThan(done.indexOf('flush'));
      expect(done.lastIndexOf('header')).toBeLessThan(map);
      // The count and the data are durable before the map, and the map at the end.
      expect([done[map - 1], done.at(-1)]).toEqual(['flush', 'flush']);
      expect(stored(host)).toMatchObject({ allocated: 2, problems: [] });
    });
  });

  test('a second one writes no metadata', async () => {
    const host = await newImage(8);
    await withDisk(host, async (disk) => {
      await disk.write(0, block(1));
      await disk.flush();
      const from = host.log.length;
      await disk.write(100, block(2, 10));
      await disk.flush();
      expect(order(host, from)).toEqual(['data', 'flush']);
      await disk.flush();
      expect(order(host, from)).toEqual(['data', 'flush']);
    });
  });

  test('leaves each block whole in the file, also the last', async () => {
    const host = await newImage(8);
    await withDisk(host, async (disk) => {
      await disk.write(BLOCK + 7, block(1, 3));
      await disk.flush();
      expect(host.contents(PATH).length).toBe(stored(host).dataOffset + BLOCK);
      await disk.write(0, block(2, 3));
      await disk.write(7 * BLOCK, block(3, 3));
    });
    expect(host.contents(PATH).length).toBe(stored(host).dataOffset + 3 * BLOCK);
  });

  test('closing does the same without being asked', async () => {
    const host = await newImage(4);
    await withDisk(host, (disk) => disk.write(BLOCK, block(9)));
    expectSame(stored(host).content(), blocks(0, 9, 0, 0));
  });

  test('forced writes and write-through are durable one by one', async () => {
    const host = await newImage(4);
    await withDisk(host, async (disk) => {
      await disk.write(0, block(1), { fua: true });
      expect(isDurable(host)).toBe(true);
    });
    const other = await newImage(4);
    await withDisk(
      other,
      async (disk) => {
        await disk.write(0, block(1));
        await disk.writeZeroes(0, BLOCK, { unmap: true });
        expect(stored(other).map[0]).toBe(ZERO);
        expect(isDurable(other)).toBe(true);
      },
      { cache: 'writethrough' },
    );
  });
});

describe('concurrent flushes', () => {
  test('that wait share the next one', async () => {
    const host = await newImage(16, {}, { latency: { min: 1, max: 1 } });
    await withDisk(host, async (disk) => {
      await disk.write(0, block(1));
      const from = host.log.length;
      await Promise.all([disk.flush(), disk.flush(), disk.flush(), disk.flush()]);
      expect(kinds(host, from).filter((kind) => kind === 'map')).toHaveLength(1);
    });
  });

  test('leave out blocks that are allocated while they run, and the next one takes them', async () => {
    const host = await newImage(16, {}, { latency: { min: 1, max: 3 }, seed: 4 });
    await withDisk(host, async (disk) => {
      const work: Promise<void>[] = [];
      for (let i = 0; i < 16; i++) {
        work.push(disk.write(i * BLOCK, block(i + 1)));
        if (i % 3 === 0) work.push(disk.flush());
      }
      await Promise.all(work);
      await disk.flush();
      expect(stored(host).problems).toEqual([]);
      expectSame(stored(host).content(), blocks(...Array.from({ length: 16 }, (_, i) => i + 1)));
    });
  });
});

describe('a failure', () => {
  test('of storage that is full and has the size it has, as devices and exports do: ENOSPC (V-26)', async () => {
    const image = makeVdi({ map: [FREE, FREE, FREE], diskSize: 3 * BLOCK, blockSize: BLOCK });
    const loop = await Loopback.start({ driver: 'memory', size: image.length + BLOCK });
    await loop.disk.write(0, image);
    const disk = await loop.graph.open({ driver: 'vdi', file: { driver: 'nbd', path: '/s' } }, { writable: true });
    await disk.write(0, block(1));
    await expect(disk.write(BLOCK, block(2))).rejects.toMatchObject({
      code: 'ENOSPC',
      message: 'No space left on device',
    });
    await disk.write(5, block(3, 100));
    await disk.close();
  });

  test('V-26: of an allocating write leaves the block unallocated, and its place is used again', async () => {
    const host = await newImage(8);
    await withDisk(host, async (disk) => {
      await disk.write(0, block(1));
      const away = host.faults.inject({
        operation: ['write', 'truncate'],
        code: 'ENOSPC',
        offset: stored(host).dataOffset + BLOCK,
      });
      await expect(disk.write(4 * BLOCK, block(2))).rejects.toMatchObject({ code: 'ENOSPC' });
      away();
      expectSame(await disk.read(4 * BLOCK, BLOCK), block(0));
      await disk.flush();
      expect(stored(host).map[4]).toBe(FREE);
      // What the failed write left in its place must not show.
      await disk.write(5 * BLOCK + 10, block(3, 5));
      await disk.flush();
      expect(stored(host).map[5]).toBe(1);
      const found = await disk.read(5 * BLOCK, BLOCK);
      expectSame(
        found.filter((byte) => byte !== 0),
        block(3, 5),
      );
    });
    expect(stored(host)).toMatchObject({ allocated: 2, problems: [] });
  });

  test.each(['write', 'flush', 'truncate'] as const)(
    'of a flush (%s) keeps everything dirty for the next',
    async (operation) => {
      for (let skip = 0; skip < 6; skip++) {
        const host = await newImage(8);
        await withDisk(host, async (disk) => {
          await disk.write(0, block(1));
          await disk.flush();
          await disk.write(2 * BLOCK, block(2, 100));
          await disk.discard(0, BLOCK);
          const away = host.faults.inject({ operation, code: 'EIO', skip, times: 1 });
          await disk.flush().catch((error: unknown) => expect(error).toMatchObject({ code: 'EIO' }));
          away();
          expect(stored(host).problems).toEqual([]);
          await disk.flush();
          expect(isDurable(host)).toBe(true);
          expectSame(
            stored(host)
              .content()
              .subarray(0, 3 * BLOCK),
            Uint8Array.from([...block(0), ...block(0), ...block(2, 100), ...block(0, BLOCK - 100)]),
          );
        });
        await withDisk(host, async (disk) => expect((await checked(disk)).report.corruptions).toBe(0), {
          writable: false,
        });
      }
    },
  );
});

describe('slots that a discard gave up', () => {
  test('are not used before the map without them is durable', async () => {
    const host = await newImage(3);
    await withDisk(host, async (disk) => {
      await disk.write(0, blocks(1, 2));
      await disk.flush();
      await disk.discard(0, BLOCK);
      await disk.write(2 * BLOCK, block(3));
      await disk.flush();
      expect(stored(host).map).toEqual([ZERO, 1, 2]);
      await disk.write(0, block(4));
      await disk.flush();
      expect(stored(host).map).toEqual([0, 1, 2]);
    });
  });

  test('are waited for when there is no other place', async () => {
    const host = await newImage(2, {}, { latency: { min: 0, max: 3 } });
    await withDisk(host, async (disk) => {
      await disk.write(0, blocks(1, 2));
      await disk.discard(0, 2 * BLOCK);
      await Promise.all([
        disk.write(0, block(5)),
        disk.write(BLOCK + 1, block(6, 10)),
        disk.flush(),
        disk.read(0, BLOCK),
      ]);
      expectSame(await disk.read(0, BLOCK), block(5));
    });
    expect(stored(host).problems).toEqual([]);
  });

  test('V-65: at the end leave the count and the file', async () => {
    const host = hostWith({ map: [0, 1, 2, FREE] });
    await withDisk(host, async (disk) => {
      await disk.discard(BLOCK, 2 * BLOCK);
      await disk.flush();
      expect(field(host, 'allocated')).toBe(1);
      expect(host.contents(PATH).length).toBe(stored(host).dataOffset + BLOCK);
    });
  });

  test('V-27: in the middle keep the count, and the host gets their storage back', async () => {
    const host = hostWith({ map: [0, 1, 2, FREE], dataOffset: BLOCK });
    const before = (await host.files.stat(PATH)).allocated ?? 0;
    await withDisk(host, (disk) => disk.discard(0, BLOCK));
    expect(field(host, 'allocated')).toBe(3);
    expect((await host.files.stat(PATH)).allocated).toBeLessThan(before);
    await withDisk(host, async (disk) => {
      expect((await checked(disk)).report).toMatchObject({ corruptions: 0, leaks: 1 });
      await disk.write(3 * BLOCK, block(9));
    });
    expect(stored(host).map).toEqual([ZERO, 1, 2, 0]);
  });

  test('are not given to others while a request that knows them is under way', async () => {
    for (let seed = 0; seed < 20; seed++) {
      const host = hostWith({ map: [0, 1, FREE, FREE] }, {}, { seed, latency: { min: 1, max: 30 }, refuseNow: 1 });
      const disk = await openOn(host);
      // Late writes and reads of block 0, its discard, and blocks that would like its place.
      const late = disk.write(100, block(7, 50));
      const reading = disk.read(0, BLOCK);
      await disk.discard(0, BLOCK);
      await Promise.all([
        disk.flush(),
        disk.write(2 * BLOCK, block(5)),
        disk.flush().then(() => disk.write(3 * BLOCK, block(6))),
      ]);
      const found = await reading;
      expect(found.every((byte) => [0, 1, 7].includes(byte))).toBe(true);
      await late;
      expectSame(await disk.read(2 * BLOCK, 2 * BLOCK), blocks(5, 6));
      await disk.close();
      expectSame(stored(host).content().subarray(BLOCK), blocks(2, 5, 6));
    }
  });
});
