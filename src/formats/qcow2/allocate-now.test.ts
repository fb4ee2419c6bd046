/** Writes that allocate and are answered at once, and those that must wait. */
import { expect, test } from 'vitest';
import { readQcow2 } from '../../../tests/support/qcow2-bytes.ts';
import { graphOn, PATH } from '../../../tests/support/sim-disks.ts';
import { createImage } from '../../core/create.ts';
import type { Disk } from '../../core/disk.ts';
import type { OptionTree } from '../../core/options.ts';
import { differsAt } from '../../testing/compare-bytes.ts';
import { operationData } from '../../testing/disk-operations.ts';
import { SimHost } from '../../testing/index.ts';

const CLUSTER = 4096;

async function opened(options: OptionTree = {}, below?: Uint8Array): Promise<{ host: SimHost; disk: Disk }> {
  const host = new SimHost({ record: false });
  if (below !== undefined) host.put('/below', below);
  const backing = below === undefined ? {} : { backing_file: '/below', backing_fmt: 'raw' };
  const all = { cluster_size: CLUSTER, ...options, ...backing };
  await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size: 100 * CLUSTER, options: all });
  const disk = await graphOn(host).open(PATH, { format: 'qcow2', writable: true, discard: 'unmap' });
  return { host, disk };
}

const now = (disk: Disk, offset: number, source: Uint8Array) => disk.node.impl.tryWriteNow?.(offset, source);
const data = (length: number) => operationData(length, length);

/** What the disk must hold, and a sound image without leaks. */
async function expectHeld(host: SimHost, disk: Disk, content: Uint8Array, below?: Uint8Array): Promise<void> {
  expect(differsAt(await disk.read(0, disk.length), content)).toBe(-1);
  await disk.close();
  const view = readQcow2(host.contents(PATH));
  expect([view.problems, view.leaks]).toEqual([[], []]);
  expect(differsAt(view.content(below), content)).toBe(-1);
}

test('Q-WR-1: new clusters behind the end of the file, in whole or in part, once there is an L2 table', async () => {
  const { host, disk } = await opened();
  const content = new Uint8Array(disk.length);
  expect(now(disk, 0, data(CLUSTER))).toBe(false);
  await disk.write(0, data(CLUSTER));
  content.set(data(CLUSTER));
  for (const [offset, length] of [
    [3 * CLUSTER, CLUSTER],
    [5 * CLUSTER + 700, 512],
    [5 * CLUSTER + 100, 300],
    [99 * CLUSTER + 4000, 96],
  ] as const) {
    expect([offset, now(disk, offset, data(length))]).toEqual([offset, true]);
    content.set(data(length), offset);
  }
  // Across two clusters, the second of them new.
  expect(now(disk, 6 * CLUSTER - 10, data(20))).toBe(false);
  await expectHeld(host, disk, content);
});

test('Q-WR-3: what an image below shows around the data is not lost', async () => {
  const below = operationData(8, 50 * CLUSTER);
  const { host, disk } = await opened({}, below);
  await disk.write(0, data(CLUSTER));
  expect(now(disk, CLUSTER + 5, data(100))).toBe(false);
  expect(now(disk, CLUSTER, data(CLUSTER))).toBe(true);
  expect(now(disk, 60 * CLUSTER + 5, data(100))).toBe(true);
  const content = new Uint8Array(disk.length);
  content.set(below);
  content.set(data(CLUSTER));
  content.set(data(CLUSTER), CLUSTER);
  content.set(data(100), 60 * CLUSTER + 5);
  await expectHeld(host, disk, content, below);
});

test('Q-REF-3: a hole inside the file may hold anything, and is filled by who waits', async () => {
  const { host, disk } = await opened();
  await disk.write(0, data(10 * CLUSTER));
  await disk.discard(2 * CLUSTER, CLUSTER);
  await disk.flush();
  expect(now(disk, 20 * CLUSTER + 5, data(10))).toBe(false);
  await disk.write(20 * CLUSTER + 5, data(10));
  expect(now(disk, 21 * CLUSTER + 5, data(10))).toBe(true);
  const content = new Uint8Array(disk.length);
  content.set(data(10 * CLUSTER));
  content.fill(0, 2 * CLUSTER, 3 * CLUSTER);
  content.set(data(10), 20 * CLUSTER + 5);
  content.set(data(10), 21 * CLUSTER + 5);
  await expectHeld(host, disk, content);
});

test.each([{ extended_l2: true, cluster_size: 16384 }, { lazy_refcounts: true }])(
  'Q-ORD-8, Q-MAP-7: not with %j, before more is done than writing',
  async (options) => {
    const { host, disk } = await opened(options);
    expect(now(disk, 0, data(CLUSTER))).toBe(false);
    await disk.write(0, data(100));
    const content = new Uint8Array(disk.length);
    content.set(data(100));
    if ('extended_l2' in options) expect(now(disk, 32768, data(512))).toBe(false);
    await expectHeld(host, disk, content);
  },
);
