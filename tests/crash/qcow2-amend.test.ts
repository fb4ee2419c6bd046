/** Q-AM-1, Q-HDR-8, Q-ORD-7: a power cut while options are changed leaves the image as it was, or as it is to be, and leaks at worst. */
import { describe, expect, test } from 'vitest';
import { createImage } from '../../src/core/create.ts';
import type { OptionTree } from '../../src/core/options.ts';
import { operationData } from '../../src/testing/disk-operations.ts';
import { exploreCrashes, SimHost } from '../../src/testing/index.ts';
import { longMode, testSeed } from '../set-up/seed.ts';
import { graphOn, PATH } from '../support/sim-disks.ts';
import { crashScenario } from './qcow2-workloads.ts';

const CLUSTER = 512;
const SIZE = 60 * CLUSTER;

interface Case {
  readonly name: string;
  readonly options: OptionTree;
  readonly amend: readonly OptionTree[];
  readonly below?: Uint8Array;
}

const CASES: readonly Case[] = [
  {
    name: 'versions, with a backing file and zero clusters',
    options: { cluster_size: CLUSTER },
    below: operationData(5, SIZE),
    amend: [{ compat: '0.10' }, { compat: '1.1', lazy_refcounts: true }, { lazy_refcounts: false }],
  },
  {
    name: 'versions, with names of features behind the first sector',
    options: { cluster_size: 8192, compat: '0.10' },
    below: operationData(6, SIZE),
    amend: [{ compat: '1.1' }, { compat: '0.10' }],
  },
  {
    name: 'zero clusters without a backing file',
    options: { cluster_size: CLUSTER, lazy_refcounts: true },
    amend: [{ compat: '0.10' }],
  },
  {
    name: 'widths of refcounts',
    options: { cluster_size: CLUSTER },
    amend: [{ refcount_bits: 64 }, { refcount_bits: 1 }, { refcount_bits: 16, compat: '0.10' }],
  },
];

describe('crashes of a qcow2 image whose options are changed', () => {
  test.each(CASES)('$name', async ({ options, amend, below }) => {
    const scenario = await crashScenario({
      name: 'amend',
      size: SIZE,
      options,
      ...(below && { below }),
      async before(disk) {
        for (const cluster of [0, 1, 7, 20, 59]) await disk.write(cluster * CLUSTER, operationData(cluster, CLUSTER));
        await disk.writeZeroes(CLUSTER, CLUSTER).catch(() => {});
        await disk.writeZeroes(20 * CLUSTER, 3 * CLUSTER, { unmap: true });
      },
      async run(recorded) {
        await recorded.write(3 * CLUSTER + 7, operationData(77, 900));
        for (const changes of amend) {
          await recorded.disk.amend(changes);
          await recorded.flush();
          await recorded.write(40 * CLUSTER, operationData(78, 600));
        }
      },
    });
    const { cuts } = await exploreCrashes(scenario, { seed: testSeed, statesPerCut: longMode ? 400 : 8 });
    expect(cuts).toBeGreaterThan(8);
  });

  test('Q-HDR-8: another name of what is below, behind the first sector: the old one or the new one, nothing between', async () => {
    const names = ['/base.raw', '/another/folder/with-another-base.raw', '/b'];
    const made = new SimHost({ record: false });
    const options = { cluster_size: 8192, backing_file: names[0] ?? '', backing_fmt: 'raw' };
    const request = { filename: PATH, format: 'qcow2', size: SIZE, options, unchecked: true };
    await createImage(graphOn(made), request);
    const image = made.snapshot();
    const open = (host: SimHost, writable: boolean) =>
      graphOn(host).open(PATH, { format: 'qcow2', writable, noBacking: true });
    const seen = new Set<string>();
    await exploreCrashes(
      {
        start: () => new SimHost({ record: true }, image),
        async workload(host) {
          const disk = await open(host, true);
          for (const filename of names.slice(1)) await disk.node.impl.changeBacking?.({ filename, format: '' });
          await disk.close();
        },
        async check(host) {
          const disk = await open(host, false);
          const { filename = '' } = disk.node.impl.backing?.() ?? {};
          await disk.close();
          if (!names.includes(filename)) throw new Error(`the name is '${filename}'`);
          seen.add(filename);
        },
      },
      { seed: testSeed, statesPerCut: 16 },
    );
    expect([...seen].sort()).toEqual([...names].sort());
  });
});
