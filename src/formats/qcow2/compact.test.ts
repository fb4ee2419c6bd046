/** Compaction (Q-BEY-1). */
import { describe, expect, test } from 'vitest';
import { readQcow2 } from '../../../tests/support/qcow2-bytes.ts';
import { graphOn, LUKS_KINDS, openKind, PATH, QCOW2_KINDS } from '../../../tests/support/sim-disks.ts';
import { createImage } from '../../core/create.ts';
import type { Disk } from '../../core/disk.ts';
import type { OptionTree } from '../../core/options.ts';
import { differsAt } from '../../testing/compare-bytes.ts';
import { operationData } from '../../testing/disk-operations.ts';
import { SeededRandom, SimHost } from '../../testing/index.ts';

const CLUSTER = 512;
const BELOW = '/below.raw';

async function newImage(size: number, options: OptionTree = {}, below?: Uint8Array): Promise<SimHost> {
  const host = new SimHost({ record: false });
  if (below !== undefined) host.put(BELOW, below);
  const backing = below === undefined ? {} : { backing_file: BELOW, backing_fmt: 'raw' };
  const all = { cluster_size: CLUSTER, ...options, ...backing };
  await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size, options: all });
  return host;
}

async function withDisk<T>(host: SimHost, work: (disk: Disk) => Promise<T>): Promise<T> {
  const disk = await graphOn(host).open(PATH, { format: 'qcow2', writable: true, discard: 'unmap' });
  try {
    return await work(disk);
  } finally {
    await disk.close();
  }
}

const data = (seed: number, clusters = 1) => operationData(seed, clusters * CLUSTER);

/** Sound, without a leak, and as many clusters long as are used. */
function expectTight(host: SimHost, content: Uint8Array, below?: Uint8Array): void {
  const bytes = host.contents(PATH);
  const view = readQcow2(bytes);
  expect([view.problems, view.leaks]).toEqual([[], []]);
  expect(differsAt(view.content(below), content)).toBe(-1);
  expect(Math.ceil(bytes.length / view.clusterSize)).toBe(view.references.size);
}

/** Data here and there, in a random order of places, much of it dropped again. */
async function scatter(disk: Disk, seed: number, steps = 60): Promise<void> {
  const random = new SeededRandom(seed);
  for (let i = 0; i < steps; i++) {
    const offset = random.below(disk.length / 512) * 512;
    const length = Math.min(disk.length - offset, random.between(1, 20) * 512);
    if (random.chance(0.45)) await disk.discard(offset, length);
    else if (random.chance(0.2)) await disk.write(offset, new Uint8Array(length));
    else await disk.write(offset, operationData(seed + i, length));
    if (random.chance(0.1)) await disk.flush();
  }
}

const content = (disk: Disk) => disk.read(0, disk.length);

const PLANS: readonly (readonly [OptionTree, number])[] = [
  [{}, 400 * CLUSTER],
  [{ refcount_bits: 1 }, 400 * CLUSTER],
  [{ refcount_bits: 64 }, 1200 * CLUSTER],
  [{ lazy_refcounts: true }, 300 * CLUSTER],
  [{ compat: '0.10', cluster_size: 1024 }, 300 * CLUSTER],
  [{ cluster_size: 16384, extended_l2: true }, 1200 * CLUSTER],
  [{ cluster_size: 4096, preallocation: 'metadata' }, 500 * CLUSTER],
  [{ cluster_size: 65536 }, 4000 * CLUSTER],
];

/** Bytes that become about half as long. */
function soft(seed: number, length: number): Uint8Array {
  const bytes = operationData(seed, length);
  for (let i = 0; i < length; i++) if ((i >> 4) % 2 === 0) bytes[i] = i >> 6;
  return bytes;
}

async function writeCompressed(disk: Disk, cluster: number, first: number, count: number): Promise<void> {
  for (let i = first; i < first + count; i++) {
    await disk.write(i * cluster, soft(i + 1, cluster), { compressed: true });
  }
}

describe('Q-BEY-1: compaction', () => {
  test.each([
    [{}, 400 * CLUSTER],
    [{ refcount_bits: 64 }, 1200 * CLUSTER],
    [{ refcount_bits: 4 }, 400 * CLUSTER],
    [{ cluster_size: 16384, extended_l2: true }, 1200 * CLUSTER],
  ])('with snapshots, %j: their tables name the copies too', async (options, size) => {
    for (let seed = 1; seed <= 2; seed++) {
      const host = await newImage(size, options);
      const moments: Uint8Array[] = [];
      const before = await withDisk(host, async (disk) => {
        for (let i = 0; i < 4; i++) {
          await scatter(disk, seed * 1000 + i * 100, 25);
          moments.push(await content(disk));
          await disk.snapshots.create(`s${i}`);
        }
        await scatter(disk, seed * 1000 + 500, 40);
        // What only this one had becomes free in the middle.
        await disk.snapshots.delete('s1');
        moments.splice(1, 1);
        return content(disk);
      });
      await withDisk(host, (disk) => disk.compact());
      expectTight(host, before);
      const kept = readQcow2(host.contents(PATH)).snapshots;
      expect(kept.map((each, i) => differsAt(each.content(), moments[i] ?? before))).toEqual([-1, -1, -1]);
      await withDisk(host, async (disk) => {
        await disk.snapshots.apply('s0');
        expect(differsAt(await content(disk), moments[0] ?? before)).toBe(-1);
        for (const name of ['s0', 's2', 's3']) await disk.snapshots.delete(name);
      });
      expect(readQcow2(host.contents(PATH))).toMatchObject({ problems: [], leaks: [] });
    }
  });

  test('stopped with snapshots leaves no cluster counted for nothing', async () => {
    for (let stop = 1; stop < 40; stop += 3) {
      const host = await newImage(300 * CLUSTER);
      const before = await withDisk(host, async (disk) => {
        await scatter(disk, 61);
        await disk.snapshots.create('a');
        await scatter(disk, 67);
        return content(disk);
      });
      await withDisk(host, async (disk) => {
        const control = new AbortController();
        let steps = 0;
        const progress = () => {
          if (++steps === stop) control.abort();
        };
        await disk.compact({ signal: control.signal, progress }).catch(() => {});
        expect(differsAt(await content(disk), before)).toBe(-1);
      });
      expect(readQcow2(host.contents(PATH))).toMatchObject({ problems: [], leaks: [] });
    }
  });

  test.each([
    [{ cluster_size: 4096 }, 4096],
    [{ cluster_size: 4096, refcount_bits: 1 }, 4096],
    [{ cluster_size: 16384, refcount_bits: 8 }, 16384],
    [{ cluster_size: 512 }, 512],
  ])('packs compressed clusters into holes: %j', async (options, cluster) => {
    const host = await newImage(160 * cluster, options);
    const before = await withDisk(host, async (disk) => {
      await disk.write(0, operationData(3, 30 * cluster));
      await writeCompressed(disk, cluster, 40, 60);
      await writeCompressed(disk, cluster, 100, 40);
      await disk.discard(2 * cluster, 25 * cluster);
      await disk.discard(50 * cluster, 10 * cluster);
      return content(disk);
    });
    const long = host.contents(PATH).length;
    await withDisk(host, async (disk) => {
      await disk.compact();
      expect(differsAt(await content(disk), before)).toBe(-1);
    });
    const view = readQcow2(host.contents(PATH));
    expect([view.problems, view.leaks]).toEqual([[], []]);
    expect(differsAt(view.content(), before)).toBe(-1);
    expect(host.contents(PATH).length).toBeLessThan(long - 12 * cluster);
  });

  test('compressed clusters that a snapshot shares stay shared', async () => {
    const cluster = 4096;
    const host = await newImage(100 * cluster, { cluster_size: cluster });
    const [before, old] = await withDisk(host, async (disk) => {
      await disk.write(0, operationData(3, 20 * cluster));
      await writeCompressed(disk, cluster, 20, 40);
      const moment = await content(disk);
      await disk.snapshots.create('kept');
      await disk.write(99 * cluster, data(7));
      await disk.snapshots.create('later');
      await disk.write(98 * cluster, data(8));
      for (const name of ['later']) await disk.snapshots.delete(name);
      return [await content(disk), moment] as const;
    });
    const references = () => readQcow2(host.contents(PATH)).references.size;
    const used = references();
    await withDisk(host, async (disk) => {
      await disk.discard(0, 20 * cluster);
      await disk.snapshots.apply('kept');
      await disk.discard(0, 20 * cluster);
      await disk.compact();
      await disk.snapshots.create('again');
    });
    expect(references()).toBeLessThan(used + 6);
    const view = readQcow2(host.contents(PATH));
    expect([view.problems, view.leaks]).toEqual([[], []]);
    expect(differsAt(view.snapshots[0]?.content() ?? before, old)).toBe(-1);
  });

  test.each(['qcow2, LUKS', 'qcow2, AES'])(
    'Q-CRYPT-1: moved clusters of an encrypted image are encrypted for their new places (%s)',
    async (name) => {
      const kind = [...LUKS_KINDS, ...QCOW2_KINDS].find((each) => each.name === name);
      if (kind === undefined) throw new Error('there is no such kind');
      const host = new SimHost({ record: false });
      const length = 200 * 4096;
      await kind.make(host, length);
      const open = () => openKind(graphOn(host), kind, length, { writable: true, discard: 'unmap' });
      const disk = await open();
      await scatter(disk, 19);
      const before = await content(disk);
      const long = host.contents(PATH).length;
      await disk.compact();
      expect(differsAt(await content(disk), before)).toBe(-1);
      await disk.close();
      const again = await open();
      expect(differsAt(await content(again), before)).toBe(-1);
      await again.close();
      expect(host.contents(PATH).length).toBeLessThan(long);
      expect(readQcow2(host.contents(PATH))).toMatchObject({ problems: [], leaks: [] });
    },
  );

  test.each(PLANS)('%j of %i bytes', async (options, size) => {
    for (let seed = 1; seed <= 2; seed++) {
      const host = await newImage(size, options);
      const before = await withDisk(host, async (disk) => {
        await scatter(disk, seed * 100);
        return content(disk);
      });
      await withDisk(host, async (disk) => {
        await disk.compact();
        expect(differsAt(await content(disk), before)).toBe(-1);
      });
      expectTight(host, before);
      // Once more, there is nothing to do.
      const once = host.contents(PATH);
      await withDisk(host, (disk) => disk.compact());
      expect(differsAt(host.contents(PATH).subarray(112), once.subarray(112))).toBe(-1);
    }
  });

  test.each(QCOW2_KINDS)('$name: all is there afterwards, and written to as before', async (kind) => {
    const host = new SimHost({ record: false });
    const length = 30 * kind.blockSize;
    await kind.make(host, length);
    const disk = await openKind(graphOn(host), kind, length, { writable: true, discard: 'unmap' });
    await scatter(disk, 41);
    const before = await content(disk);
    await disk.compact();
    expect(differsAt(await content(disk), before)).toBe(-1);
    await disk.write(100, data(9));
    before.set(data(9), 100);
    await disk.close();
    const again = await openKind(graphOn(host), kind, length, { writable: false });
    expect(differsAt(await content(again), before)).toBe(-1);
    const report = await again.check({ repair: 'none', finding: () => {} });
    expect(report).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
    await again.close();
  });

  test('over an image below, which shows where it showed before', async () => {
    const below = operationData(9, 250 * CLUSTER);
    for (const options of [{}, { cluster_size: 16384, extended_l2: true }, { compat: '0.10' }]) {
      const host = await newImage(300 * CLUSTER, options, below);
      const before = await withDisk(host, async (disk) => {
        await scatter(disk, 5);
        return content(disk);
      });
      await withDisk(host, (disk) => disk.compact());
      expectTight(host, before, below);
    }
  });

  test('clusters of zeroes lose their storage, others keep their place if they need not move', async () => {
    const host = await newImage(20 * CLUSTER);
    await withDisk(host, (disk) => disk.write(0, data(1, 6)));
    const places = () =>
      [...readQcow2(host.contents(PATH)).entries].map(([guest, { entry }]) => [guest, Number(entry & 0xffffffffn)]);
    const before = new Map(places().map(([guest, place]) => [guest, place]));
    await withDisk(host, async (disk) => {
      await disk.write(4 * CLUSTER, new Uint8Array(2 * CLUSTER));
      await disk.compact();
    });
    const after = new Map(places().map(([guest, place]) => [guest, place]));
    for (const guest of [0, 1, 2, 3]) expect(after.get(guest)).toBe(before.get(guest));
    expect([after.get(4), after.get(5)]).toEqual([1, 1]);
  });

  test('gives back what leaked', async () => {
    const host = await newImage(100 * CLUSTER);
    await withDisk(host, (disk) => disk.write(0, data(3, 20)));
    const bytes = host.contents(PATH);
    // A count in the last refcount block, for a cluster far behind everything.
    const view = new DataView(bytes.buffer);
    const block = Number(view.getBigUint64(Number(view.getBigUint64(48))));
    view.setUint16(block + 200 * 2, 1);
    const grown = new Uint8Array(201 * CLUSTER);
    grown.set(bytes);
    const again = new SimHost({ record: false });
    again.put(PATH, grown);
    const before = await withDisk(again, content);
    await withDisk(again, (disk) => disk.compact());
    expectTight(again, before);
  });

  test('an image with errors is refused and left as it is', async () => {
    const host = await newImage(100 * CLUSTER);
    await withDisk(host, (disk) => disk.write(0, data(3, 20)));
    const bytes = host.contents(PATH);
    const view = new DataView(bytes.buffer);
    const block = Number(view.getBigUint64(Number(view.getBigUint64(48))));
    view.setUint16(block + 5 * 2, 0);
    const broken = new SimHost({ record: false });
    broken.put(PATH, bytes);
    await withDisk(broken, async (disk) => {
      await expect(disk.compact()).rejects.toMatchObject({
        code: 'EIO',
        message: `'${PATH}' has errors: it can be compacted when it is repaired`,
      });
    });
  });

  test('reports progress that only grows, from nothing to all', async () => {
    const host = await newImage(200 * CLUSTER);
    await withDisk(host, async (disk) => {
      await scatter(disk, 77);
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

  test('holds writes back that come meanwhile, and loses none', async () => {
    const host = await newImage(200 * CLUSTER);
    let before: Uint8Array = new Uint8Array(0);
    await withDisk(host, async (disk) => {
      await scatter(disk, 31);
      before = await content(disk);
      const compacting = disk.compact();
      const writing = Array.from({ length: 10 }, (_, i) => disk.write(i * 17 * CLUSTER + 5, data(i + 1)));
      await Promise.all([compacting, ...writing]);
      for (let i = 0; i < 10; i++) before.set(data(i + 1), i * 17 * CLUSTER + 5);
      expect(differsAt(await content(disk), before)).toBe(-1);
    });
    expect(readQcow2(host.contents(PATH)).problems).toEqual([]);
  });

  test('stopped anywhere leaves a sound image with the same content, and can be done again', async () => {
    let stops = 0;
    for (let stop = 1; stop < 60; stop += 4) {
      const host = await newImage(200 * CLUSTER);
      const before = await withDisk(host, async (disk) => {
        await scatter(disk, 12);
        return content(disk);
      });
      await withDisk(host, async (disk) => {
        const control = new AbortController();
        let steps = 0;
        const progress = () => {
          if (++steps === stop) control.abort();
        };
        await disk.compact({ signal: control.signal, progress }).catch((error: unknown) => {
          stops++;
          expect(error).toMatchObject({ name: 'AbortError' });
        });
        expect(differsAt(await content(disk), before)).toBe(-1);
      });
      const { problems, leaks } = readQcow2(host.contents(PATH));
      expect([problems, leaks]).toEqual([[], []]);
      await withDisk(host, (disk) => disk.compact());
      expectTight(host, before);
    }
    expect(stops).toBeGreaterThan(2);
  });

  test.each(['read', 'write', 'flush', 'truncate'] as const)('that fails (%s) loses nothing', async (operation) => {
    for (let skip = 0; skip < 120; skip += 13) {
      const host = await newImage(120 * CLUSTER);
      const before = await withDisk(host, async (disk) => {
        await scatter(disk, 8, 40);
        return content(disk);
      });
      await withDisk(host, async (disk) => {
        const away = host.faults.inject({ operation, code: 'EIO', skip, times: 1 });
        await disk.compact().catch((error: unknown) => expect(error).toMatchObject({ code: 'EIO' }));
        away();
        expect(differsAt(await content(disk), before)).toBe(-1);
        await disk.write(7 * CLUSTER, data(1));
        before.set(data(1), 7 * CLUSTER);
      });
      expect(readQcow2(host.contents(PATH)).problems).toEqual([]);
      await withDisk(host, (disk) => disk.compact());
      expectTight(host, before);
    }
  });
});
