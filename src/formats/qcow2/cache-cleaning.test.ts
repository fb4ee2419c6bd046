/** Q-OPT-3: cached metadata that nobody uses are dropped after some time. */
import { expect, test } from 'vitest';
import { makeImage, openDisk, some } from '../../../tests/support/qcow2-image.ts';
import type { Disk } from '../../core/disk.ts';

async function opened(seconds: number | undefined) {
  const host = await makeImage({ cluster_size: 512 });
  const runtime = seconds === undefined ? {} : { 'cache-clean-interval': seconds };
  const disk = await openDisk(host, runtime);
  await disk.write(0, some(1, 4096));
  await disk.flush();
  /** Clusters that reading one reads from the file: itself, and its L2 table if it is not cached. */
  const cost = async (offset = 0) => {
    const before = host.counters.bytesRead;
    await disk.read(offset, 512);
    return (host.counters.bytesRead - before) / 512;
  };
  return { host, disk, cost };
}

const MINUTE = 60_000;

test('what was not used is read anew, what was used is not', async () => {
  const { host, disk, cost } = await opened(60);
  expect(await cost()).toBe(1);
  await host.clock.sleep(1.5 * MINUTE);
  expect(await cost()).toBe(1);
  await host.clock.sleep(MINUTE);
  expect(await cost()).toBe(1);
  await host.clock.sleep(3 * MINUTE);
  expect(await cost()).toBe(2);
  await disk.close();
});

test.each([
  [undefined, 11, 1],
  [undefined, 21, 2],
  [0, 100, 1],
])('an interval of %s seconds, after %i minutes', async (seconds, minutes, reads) => {
  const { host, disk, cost } = await opened(seconds);
  await host.clock.sleep(minutes * MINUTE);
  expect(await cost()).toBe(reads);
  await disk.close();
});

test('what is not written yet stays, and a reopen changes the interval', async () => {
  const { host, disk, cost } = await opened(0);
  await disk.write(8192, some(2, 512));
  await reopen(disk, 60);
  await host.clock.sleep(5 * MINUTE);
  expect(await cost()).toBe(2);
  expect(await disk.read(8192, 512)).toEqual(some(2, 512));
  await disk.close();
});

test('nobody waits for it: time does not go on for its sake', async () => {
  const { host, disk } = await opened(60);
  const before = host.clock.now();
  await disk.read(0, 4096);
  await disk.close();
  expect(host.clock.now()).toBe(before);
});

async function reopen(disk: Disk, seconds: number): Promise<void> {
  await disk.graph.reopen([{ node: disk.node, options: { 'cache-clean-interval': seconds } }]);
}
