/** Q-BEY-1, Q-ORD-1: a compaction that the power cut ends leaves leaks at worst, the disk and its snapshots as they were. */
import { expect, test } from 'vitest';
import type { Disk } from '../../src/core/disk.ts';
import { differsAt } from '../../src/testing/compare-bytes.ts';
import { operationData } from '../../src/testing/disk-operations.ts';
import { exploreCrashes, SeededRandom } from '../../src/testing/index.ts';
import { longMode, testSeed } from '../set-up/seed.ts';
import { readQcow2 } from '../support/qcow2-bytes.ts';
import { PATH } from '../support/sim-disks.ts';
import { crashScenario, type Workload } from './qcow2-workloads.ts';

const CLUSTER = 512;

/** Data in all places, then dropped in most. */
async function scatter(disk: Disk, seed: number, clusters: number): Promise<void> {
  const random = new SeededRandom(seed);
  for (let at = 0; at < clusters; at += 5) await disk.write(at * CLUSTER, operationData(seed + at, 5 * CLUSTER));
  for (let i = 0; i < clusters / 6; i++) {
    const at = random.below(clusters - 6) * CLUSTER;
    await disk.discard(at, random.between(1, 6) * CLUSTER);
  }
  await disk.write(random.below(clusters) * CLUSTER, new Uint8Array(CLUSTER));
}

/** Half of it is soft, so that it is stored compressed. */
function soft(seed: number): Uint8Array {
  return operationData(seed, CLUSTER).fill(7, 0, CLUSTER / 2);
}

const WORKLOADS: readonly Workload[] = [
  {
    name: 'data, L2 tables, a refcount block that is not needed any more',
    size: 200 * CLUSTER,
    options: { cluster_size: CLUSTER, refcount_bits: 64 },
    before: (disk) => scatter(disk, 1, 160),
    run: ({ disk }) => disk.compact(),
  },
  {
    name: 'with snapshots, whose tables are in the way',
    size: 200 * CLUSTER,
    options: { cluster_size: CLUSTER },
    async before(disk) {
      await disk.write(0, operationData(9, 90 * CLUSTER));
      await disk.snapshots.create('first');
      await scatter(disk, 2, 120);
      await disk.snapshots.create('second');
      await scatter(disk, 3, 60);
      await disk.discard(0, 40 * CLUSTER);
      await disk.snapshots.delete('first');
    },
    run: ({ disk }) => disk.compact(),
  },
  {
    name: 'compressed clusters',
    size: 200 * CLUSTER,
    options: { cluster_size: CLUSTER },
    async before(disk) {
      await disk.write(0, operationData(9, 60 * CLUSTER));
      for (let i = 60; i < 90; i++) await disk.write(i * CLUSTER, soft(i), { compressed: true });
      await disk.discard(3 * CLUSTER, 50 * CLUSTER);
    },
    run: ({ disk }) => disk.compact(),
  },
  {
    name: 'with lazy refcounts',
    size: 200 * CLUSTER,
    options: { cluster_size: CLUSTER, lazy_refcounts: true },
    before: (disk) => scatter(disk, 4, 120),
    async run(disk) {
      await disk.write(CLUSTER, operationData(5, CLUSTER));
      await disk.disk.compact();
      await disk.flush();
    },
  },
];

test.each(WORKLOADS)('$name', async (workload) => {
  const scenario = await crashScenario(workload);
  const snapshots = readQcow2((await scenario.start()).contents(PATH)).snapshots.map((each) => each.content());
  const { cuts, states } = await exploreCrashes(
    {
      ...scenario,
      async check(host, point) {
        const kept = readQcow2(host.contents(PATH)).snapshots;
        const same = snapshots.map((content, i) => differsAt(kept[i]?.content() ?? new Uint8Array(0), content));
        if (same.some((at) => at >= 0)) throw new Error(`a snapshot differs at ${same}`);
        await scenario.check(host, point);
      },
    },
    { seed: testSeed, statesPerCut: longMode ? 100 : 3 },
  );
  expect(cuts).toBeGreaterThan(20);
  expect(states).toBeGreaterThan(30);
});
