/**
 * Q-BMP-4, Q-BMP-5, Q-ORD-7: whenever the power goes, a bitmap that the image calls complete covers all that was written,
 * none is lost, and the image has leaks at worst.
 */
import { describe, expect, test } from 'vitest';
import { bitmaps } from '../../src/bitmaps/bitmaps.ts';
import { createImage } from '../../src/core/create.ts';
import type { Disk } from '../../src/core/disk.ts';
import type { OptionTree } from '../../src/core/options.ts';
import { operationData } from '../../src/testing/disk-operations.ts';
import { type CrashPoint, exploreCrashes, SimHost, type SimHostOptions } from '../../src/testing/index.ts';
import { longMode, testSeed } from '../set-up/seed.ts';
import { readBitmaps } from '../support/qcow2-bitmaps.ts';
import { graphOn, PATH } from '../support/sim-disks.ts';

const CLUSTER = 512;
const SIZE = 80 * CLUSTER;
const BELOW = '/below.raw';

interface Workload {
  readonly name: string;
  readonly options?: OptionTree;
  /** Has a backing file: its name lies behind the extensions. */
  readonly based?: boolean;
  /** Bitmaps there are before, which record. */
  readonly before: readonly string[];
  /** Bitmaps that are there whenever the power goes. */
  readonly kept: readonly string[];
  readonly host?: SimHostOptions;
  /** All may be gone, for the moment of a change. */
  readonly mayLose?: boolean;
  /** Tried for each cut. */
  readonly states?: number;
  readonly run: (host: SimHost) => Promise<void>;
}

/** With this name of a data file, the extension lies in two sectors. */
const DATA_FILE = `/${'d'.repeat(367)}`;

const open = (host: SimHost, writable = true) =>
  graphOn(host).open(PATH, { format: 'qcow2', writable, ...(writable ? { discard: 'unmap' as const } : {}) });

async function session(host: SimHost, work: (disk: Disk) => Promise<void>): Promise<void> {
  const disk = await open(host);
  await work(disk);
  await disk.close();
}

const WORKLOADS: readonly Workload[] = [
  {
    name: 'writes, and what closing stores',
    before: ['b0', 'b1'],
    kept: ['b0', 'b1'],
    async run(host) {
      await session(host, async (disk) => {
        await disk.write(700, operationData(1, 900));
        await disk.flush();
        await disk.write(40 * CLUSTER, operationData(2, 2 * CLUSTER));
      });
      await session(host, (disk) => disk.write(0, operationData(3, 100)));
    },
  },
  {
    name: 'with latency, discards and lazy counts',
    options: { lazy_refcounts: true },
    before: ['b0'],
    kept: ['b0'],
    host: { seed: 3, latency: { min: 0, max: 7 } },
    async run(host) {
      await session(host, async (disk) => {
        await Promise.all([
          disk.write(100, operationData(1, 900)),
          disk.write(9000, operationData(2, 20)),
          disk.flush(),
        ]);
        await disk.discard(0, 2 * CLUSTER);
        await disk.flush();
      });
    },
  },
  {
    name: 'the first bitmap of an image over another, and a second one',
    based: true,
    before: [],
    kept: [],
    async run(host) {
      await session(host, (disk) => bitmaps(disk).add('b0', { persistent: true, granularity: 512 }));
      await session(host, async (disk) => {
        await disk.write(700, operationData(1, 900));
        await bitmaps(disk).add('b1', { persistent: true, granularity: 4096 });
        await disk.write(9000, operationData(2, 900));
      });
    },
  },
  {
    name: 'flags, merges, and removal up to the last',
    based: true,
    before: ['b0', 'b1', 'b2'],
    kept: [],
    async run(host) {
      await session(host, async (disk) => {
        bitmaps(disk).disable('b1');
        bitmaps(disk).merge('b2', ['b0']);
      });
      await session(host, async (disk) => {
        await disk.write(700, operationData(1, 900));
        await bitmaps(disk).remove('b1');
        await disk.write(5000, operationData(2, 900));
      });
      await session(host, async (disk) => {
        await bitmaps(disk).remove('b0');
        await bitmaps(disk).remove('b2');
        await disk.write(5000, operationData(3, 900));
      });
    },
  },
  {
    name: 'flushes that store what users changed, beside writes',
    before: ['b0', 'b1'],
    kept: ['b0', 'b1'],
    host: { seed: 5, latency: { min: 0, max: 3 } },
    states: 3,
    async run(host) {
      await session(host, async (disk) => {
        const early = disk.write(700, operationData(1, 900));
        bitmaps(disk).clear('b1');
        const flushing = disk.flush();
        await host.clock.sleep(2);
        await Promise.all([early, flushing, disk.write(9000, operationData(2, 900))]);
        bitmaps(disk).merge('b1', ['b0']);
        await Promise.all([disk.flush(), disk.discard(0, 2 * CLUSTER)]);
        await disk.write(40 * CLUSTER, operationData(3, 10));
      });
    },
  },
  {
    name: 'an extension in two sectors',
    options: { cluster_size: 1024, data_file: DATA_FILE },
    before: ['b0', 'one-with-a-longer-name'],
    kept: [],
    mayLose: true,
    states: 40,
    async run(host) {
      await session(host, (disk) => bitmaps(disk).remove('one-with-a-longer-name'));
    },
  },
  {
    name: 'resizing, compacting',
    before: ['b0'],
    kept: ['b0'],
    states: 3,
    async run(host) {
      await session(host, async (disk) => {
        await disk.write(700, operationData(1, 9000));
        await disk.resize(SIZE * 3);
        await disk.write(SIZE * 2, operationData(2, 900));
      });
      await session(host, async (disk) => {
        await disk.discard(0, 8 * CLUSTER);
        await disk.compact();
        await disk.write(0, operationData(3, 10));
      });
      await session(host, (disk) => disk.resize(SIZE, { shrink: true }));
    },
  },
];

async function prepare({ options, based, before }: Workload) {
  const host = new SimHost({ record: false });
  if (based) host.put(BELOW, operationData(9, SIZE));
  const all = { cluster_size: CLUSTER, ...options, ...(based ? { backing_file: BELOW, backing_fmt: 'raw' } : {}) };
  await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size: SIZE, options: all });
  await session(host, async (disk) => {
    await disk.write(0, operationData(4, 6 * CLUSTER));
    for (const name of before) await bitmaps(disk).add(name, { persistent: true, granularity: 512 });
  });
  const disk = await open(host, false);
  const initial = await disk.read(0, SIZE);
  await disk.close();
  return { image: host.snapshot(), initial };
}

/** What was changed is marked in every bitmap that claims to have recorded it. */
async function expectCovered(host: SimHost, disk: Disk, initial: Uint8Array, mayLose = false): Promise<void> {
  const content = await disk.read(0, Math.min(disk.length, initial.length));
  for (const { name, recording, inconsistent } of bitmaps(disk).list()) {
    if (inconsistent === true || !recording || name === undefined) continue;
    // Only what has recorded since the beginning.
    if (name !== 'b0') continue;
    for (let at = 0; at < content.length; at++) {
      if (content[at] !== initial[at] && !bitmaps(disk).isDirty(name, at)) {
        throw new Error(`byte ${at} was changed, and '${name}' does not say so`);
      }
    }
  }
  const warnings = host.warnings.filter((text) => !COUNT_REPAIR.test(text));
  if (!mayLose && warnings.length > 0) throw new Error(`warned: ${warnings}`);
}

/** What the repair of a dirty image tells of counts (Q-FEAT-3); that is not about bitmaps. */
const COUNT_REPAIR =
  /^(?:(?:Leaked|Repairing|ERROR) cluster \d+ refcount=\d+ reference=\d+|Rebuilding refcount structure)$/;

async function check({ kept, mayLose }: Workload, host: SimHost, _: CrashPoint, initial: Uint8Array): Promise<void> {
  const stored = kept.length === 0 ? [] : readBitmaps(host.contents(PATH)).bitmaps;
  for (const name of kept) if (!stored.some((bitmap) => bitmap.name === name)) throw new Error(`'${name}' is lost`);
  const checked = await graphOn(host).open(PATH, { format: 'qcow2', checkOnly: true });
  const lines: string[] = [];
  const { corruptions, checkErrors } = await checked.check({
    repair: 'none',
    finding: (line) => void lines.push(line),
  });
  const isDirty = checked.node.impl.info?.()?.dirty === true;
  if (!isDirty && corruptions + checkErrors > 0) throw new Error(lines.join('; '));
  await checked.close();
  const disk = await open(host, false);
  await expectCovered(host, disk, initial, mayLose);
  await disk.close();
  // Life goes on.
  await session(host, async (again) => {
    await again.write(Math.min(3000, again.length - 512), operationData(77, 512));
    await expectCovered(host, again, initial, mayLose);
  });
  const after = await open(host, false);
  await expectCovered(host, after, initial, mayLose);
  await after.close();
}

describe('crashes of an image with bitmaps', () => {
  for (const workload of WORKLOADS) {
    test(workload.name, { timeout: 60_000 }, async () => {
      const { image, initial } = await prepare(workload);
      const { cuts } = await exploreCrashes(
        {
          start: () => new SimHost({ ...workload.host, record: true }, image),
          workload: workload.run,
          check: (host, point) => check(workload, host, point, initial),
        },
        { seed: testSeed, statesPerCut: longMode ? 200 : (workload.states ?? 6) },
      );
      expect(cuts).toBeGreaterThan(9);
    });
  }
});
