/** Clusters that are given out for others to fill. */
import { expect, test } from 'vitest';
import { readQcow2 } from '../../../tests/support/qcow2-bytes.ts';
import { graphOn, PATH } from '../../../tests/support/sim-disks.ts';
import { createImage } from '../../core/create.ts';
import type { Disk } from '../../core/disk.ts';
import type { NewStorage } from '../../core/new-storage.ts';
import type { OptionTree } from '../../core/options.ts';
import { SimHost } from '../../testing/index.ts';

const CLUSTER = 4096;

async function opened(options: OptionTree = {}): Promise<{ host: SimHost; disk: Disk }> {
  const host = new SimHost({ record: false });
  host.put('/below', 50 * CLUSTER);
  const all = { cluster_size: CLUSTER, ...options };
  await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size: 2000 * CLUSTER, options: all });
  return { host, disk: await graphOn(host).open(PATH, { format: 'qcow2', writable: true }) };
}

const storageOf = (disk: Disk) => disk.node.impl.newStorage?.() ?? Promise.resolve(undefined);

const each = (parts: readonly number[]) => parts.map((first) => ({ first, count: 1 }));

/** As whoever is given storage does: one byte value for each cluster. */
async function fill(host: SimHost, storage: NewStorage, values: readonly number[]): Promise<void> {
  const file = await host.files.open(PATH, { write: true });
  for (const [index, byte] of values.entries()) {
    await file.write((storage.next + index) * CLUSTER, new Uint8Array(CLUSTER).fill(byte));
  }
  await file.close();
}

test('they lie behind the end of the file, and are those of the parts that were given them', async () => {
  const { host, disk } = await opened();
  await disk.write(0, new Uint8Array(3 * CLUSTER).fill(1));
  const storage = await storageOf(disk);
  if (storage === undefined) throw new Error('there is none');
  expect(storage.unit).toBe(CLUSTER);
  expect(storage.at.offset + storage.next * CLUSTER).toBeGreaterThanOrEqual(host.contents(PATH).length);
  const numbers = new Int32Array(1500);
  expect(storage.numbers(1, numbers)).toBe(true);
  expect([numbers[0], numbers[1]]).toEqual([expect.any(Number), (numbers[0] ?? 0) + 1]);
  expect(numbers.subarray(2).every((number) => number === -1)).toBe(true);
  await fill(host, storage, [7, 8, 9]);
  await storage.adopt(each([4, 700, 1500]));
  for (const [part, byte] of [
    [2, 1],
    [4, 7],
    [700, 8],
    [1500, 9],
  ] as const) {
    expect((await disk.read(part * CLUSTER, CLUSTER)).every((each) => each === byte)).toBe(true);
  }
  // What is filled and not adopted is left behind.
  const next = await storageOf(disk);
  if (next !== undefined) await fill(host, next, [5]);
  expect((await storageOf(disk))?.next).toBeGreaterThan(next?.next ?? 0);
  await disk.close();
  const view = readQcow2(host.contents(PATH));
  expect([view.problems, view.leaks]).toEqual([[], []]);
});

test.each([1, 4, 8, 16, 64])('counts of %i bits, side by side and across blocks', async (bits) => {
  const { host, disk } = await opened({ refcount_bits: bits });
  const perBlock = (CLUSTER * 8) / bits;
  // Some in the first batch, more than a block counts in the second where that is not many.
  for (const parts of [[0, 1, 2, 512, 513], Array.from({ length: Math.min(1400, perBlock + 1) }, (_, i) => 514 + i)]) {
    const storage = await storageOf(disk);
    if (storage === undefined) throw new Error('there is none');
    await fill(
      host,
      storage,
      parts.map((part) => part % 256),
    );
    await storage.adopt(each(parts));
  }
  await disk.write(1999 * CLUSTER, new Uint8Array(CLUSTER).fill(207));
  for (const part of [2, 513, 514, 600, 1999]) {
    expect((await disk.read(part * CLUSTER, CLUSTER)).every((each) => each === part % 256)).toBe(true);
  }
  await disk.close();
  const view = readQcow2(host.contents(PATH));
  expect([view.problems, view.leaks]).toEqual([[], []]);
});

test('all is given out that the blocks count which are there for a batch', async () => {
  const { host, disk } = await opened();
  const first = await storageOf(disk);
  const length = host.contents(PATH).length;
  const again = await storageOf(disk);
  expect(again).toMatchObject({ next: first?.next, limit: first?.limit });
  // Nothing was made for what nobody has asked for yet.
  expect(host.contents(PATH).length).toBe(length);
  expect((first?.limit ?? 0) % (CLUSTER / 2)).toBe(0);
  expect(((first?.limit ?? 0) - (first?.next ?? 0)) * CLUSTER).toBeGreaterThanOrEqual(512 << 20);
  await disk.close();
  expect(readQcow2(host.contents(PATH)).problems).toEqual([]);
});

test('the refcount table becomes longer when there is little room left in it', async () => {
  const { host, disk } = await opened({ refcount_bits: 64 });
  const table = (CLUSTER / 8) * (CLUSTER / 8);
  const lengthen = async (clusters: number) => {
    const file = await host.files.open(PATH, { write: true });
    await file.truncate(clusters * CLUSTER);
    await file.close();
  };
  await lengthen(table - 20_000);
  expect(await storageOf(disk)).toMatchObject({ next: table - 20_000, limit: table });
  await lengthen(table - 10_000);
  const storage = await storageOf(disk);
  expect(storage?.next).toBeGreaterThan(table);
  expect((storage?.limit ?? 0) - (storage?.next ?? 0)).toBeGreaterThanOrEqual((512 << 20) / CLUSTER);
  await disk.close();
});

test('Q-WR-7: what cannot be linked is free again', async () => {
  const { host, disk } = await opened();
  await disk.write(0, new Uint8Array(CLUSTER).fill(1));
  const storage = await storageOf(disk);
  if (storage === undefined) throw new Error('there is none');
  await fill(host, storage, [7, 8, 9]);
  // A new L2 table cannot be written.
  const away = host.faults.inject({ operation: 'write', code: 'ENOSPC', times: 1 });
  await expect(storage.adopt(each([1, 2, 1500]))).rejects.toMatchObject({ code: 'ENOSPC' });
  away();
  await disk.close();
  const view = readQcow2(host.contents(PATH));
  expect([view.problems, view.leaks]).toEqual([[], []]);
  expect([1, 2, 1500].map((part) => view.entries.has(part))).toEqual([true, true, false]);
});

test.each([{ backing_file: '/below', backing_fmt: 'raw' }, { data_file: '/data' }, { cluster_size: 512 }])(
  'there are none with %j',
  async (options) => {
    const { disk } = await opened(options);
    expect(await storageOf(disk)).toBeUndefined();
    await disk.close();
  },
);
