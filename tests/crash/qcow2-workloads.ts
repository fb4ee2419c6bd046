/** What is done to a qcow2 image while the power may go, and what must hold afterwards (Q-ORD-1, Q-ORD-11). */
import { createImage } from '../../src/core/create.ts';
import type { Disk } from '../../src/core/disk.ts';
import type { OptionTree } from '../../src/core/options.ts';
import { differsAt } from '../../src/testing/compare-bytes.ts';
import { operationData } from '../../src/testing/disk-operations.ts';
import {
  type CrashPoint,
  type CrashScenario,
  checkDurability,
  type RecordedDisk,
  recordDisk,
  SeededRandom,
  SimHost,
  type SimHostOptions,
} from '../../src/testing/index.ts';
import { readQcow2 } from '../support/qcow2-bytes.ts';
import { graphOn, PATH } from '../support/sim-disks.ts';

export const BELOW = '/below.raw';
export const DATA_FILE = '/disk.data';

export interface Workload {
  readonly name: string;
  /** Disk size and creation options. */
  readonly size: number;
  readonly options?: OptionTree;
  /** Content of an image below, which the options name. */
  readonly below?: Uint8Array;
  /** Runtime options. */
  readonly open?: OptionTree;
  /** Before the first crash: durable. */
  readonly before?: (disk: Disk) => Promise<void>;
  readonly run: (disk: RecordedDisk<Disk>) => Promise<void>;
  readonly host?: SimHostOptions;
  /** Most states tried for each cut, where trying one takes long. */
  readonly states?: number;
}

function open(host: SimHost, writable: boolean, options: OptionTree = {}): Promise<Disk> {
  return graphOn(host).open({ driver: 'qcow2', file: { driver: 'file', filename: PATH }, ...options }, { writable });
}

async function prepare({ size, options = {}, below, before, host: traits }: Workload) {
  const host = new SimHost({ record: false, ...traits });
  if (below !== undefined) host.put(BELOW, below);
  const all = { ...options, ...(below === undefined ? {} : { backing_file: BELOW, backing_fmt: 'raw' }) };
  await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size, options: all });
  if (before !== undefined) {
    const disk = await open(host, true);
    await before(disk);
    await disk.close();
  }
  const disk = await open(host, false);
  const initial = await disk.read(0, disk.length);
  await disk.close();
  return { image: host.snapshot(), initial };
}

/** All crashes of a workload: at most leaks, what was flushed is there, and life goes on. */
export async function crashScenario(workload: Workload): Promise<CrashScenario> {
  const { image, initial } = await prepare(workload);
  return {
    start: () => new SimHost({ ...workload.host, record: true }, image),
    async workload(host) {
      const disk = await open(host, true, workload.open);
      const recorded = recordDisk(host, disk);
      await workload.run(recorded);
      await recorded.close();
    },
    check: (host, point) => checkSurvivor(host, point, initial),
  };
}

function expectSound(host: SimHost, when: string): void {
  const { problems } = readQcow2(host.contents(PATH), host.exists(DATA_FILE) ? host.contents(DATA_FILE) : undefined);
  if (problems.length > 0) throw new Error(`${when} the image is corrupt: ${problems.join('; ')}`);
}

async function checkSurvivor(host: SimHost, point: CrashPoint, initial: Uint8Array): Promise<void> {
  expectSound(host, 'after the crash');
  const disk = await open(host, false);
  await checkDurability(disk, point.notes, initial);
  const content = await disk.read(0, disk.length);
  await disk.close();
  await expectUsable(host, content);
}

/** Writing after a crash touches nothing but what is written, also where clusters were lost. */
async function expectUsable(host: SimHost, content: Uint8Array): Promise<void> {
  if (content.length === 0) return;
  const disk = await open(host, true);
  const random = new SeededRandom(content.length);
  for (let i = 0; i < 6; i++) {
    const offset = random.below(content.length);
    const data = operationData(i + 900, Math.min(content.length - offset, 700));
    await disk.write(offset, data);
    content.set(data, offset);
  }
  await disk.close();
  expectSound(host, 'written to after the crash');
  const again = await open(host, false);
  const findings: string[] = [];
  const report = await again.check({ repair: 'none', finding: (line) => void findings.push(line) });
  if (report.corruptions + report.checkErrors > 0) throw new Error(`the check finds ${findings.join('; ')}`);
  const at = differsAt(await again.read(0, content.length), content);
  if (at >= 0) throw new Error(`writing after the crash changed byte ${at}`);
  await again.close();
}

const CLUSTER = 512;
const SMALL: OptionTree = { cluster_size: CLUSTER };

function data(seed: number, length = CLUSTER): Uint8Array {
  return operationData(seed, length);
}

async function fill(disk: Disk, ...clusters: readonly number[]): Promise<void> {
  for (const cluster of clusters) await disk.write(cluster * CLUSTER, data(cluster + 50));
}

/** Growing over an image below that is longer than the disk was: not a byte of it may show behind the old end. */
const GROWTHS: readonly Workload[] = [
  { name: 'version 2', cluster: 1024, more: { compat: '0.10' } },
  { name: 'version 3', cluster: 1024, more: {} },
  { name: 'subclusters', cluster: 16384, more: { extended_l2: true } },
].map(({ name, cluster, more }) => {
  return {
    name: `growing over a longer image below, ${name}`,
    size: 3.5 * cluster,
    options: { cluster_size: cluster, ...more },
    below: operationData(9, 9.5 * cluster),
    async run(disk: RecordedDisk<Disk>) {
      await disk.write(10, operationData(1, 100));
      await disk.truncate(7.5 * cluster);
      await disk.write(4 * cluster, operationData(2, 100));
      await disk.flush();
      await disk.truncate(80 * cluster);
      await disk.flush();
    },
    states: 16,
  };
});

export const WORKLOADS: readonly Workload[] = [
  {
    name: 'allocating writes, whole clusters and parts, with new L2 tables',
    size: 200 * CLUSTER,
    options: SMALL,
    async run(disk) {
      await disk.write(0, data(1));
      await disk.write(5 * CLUSTER + 100, data(2, 300));
      await disk.flush();
      await disk.write(63 * CLUSTER, data(3, 3 * CLUSTER));
      await disk.write(100, data(4, 200));
      await disk.flush();
      await disk.write(150 * CLUSTER + 9, data(5, 20));
    },
  },
  {
    name: 'several writes at one time, flushes between',
    size: 100 * CLUSTER,
    options: SMALL,
    host: { seed: 5, latency: { min: 0, max: 9 } },
    async run(disk) {
      const some = (first: number, seed: number) =>
        Promise.all(Array.from({ length: 4 }, (_, i) => disk.write((first + i) * CLUSTER + 128, data(seed + i, 300))));
      await some(0, 10);
      await Promise.all([disk.flush(), some(4, 20)]);
      await disk.flush();
      await Promise.all([some(70, 30), disk.flush()]);
      await disk.flush();
    },
  },
  {
    name: 'forced writes',
    size: 20 * CLUSTER,
    options: SMALL,
    async run(disk) {
      await disk.write(2 * CLUSTER, data(1), { fua: true });
      await disk.write(100, data(2, 50), { fua: true });
      await disk.write(5 * CLUSTER, data(3));
      await disk.write(5 * CLUSTER + 10, data(4, 10), { fua: true });
      await disk.writeZeroes(2 * CLUSTER, CLUSTER, { fua: true, unmap: true });
    },
  },
  {
    name: 'discards and reuse of what they free',
    size: 40 * CLUSTER,
    options: SMALL,
    before: (disk) => fill(disk, 0, 1, 2, 3, 4, 5),
    async run(disk) {
      await disk.discard(CLUSTER, 2 * CLUSTER);
      await disk.write(8 * CLUSTER, data(1));
      await disk.flush();
      await disk.write(9 * CLUSTER, data(2));
      await disk.discard(5 * CLUSTER, CLUSTER);
      await disk.write(10 * CLUSTER, data(3));
      await disk.flush();
      await disk.discard(0, CLUSTER);
      await disk.discard(8 * CLUSTER, 3 * CLUSTER);
      await disk.write(11 * CLUSTER, data(4));
      await disk.write(CLUSTER, data(5));
      await disk.flush();
    },
  },
  {
    name: 'discards while a flush is under way, and reuse',
    size: 40 * CLUSTER,
    options: SMALL,
    host: { seed: 3, latency: { min: 1, max: 9 } },
    before: (disk) => fill(disk, 0, 1, 2, 3, 4, 5),
    async run(disk) {
      for (let turn = 0; turn < 5; turn++) {
        await disk.write(6 * CLUSTER + turn * 16, data(turn + 1, 16));
        const flushing = disk.flush();
        // By now the flush has taken the tables as they were.
        await disk.write((turn + 1) * CLUSTER, data(turn + 11, 100));
        await disk.discard(turn * CLUSTER, CLUSTER);
        await flushing;
        await disk.write((turn + 7) * CLUSTER, data(turn + 21));
      }
    },
  },
  {
    name: 'zeroes over data, unmapped and not',
    size: 20 * CLUSTER,
    options: SMALL,
    before: (disk) => fill(disk, 0, 1, 2, 3, 4, 5),
    async run(disk) {
      await disk.writeZeroes(0, 2 * CLUSTER, { unmap: true });
      await disk.writeZeroes(2 * CLUSTER + 100, CLUSTER);
      await disk.flush();
      await disk.writeZeroes(4 * CLUSTER, CLUSTER);
      await disk.write(4 * CLUSTER + 3, data(7, 40));
      await disk.writeZeroes(7 * CLUSTER, CLUSTER);
      await disk.flush();
    },
  },
  {
    name: 'more clusters than a refcount block counts, and a longer refcount table',
    size: 6000 * CLUSTER,
    options: { ...SMALL, refcount_bits: 64 },
    states: 4,
    before: (disk) => disk.write(0, data(9, 3900 * CLUSTER)),
    async run(disk) {
      for (let i = 0; i < 5; i++) {
        await disk.write((4000 + i * 70) * CLUSTER, data(i + 1, 60 * CLUSTER));
        if (i % 2 === 1) await disk.flush();
      }
    },
  },
  {
    name: 'copies from the backing file',
    size: 30 * CLUSTER,
    options: SMALL,
    below: operationData(77, 25 * CLUSTER),
    async run(disk) {
      await disk.write(100, data(1, 50));
      await disk.write(3 * CLUSTER + 5, data(2, 2 * CLUSTER));
      await disk.flush();
      await disk.discard(0, CLUSTER);
      await disk.writeZeroes(4 * CLUSTER, 3 * CLUSTER, { unmap: true });
      await disk.write(24 * CLUSTER + 200, data(3, CLUSTER));
      await disk.flush();
    },
  },
  {
    name: 'subclusters',
    size: 6 * 16384,
    options: { cluster_size: 16384, extended_l2: true },
    below: operationData(78, 5 * 16384),
    async run(disk) {
      await disk.write(700, data(1, 900));
      await disk.write(16384 - 100, data(2, 200));
      await disk.flush();
      await disk.write(5000, data(3, 100));
      await disk.writeZeroes(512, 1024);
      await disk.discard(16384, 16384);
      await disk.flush();
    },
  },
  {
    name: 'compressed writes, over each other and over plain ones',
    size: 30 * CLUSTER,
    options: SMALL,
    host: { seed: 7, latency: { min: 0, max: 4 } },
    before: (disk) => fill(disk, 1, 2, 3),
    async run(disk) {
      const packed = (first: number, count: number, byte: number) => {
        const bytes = new Uint8Array(count * CLUSTER).fill(byte);
        bytes.set(data(byte, 150), CLUSTER >> 1);
        return disk.write(first * CLUSTER, bytes, { compressed: true });
      };
      await packed(0, 6, 1);
      await disk.flush();
      await Promise.all([packed(3, 5, 2), packed(10, 4, 3)]);
      await disk.write(4 * CLUSTER + 9, data(4, 100));
      await disk.flush();
      await disk.discard(5 * CLUSTER, 2 * CLUSTER);
      await packed(11, 2, 5);
      await Promise.all([disk.flush(), packed(20, 5, 6)]);
      await disk.write(20 * CLUSTER, data(7, 2 * CLUSTER));
      await packed(0, 2, 8);
      await disk.flush();
    },
  },
  {
    name: 'lazy refcounts',
    size: 100 * CLUSTER,
    options: { ...SMALL, lazy_refcounts: true },
    async run(disk) {
      await disk.write(0, data(1));
      await disk.write(5 * CLUSTER + 100, data(2, 300));
      await disk.flush();
      await disk.discard(0, CLUSTER);
      await disk.write(70 * CLUSTER, data(3, 3 * CLUSTER));
      await disk.flush();
      await disk.write(9 * CLUSTER, data(4));
    },
  },
  {
    name: 'a data file',
    size: 40 * CLUSTER,
    options: { ...SMALL, data_file: DATA_FILE },
    async run(disk) {
      await disk.write(100, data(1, 50));
      await disk.write(3 * CLUSTER + 5, data(2, 2 * CLUSTER));
      await disk.flush();
      await disk.write(30 * CLUSTER, data(3));
      await disk.flush();
    },
  },
  {
    name: 'growing and shrinking',
    size: 60 * CLUSTER,
    options: SMALL,
    before: (disk) => fill(disk, 0, 3, 7, 40, 50, 59),
    async run(disk) {
      await disk.truncate(5000 * CLUSTER);
      await disk.write(4990 * CLUSTER, data(1));
      await disk.flush();
      await disk.truncate(8 * CLUSTER);
      await disk.write(6 * CLUSTER, data(2));
      await disk.flush();
      await disk.truncate(70 * CLUSTER);
      await disk.write(69 * CLUSTER, data(3, 100));
      await disk.flush();
    },
  },
  {
    name: 'shrinking over a longer image below, and growing again',
    size: 200 * CLUSTER,
    options: SMALL,
    below: data(9, 150 * CLUSTER),
    async before(disk) {
      await disk.writeZeroes(10 * CLUSTER, 8 * CLUSTER);
      await fill(disk, 12, 70, 71, 130, 190);
      await disk.writeZeroes(64 * CLUSTER, 4 * CLUSTER);
    },
    async run(disk) {
      await disk.truncate(11 * CLUSTER);
      await disk.flush();
      await disk.truncate(90 * CLUSTER);
      await disk.write(80 * CLUSTER, data(3, 100));
      await disk.flush();
    },
  },
  ...GROWTHS,
  {
    name: 'a cache of two slices',
    size: 400 * CLUSTER,
    options: SMALL,
    open: { 'l2-cache-size': 1024, 'l2-cache-entry-size': 512 },
    async run(disk) {
      for (let i = 0; i < 6; i++) await disk.write(i * 64 * CLUSTER + 77, data(i + 1, 200));
      await disk.flush();
      await disk.discard(64 * CLUSTER, CLUSTER);
      for (let i = 5; i >= 0; i--) await disk.write(i * 64 * CLUSTER + 1024, data(i + 11, 600));
      await disk.flush();
    },
  },
];
