/** Q-ORD-1, Q-ORD-11: whenever the power goes, a qcow2 image has leaks at worst, and what was flushed is all there. */
import { describe, expect, test } from 'vitest';
import { operationData, randomOperations } from '../../src/testing/disk-operations.ts';
import { exploreCrashes } from '../../src/testing/index.ts';
import { longMode, testSeed } from '../set-up/seed.ts';
import { crashScenario, WORKLOADS } from './qcow2-workloads.ts';
import { runOperations } from './run-operations.ts';

const statesPerCut = longMode ? 400 : 16;

describe('crashes of a qcow2 image being written', () => {
  for (const workload of WORKLOADS) {
    test(workload.name, async () => {
      const most = longMode ? statesPerCut : (workload.states ?? statesPerCut);
      const scenario = await crashScenario(workload);
      const { cuts, states } = await exploreCrashes(scenario, { seed: testSeed, statesPerCut: most });
      expect(cuts).toBeGreaterThan(4);
      expect(states).toBeGreaterThan(20);
    });
  }

  const sequences = longMode ? 300 : 10;
  test(`${sequences} random sequences`, async () => {
    for (let seed = testSeed; seed < testSeed + sequences; seed++) await crashSequence(seed);
  });

  // A cut in the middle of a shrink showed the image below where flushed zeroes were.
  test('the sequence of seed 20261142', () => crashSequence(20_261_142));
});

async function crashSequence(seed: number): Promise<void> {
  const length = 100 * 512;
  const operations = randomOperations(seed, {
    count: 14,
    length,
    blockSize: 512,
    longest: 3000,
    resize: { min: 512, max: 300 * 512, step: 512 },
    weights: { together: 0, read: 0, status: 0, check: 0, reopen: 0, flush: 25, discard: 15 },
  });
  const scenario = await crashScenario({
    name: `seed ${seed}`,
    size: length,
    options: { cluster_size: 512, refcount_bits: [16, 1, 64][seed % 3] ?? 16, lazy_refcounts: seed % 4 === 3 },
    ...(seed % 2 === 0 ? { below: operationData(seed, 80 * 512) } : {}),
    host: { seed, latency: { min: 0, max: seed % 3 } },
    run: (disk) => runOperations(disk, operations, seed % 2 === 0),
  });
  await exploreCrashes(scenario, { seed, statesPerCut: Math.ceil(statesPerCut / 3) });
}
