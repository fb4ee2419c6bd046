/** Reading compressed clusters (Q-READ-3): together, ahead, and kept for a while. */
import { beforeAll, describe, expect, test } from 'vitest';
import { graphOn, PATH } from '../../../tests/support/sim-disks.ts';
import { createImage } from '../../core/create.ts';
import type { Disk } from '../../core/disk.ts';
import { codeOf } from '../../core/errors.ts';
import { differsAt } from '../../testing/compare-bytes.ts';
import { operationData } from '../../testing/disk-operations.ts';
import { SimHost } from '../../testing/index.ts';

const CLUSTER = 4096;
const COUNT = 2048;

let stored: Uint8Array;
const content = new Uint8Array(COUNT * CLUSTER);

beforeAll(async () => {
  const host = new SimHost({ record: false });
  const size = content.length;
  await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size, options: { cluster_size: CLUSTER } });
  for (let cluster = 0; cluster < COUNT; cluster++) {
    content.fill(cluster, cluster * CLUSTER, (cluster + 1) * CLUSTER);
    content.set(operationData(cluster + 1, 200), cluster * CLUSTER + 50);
  }
  const disk = await graphOn(host).open(PATH, { format: 'qcow2', writable: true });
  await disk.write(0, content, { compressed: true });
  await disk.close();
  stored = host.contents(PATH);
});

interface Opened {
  readonly host: SimHost;
  readonly disk: Disk;
  /** Reads of the file since the last call. */
  reads(): number;
}

async function opened(): Promise<Opened> {
  // Nothing is answered at once, so that all reads are counted alike.
  const host = new SimHost({ record: false, refuseNow: 1 });
  host.put(PATH, stored);
  const disk = await graphOn(host).open(PATH, { format: 'qcow2' });
  let before = 0;
  const reads = () => {
    const now = host.counters.operations.read ?? 0;
    const since = now - before;
    before = now;
    return since;
  };
  // The tables that map them are in memory from here on.
  for (const cluster of [511, 1000, 1500]) await disk.read(cluster * CLUSTER, 512);
  reads();
  return { host, disk, reads };
}

function expectRange(bytes: Uint8Array, offset: number): void {
  expect(differsAt(bytes, content.subarray(offset, offset + bytes.length))).toBe(-1);
}

describe('compressed clusters', () => {
  test('of one request come by one read', async () => {
    const { disk, reads } = await opened();
    expectRange(await disk.read(100, 20 * CLUSTER), 100);
    expect(reads()).toBe(1);
    // At most 512 clusters are taken together.
    expectRange(await disk.read(100 * CLUSTER, 700 * CLUSTER), 100 * CLUSTER);
    expect(reads()).toBe(2);
    await disk.close();
  });

  test('of one request may lie in any order, in the same sectors', async () => {
    const size = 24 * CLUSTER;
    const options = { cluster_size: CLUSTER };
    for (const order of [(i: number) => 23 - i, (i: number) => (i * 7) % 24]) {
      const host = new SimHost({ record: false });
      await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size, options });
      const disk = await graphOn(host).open(PATH, { format: 'qcow2', writable: true });
      const model = new Uint8Array(size);
      for (let i = 0; i < 24; i++) {
        const at = order(i) * CLUSTER;
        model.fill(i + 1, at, at + CLUSTER);
        await disk.write(at, model.subarray(at, at + CLUSTER), { compressed: true });
      }
      expect(differsAt(await disk.read(0, size), model)).toBe(-1);
      await disk.close();
    }
  });

  test('are told together as data, as far as tables in memory tell of them (Q-READ-4)', async () => {
    const { disk } = await opened();
    const told = disk.tryStatusNow(100, COUNT * CLUSTER - 100);
    expect(told).toMatchObject({ data: true, zero: false, length: 1536 * CLUSTER - 100 });
    expect(disk.tryStatusNow(100, 5 * CLUSTER)).toMatchObject({ data: true, length: 5 * CLUSTER });
    await disk.close();
  });

  test('are kept: parts of them need no read again', async () => {
    const { disk, reads } = await opened();
    await disk.read(30 * CLUSTER + 5, 100);
    expect(reads()).toBe(1);
    expectRange(await disk.read(30 * CLUSTER + 2000, 2000), 30 * CLUSTER + 2000);
    await Promise.all([disk.read(40 * CLUSTER, 10), disk.read(40 * CLUSTER + 90, 10)]);
    expect(reads()).toBe(1);
    await disk.close();
  });

  test('are kept up to 4 MiB of them', async () => {
    const { disk, reads } = await opened();
    await disk.read(0, CLUSTER);
    reads();
    for (let at = 0; at < 1100; at += 20) await disk.read((1 + at) * CLUSTER, 20 * CLUSTER);
    reads();
    await disk.read(1000 * CLUSTER, CLUSTER);
    expect(reads()).toBe(0);
    await disk.read(0, CLUSTER);
    expect(reads()).toBe(1);
    await disk.close();
  });

  test('of long requests are not kept, but for those that are not read whole', async () => {
    const { disk, reads } = await opened();
    const offset = 60 * CLUSTER + 100;
    expectRange(await disk.read(offset, 40 * CLUSTER), offset);
    expect(reads()).toBe(1);
    for (const kept of [60, 100]) await disk.read(kept * CLUSTER, 50);
    expect(reads()).toBe(0);
    expectRange(await disk.read(61 * CLUSTER, CLUSTER), 61 * CLUSTER);
    expect(reads()).toBe(1);
    // What is kept is not read again for a longer request.
    expectRange(await disk.read(60 * CLUSTER, 33 * CLUSTER), 60 * CLUSTER);
    expect(reads()).toBe(1);
    await disk.close();
  });

  test('that follow those read last are read ahead', async () => {
    const { disk, reads } = await opened();
    let offset = 200 * CLUSTER;
    for (let i = 0; i < 64; i++, offset += CLUSTER / 2) expectRange(await disk.read(offset, CLUSTER / 2), offset);
    // 32 clusters: the first alone, then four at a time.
    expect(reads()).toBe(1 + Math.ceil(31 / 4));
    for (const cluster of [500, 490, 480, 470]) await disk.read(cluster * CLUSTER, 512);
    expect(reads()).toBe(4);
    await disk.read(501 * CLUSTER, 512);
    expect(reads()).toBe(1);
    await disk.close();
  });

  test('one that cannot be read, or is damaged, harms no other', async () => {
    const { host, disk, reads } = await opened();
    // Of 20 clusters in one read, one cannot be read: each is tried by itself, and the request fails.
    const disarm = host.faults.inject({ operation: 'read', code: 'EIO', path: PATH, offset: 6 * CLUSTER, length: 1 });
    const outcome = (read: Promise<unknown>) => read.then(() => 'done', codeOf);
    expect(await outcome(disk.read(0, 20 * CLUSTER))).toBe('EIO');
    disarm();
    reads();
    const first = await disk.read(0, CLUSTER);
    expectRange(first, 0);
    expect(reads()).toBe(0);
    expectRange(await disk.read(0, 40 * CLUSTER), 0);
    await disk.close();
  });

  test('read ahead, a damaged one fails no request but its own', async () => {
    const host = new SimHost({ record: false });
    const bytes = stored.slice();
    const view = new DataView(bytes.buffer);
    const l2 = Number(view.getBigUint64(Number(view.getBigUint64(40))) & 0x00fffffffffffe00n);
    const place = Number(view.getBigUint64(l2 + 12 * 8) & 0xffffffffffn);
    host.put(PATH, bytes.fill(0xff, place, place + 40));
    const damaged = await graphOn(host).open(PATH, { format: 'qcow2' });
    for (const cluster of [9, 10, 11]) expectRange(await damaged.read(cluster * CLUSTER, CLUSTER), cluster * CLUSTER);
    await expect(damaged.read(12 * CLUSTER, CLUSTER)).rejects.toMatchObject({
      code: 'EIO',
      message: expect.stringMatching(
        /^The compressed cluster at host offset \d+ cannot be decompressed: Input\/output error$/,
      ),
    });
    expectRange(await damaged.read(13 * CLUSTER, CLUSTER), 13 * CLUSTER);
    await damaged.close();
  });
});
