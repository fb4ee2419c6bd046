/** Compressed writes (Q-WR-9), how they are packed (Q-REF-7), and what is left when they fail. */
import { describe, expect, test } from 'vitest';
import { testSeed } from '../../../tests/set-up/seed.ts';
import { DRIVERS } from '../../../tests/support/drivers.ts';
import { readQcow2 } from '../../../tests/support/qcow2-bytes.ts';
import { graphOn, PATH } from '../../../tests/support/sim-disks.ts';
import { deflateRaw } from '../../bytes/deflate.ts';
import { createImage } from '../../core/create.ts';
import type { Disk } from '../../core/disk.ts';
import { defineFilter } from '../../core/driver.ts';
import { Graph } from '../../core/graph.ts';
import type { NestedOptions, OptionTree } from '../../core/options.ts';
import { differsAt } from '../../testing/compare-bytes.ts';
import { operationData } from '../../testing/disk-operations.ts';
import { SeededRandom, SimHost } from '../../testing/index.ts';
import { compressedEntry, compressedLimit, compressedPlace } from './tables.ts';

const CLUSTER = 4096;
const FRESH = 4 * CLUSTER;
const COMPRESSED = { compressed: true };
const CHECK = { repair: 'none', finding() {} } as const;

interface Made {
  readonly host: SimHost;
  readonly disk: Disk;
}

async function made(size: number, options: OptionTree = {}, host = new SimHost({ record: false })): Promise<Made> {
  await createImage(graphOn(host), {
    filename: PATH,
    format: 'qcow2',
    size,
    options: { cluster_size: CLUSTER, ...options },
  });
  return { host, disk: await open(host) };
}

function open(host: SimHost, options: NestedOptions = {}): Promise<Disk> {
  const tree = { driver: 'qcow2', file: { driver: 'file', filename: PATH }, ...options };
  return graphOn(host).open(tree, { writable: true });
}

/** Bytes of which about `part` in a hundred are noise: the rest is compressed away. */
function partlyNoise(length: number, part: number, seed = 1): Uint8Array {
  const bytes = operationData(seed, length);
  for (let at = 0; at < length; at += 100) bytes.fill(seed, at + part, Math.min(length, at + 100));
  return bytes;
}

/** The disk's content, read without the driver; the image must be sound. */
function contentOf(host: SimHost): Uint8Array {
  const image = readQcow2(host.contents(PATH));
  expect(image.problems).toEqual([]);
  return image.content();
}

/** Offset and stored length of a compressed cluster, by the bytes of its entry in the first L2 table. */
function placeIn(host: SimHost, index: number, entryBytes = 8) {
  const view = new DataView(host.contents(PATH).buffer);
  const l1 = Number(view.getBigUint64(40));
  const l2 = Number(view.getBigUint64(l1) & 0x00fffffffffffe00n);
  const high = view.getUint32(l2 + index * entryBytes);
  const low = view.getUint32(l2 + index * entryBytes + 4);
  const isCompressed = (high & 0x40000000) !== 0;
  return { isCompressed, ...compressedPlace(high, low, view.getUint32(20)) };
}

describe('what is stored (Q-WR-9, Q-MAP-5, Q-MAP-6)', () => {
  test.each<OptionTree>([
    {},
    { compression_type: 'zstd' },
    { cluster_size: 512 },
    { cluster_size: 512, refcount_bits: 1 },
    { cluster_size: 65536, refcount_bits: 64, lazy_refcounts: true },
    { cluster_size: 16384, extended_l2: true, compression_type: 'zstd' },
    { compat: '0.10' },
  ])('clusters that compress, some that do not, and the end of the disk: %j', async (options) => {
    const cluster = Number(options.cluster_size ?? CLUSTER);
    const size = 9 * cluster + 512;
    const { host, disk } = await made(size, options);
    const content = new Uint8Array(size);
    content.set(partlyNoise(4 * cluster, 30));
    content.set(operationData(8, cluster), 4 * cluster);
    content.set(partlyNoise(2 * cluster, 50, 3), 6 * cluster);
    content.set(partlyNoise(cluster + 512, 20, 4), 8 * cluster);
    await disk.write(0, content.subarray(0, 5 * cluster), COMPRESSED);
    await disk.write(6 * cluster, content.subarray(6 * cluster), COMPRESSED);
    expect(differsAt(await disk.read(0, size), content)).toBe(-1);
    await disk.close();
    // The reader in the tests knows no zstd.
    if (options.compression_type === undefined) expect(differsAt(contentOf(host), content)).toBe(-1);
    else expect(readQcow2(host.contents(PATH)).problems).toEqual([]);
    // What does not become shorter is stored as it is.
    const entryBytes = options.extended_l2 ? 16 : 8;
    expect([0, 1, 2, 3, 4].map((index) => placeIn(host, index, entryBytes).isCompressed)).toEqual([
      true,
      true,
      true,
      true,
      false,
    ]);
    const again = await open(host);
    expect(differsAt(await again.read(0, size), content)).toBe(-1);
    expect(await again.check(CHECK)).toMatchObject({
      corruptions: 0,
      leaks: 0,
      compressedClusters: 8,
    });
    await again.close();
  });

  test('only whole clusters, or up to the end of the disk: EINVAL', async () => {
    const { disk } = await made(3 * CLUSTER + 700);
    for (const [offset, length] of [
      [0, 512],
      [512, CLUSTER],
      [CLUSTER, CLUSTER + 1],
      [3 * CLUSTER, 512],
      [3 * CLUSTER + 512, 188],
    ] as const) {
      await expect(disk.write(offset, new Uint8Array(length), COMPRESSED)).rejects.toMatchObject({
        code: 'EINVAL',
        message: `Compressed writes must be whole clusters of 4096 bytes, not bytes ${offset} to ${offset + length}`,
      });
    }
    // The disk itself is rounded up to whole sectors.
    await disk.write(3 * CLUSTER, new Uint8Array(1024).fill(3), COMPRESSED);
    await disk.write(CLUSTER, new Uint8Array(0), COMPRESSED);
    await disk.close();
  });

  test('clusters that are there already are replaced, whatever they were', async () => {
    const { host, disk } = await made(8 * CLUSTER);
    await disk.write(0, operationData(1, 4 * CLUSTER));
    await disk.writeZeroes(2 * CLUSTER, CLUSTER);
    await disk.write(4 * CLUSTER, partlyNoise(2 * CLUSTER, 10, 5), COMPRESSED);
    await disk.flush();
    const content = partlyNoise(6 * CLUSTER, 20, 6);
    await disk.write(0, content, COMPRESSED);
    expect(differsAt(await disk.read(0, 6 * CLUSTER), content)).toBe(-1);
    const report = await disk.check(CHECK);
    expect(report).toMatchObject({ corruptions: 0, leaks: 0, compressedClusters: 6 });
    await disk.close();
    expect(differsAt(contentOf(host).subarray(0, 6 * CLUSTER), content)).toBe(-1);
  });

  test('Q-DATA-3: not with a data file', async () => {
    const { disk } = await made(4 * CLUSTER, { data_file: '/disk.data' });
    await expect(disk.write(0, new Uint8Array(CLUSTER), COMPRESSED)).rejects.toMatchObject({
      code: 'ENOTSUP',
      message: 'Compression is not supported in images with an external data file',
    });
    await disk.close();
  });

  test('the file ends with a whole sector when it is closed', async () => {
    const { host, disk } = await made(4 * CLUSTER);
    await disk.write(0, partlyNoise(CLUSTER, 13), COMPRESSED);
    expect(host.contents(PATH).length % 512).not.toBe(0);
    await disk.close();
    expect(host.contents(PATH).length % 512).toBe(0);
    // One that nothing was packed into keeps its odd end (Q-HDR-1).
    const other = await made(4 * CLUSTER, {}, new SimHost({ record: false }));
    await other.disk.close();
    expect(other.host.contents(PATH)).toHaveLength(3 * CLUSTER + 8);
  });
});

describe('packing (Q-REF-7)', () => {
  test('each follows the one before, into the next cluster too', async () => {
    const { host, disk } = await made(40 * CLUSTER);
    await disk.write(0, partlyNoise(20 * CLUSTER, 40), COMPRESSED);
    await disk.close();
    const places = Array.from({ length: 20 }, (_, index) => placeIn(host, index));
    // Behind the L2 table, which is made first.
    expect(places[0]?.offset).toBe(FRESH + CLUSTER);
    const gaps = places.slice(1).map(({ offset }, i) => offset - (places[i]?.offset ?? 0));
    expect(gaps.every((gap) => gap > 1500 && gap < 2300)).toBe(true);
    expect(host.contents(PATH).length).toBeLessThan(FRESH + CLUSTER + 20 * 2300);
  });

  test('a cluster that is not free ends it: the next data go to a new one', async () => {
    const { host, disk } = await made(40 * CLUSTER);
    await disk.write(0, partlyNoise(CLUSTER, 60), COMPRESSED);
    // Takes the cluster behind.
    await disk.write(CLUSTER, operationData(1, CLUSTER));
    await disk.write(2 * CLUSTER, partlyNoise(CLUSTER, 60, 2), COMPRESSED);
    await disk.write(3 * CLUSTER, partlyNoise(CLUSTER, 10, 3), COMPRESSED);
    await disk.close();
    const [first, third, fourth] = [0, 2, 3].map((index) => placeIn(host, index));
    expect(first?.offset).toBe(FRESH + CLUSTER);
    expect(third?.offset).toBe(FRESH + 3 * CLUSTER);
    expect((fourth?.offset ?? 0) - (third?.offset ?? 0)).toBeLessThan(CLUSTER);
    contentOf(host);
  });

  test('a count that is full starts a new cluster', async () => {
    const { host, disk } = await made(40 * CLUSTER, { refcount_bits: 2 });
    await disk.write(0, new Uint8Array(10 * CLUSTER).fill(7), COMPRESSED);
    await disk.close();
    const clusters = Array.from({ length: 10 }, (_, index) => Math.floor(placeIn(host, index).offset / CLUSTER));
    expect(clusters).toEqual([5, 5, 5, 6, 6, 6, 7, 7, 7, 8]);
    contentOf(host);
  });

  test('nothing is packed into what is used for something else by now', async () => {
    const { host, disk } = await made(40 * CLUSTER);
    await disk.write(0, new Uint8Array(CLUSTER).fill(1), COMPRESSED);
    await disk.discard(0, CLUSTER);
    await disk.flush();
    const data = operationData(3, CLUSTER);
    await disk.write(CLUSTER, data);
    await disk.write(2 * CLUSTER, new Uint8Array(CLUSTER).fill(2), COMPRESSED);
    await disk.write(3 * CLUSTER, new Uint8Array(CLUSTER).fill(3));
    expect(differsAt(await disk.read(CLUSTER, CLUSTER), data)).toBe(-1);
    await disk.close();
    expect(differsAt(contentOf(host).subarray(CLUSTER, 2 * CLUSTER), data)).toBe(-1);
  });

  test('requests get their storage in the order in which they were made, however long compressing takes', async () => {
    const layout = async (seed: number) => {
      const random = new SeededRandom(seed);
      const host = new SimHost({ record: false, seed, latency: { min: 0, max: seed } });
      const late = async (source: Uint8Array, target: Uint8Array) => {
        await host.clock.sleep(random.below(seed * 5));
        return deflateRaw(source, target);
      };
      const { disk } = await made(64 * CLUSTER, {}, Object.assign(host, seed === 0 ? {} : { deflateRaw: late }));
      await Promise.all(
        [0, 1, 2, 3].map((part) => disk.write(part * 8 * CLUSTER, partlyNoise(8 * CLUSTER, 30, part + 1), COMPRESSED)),
      );
      await disk.close();
      return host.contents(PATH);
    };
    const first = await layout(0);
    for (const seed of [2, 9]) expect(differsAt(await layout(seed), first)).toBe(-1);
  });

  test('entries name what is packed, up to what they can (Q-LIM-1)', () => {
    for (const bits of [9, 16, 21]) {
      const most = compressedLimit(bits);
      for (const offset of [512, 65536 + 77, 2 ** 41 + 511, most - 2 ** 22]) {
        for (const length of [1, 400, 2 ** bits - 1]) {
          const words = compressedEntry({ offset, length }, bits);
          const place = compressedPlace(words.high, words.low, bits);
          expect(place.offset).toBe(offset);
          expect(place.length).toBeGreaterThanOrEqual(length);
          expect(place.length).toBeLessThan(length + 512);
        }
      }
    }
    expect([16, 21].map(compressedLimit)).toEqual([2 ** 53, 2 ** 49]);
  });
});

describe('order and failures', () => {
  test('Q-EV-2: data are written, and what names them then', async () => {
    const { host, disk: fresh } = await made(8 * CLUSTER);
    await fresh.write(0, partlyNoise(CLUSTER, 20), COMPRESSED);
    await fresh.close();
    const story: string[] = [];
    const spy = defineFilter<Record<never, never>>({
      name: 'spy',
      summary: 'Writes down what is done',
      options: {},
      async open({ file }) {
        return {
          debugEvent(event) {
            if (/compressed|bytes/.test(event)) story.push(event);
            return undefined;
          },
          async write(offset, source) {
            story.push(`write ${source.length}`);
            await file.write(offset, source);
          },
        };
      },
    });
    const graph = new Graph({ host, drivers: [...DRIVERS, spy] });
    const tree = { driver: 'qcow2', file: { driver: 'spy', file: { driver: 'file', filename: PATH } } };
    const disk = await graph.open(tree, { writable: true });
    await disk.read(0, CLUSTER);
    await disk.write(CLUSTER, new Uint8Array(CLUSTER).fill(1), COMPRESSED);
    expect(story).toEqual([
      'read_compressed',
      'cluster_alloc_bytes',
      'write_compressed',
      expect.stringMatching(/^write \d\d$/),
      'l2_update_compressed',
    ]);
    await disk.close();
  });

  test('a write that fails leaves the mapping as it was, and no leak', async () => {
    const { host, disk } = await made(32 * CLUSTER);
    const before = partlyNoise(16 * CLUSTER, 20, 1);
    await disk.write(0, before, COMPRESSED);
    await disk.flush();
    const end = host.contents(PATH).length;
    const disarm = host.faults.inject({ operation: 'write', code: 'ENOSPC', path: PATH, offset: end });
    await expect(disk.write(0, partlyNoise(16 * CLUSTER, 20, 2), COMPRESSED)).rejects.toMatchObject({ code: 'ENOSPC' });
    disarm();
    expect(differsAt(await disk.read(0, 16 * CLUSTER), before)).toBe(-1);
    expect(await disk.check(CHECK)).toMatchObject({ corruptions: 0, leaks: 0 });
    await disk.close();
    expect(differsAt(contentOf(host).subarray(0, 16 * CLUSTER), before)).toBe(-1);
  });

  test('a plain write of the same cluster goes before or after, and loses nothing', async () => {
    for (let seed = 1; seed <= 12; seed++) {
      const { host, disk } = await made(
        4 * CLUSTER,
        {},
        new SimHost({ record: false, seed, refuseNow: 1, latency: { min: 0, max: 9 } }),
      );
      // The table is there, so that both begin at once.
      await disk.write(3 * CLUSTER, new Uint8Array(1));
      const plain = () => disk.write(CLUSTER + 10, new Uint8Array(20).fill(1));
      const packed = () => disk.write(CLUSTER, new Uint8Array(CLUSTER).fill(2), COMPRESSED);
      await Promise.all(seed % 2 === 0 ? [plain(), packed()] : [packed(), plain()]);
      const cluster = await disk.read(CLUSTER, CLUSTER);
      const inside = cluster.subarray(10, 30);
      expect(inside.every((byte) => byte === 1) || inside.every((byte) => byte === 2)).toBe(true);
      expect(cluster.fill(2, 10, 30).every((byte) => byte === 2)).toBe(true);
      await disk.close();
      contentOf(host);
    }
  });

  test('beside other writes, zeroes and discards of the same clusters', async () => {
    const random = new SeededRandom(testSeed);
    for (const options of [{}, { cluster_size: 512, refcount_bits: 4 }, { cluster_size: 16384, extended_l2: true }]) {
      const cluster = Number((options as OptionTree).cluster_size ?? CLUSTER);
      const size = 24 * cluster + 512;
      const host = new SimHost({ record: false, seed: random.below(1000), latency: { min: 0, max: 5 } });
      const { disk } = await made(size, options, host);
      const model = new Uint8Array(size);
      for (let round = 0; round < 15; round++) {
        // Ranges of one round do not overlap, though they share clusters.
        let from = 0;
        const work: Promise<void>[] = [];
        while (from < size) {
          const kind = random.below(6);
          const aligned = Math.min(size, Math.ceil(from / cluster) * cluster);
          const to = Math.min(size, aligned + random.between(1, 4) * cluster);
          if (kind < 3 && aligned < size) {
            const data = partlyNoise(to - aligned, random.between(0, 99), random.below(1000) + 1);
            model.set(data, aligned);
            work.push(disk.write(aligned, data, COMPRESSED));
            from = to;
          } else if (kind === 3) {
            const end = Math.min(size, from + random.between(1, 3 * cluster));
            const data = operationData(random.below(1000) + 1, end - from);
            model.set(data, from);
            work.push(disk.write(from, data));
            from = end;
          } else if (kind === 4 && aligned < size) {
            model.fill(0, aligned, to);
            work.push(
              random.chance(0.5)
                ? disk.writeZeroes(aligned, to - aligned, { unmap: true })
                : disk.discard(aligned, to - aligned),
            );
            from = to;
          } else from += random.between(1, 2 * cluster);
        }
        if (random.chance(0.2)) work.push(disk.flush());
        await Promise.all(work);
        expect(differsAt(await disk.read(0, size), model)).toBe(-1);
      }
      expect(await disk.check(CHECK)).toMatchObject({ corruptions: 0, leaks: 0 });
      await disk.close();
      expect(differsAt(contentOf(host), model)).toBe(-1);
    }
  });
});
