/** What is done to a VDI while the power may go, and what must hold afterwards. */
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
import { graphOn, PATH } from '../support/sim-disks.ts';
import { readVdi } from '../support/vdi-bytes.ts';

/** Where the image below is. */
export const PARENT = '/parent.vdi';

export interface Workload {
  readonly name: string;
  /** Disk size and creation options. */
  readonly size: number;
  readonly options?: OptionTree;
  /** An image below, which the options name. */
  readonly parent?: () => Uint8Array;
  /** Before the first crash: durable. */
  readonly before?: (disk: Disk) => Promise<void>;
  /** Or an image made otherwise. */
  readonly image?: () => Uint8Array;
  readonly run: (disk: RecordedDisk<Disk>) => Promise<void>;
  readonly host?: SimHostOptions;
}

async function open(host: SimHost, writable: boolean): Promise<Disk> {
  return await graphOn(host).open(PATH, { format: 'vdi', writable });
}

/** The image before the workload, and what a guest sees of it. */
async function prepare({ size, options = {}, parent, before, image, host: traits }: Workload) {
  const host = new SimHost({ record: false, ...traits });
  if (parent !== undefined) host.put(PARENT, parent());
  if (image !== undefined) host.put(PATH, image());
  else await createImage(graphOn(host), { filename: PATH, format: 'vdi', size, options });
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

/** All crashes of a workload: no corruption, what was flushed is there, and life goes on. */
export async function crashScenario(workload: Workload): Promise<CrashScenario> {
  const { image, initial } = await prepare(workload);
  return {
    start: () => new SimHost({ ...workload.host, record: true }, image),
    async workload(host) {
      const disk = await open(host, true);
      const recorded = recordDisk(host, disk);
      await workload.run(recorded);
      await recorded.close();
    },
    check: (host, point) => checkSurvivor(host, point, initial),
  };
}

export async function checkSurvivor(host: SimHost, point: CrashPoint, initial: Uint8Array): Promise<void> {
  const { problems } = readVdi(host.contents(PATH));
  if (problems.length > 0) throw new Error(`the image is corrupt: ${problems.join('; ')}`);
  const disk = await open(host, false);
  await expectSound(disk);
  await checkDurability(disk, point.notes, initial);
  const content = await disk.read(0, disk.length);
  await disk.close();
  await expectUsable(host, content);
}

async function expectSound(disk: Disk): Promise<void> {
  const findings: string[] = [];
  const report = await disk.check({ repair: 'none', finding: (line) => void findings.push(line) });
  if (report.corruptions + report.checkErrors > 0) {
    throw new Error(`the check finds ${report.corruptions} corruptions: ${findings.join('; ')}`);
  }
}

/** Writing after a crash touches nothing but what is written, also when blocks are allocated where others were lost. */
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
  const { problems } = readVdi(host.contents(PATH));
  if (problems.length > 0) throw new Error(`writing after the crash corrupts the image: ${problems.join('; ')}`);
  const again = await open(host, false);
  await expectSound(again);
  const found = await again.read(0, content.length);
  const at = differsAt(found, content);
  if (at >= 0) throw new Error(`writing after the crash changed byte ${at}`);
  await again.close();
}

const BLOCK = 4096;
const SMALL: OptionTree = { 'block-size': BLOCK };
/** Data right behind the map. */
const TIGHT: OptionTree = { ...SMALL, 'data-align': 512 };

/** A pattern for each write, so that it is known again. */
function data(seed: number, length = BLOCK): Uint8Array {
  return operationData(seed, length);
}

async function fill(disk: Disk, ...blocks: readonly number[]): Promise<void> {
  for (const block of blocks) await disk.write(block * BLOCK, data(block + 50));
}

export const WORKLOADS: readonly Workload[] = [
  {
    name: 'allocating writes, whole blocks and parts',
    size: 12 * BLOCK,
    options: SMALL,
    async run(disk) {
      await disk.write(0, data(1));
      await disk.write(5 * BLOCK + 100, data(2, 600));
      await disk.flush();
      await disk.write(3 * BLOCK, data(3, 3 * BLOCK));
      await disk.write(100, data(4, 200));
      await disk.flush();
      await disk.write(11 * BLOCK, data(5));
    },
  },
  {
    name: 'several writes at one time, flushes between',
    size: 16 * BLOCK,
    options: SMALL,
    host: { seed: 5, latency: { min: 0, max: 9 } },
    async run(disk) {
      const some = (first: number, seed: number) =>
        Promise.all(Array.from({ length: 4 }, (_, i) => disk.write((first + i) * BLOCK + 512, data(seed + i, 1024))));
      await some(0, 10);
      await Promise.all([disk.flush(), some(4, 20)]);
      await disk.flush();
      await Promise.all([some(8, 30), disk.flush()]);
      await disk.flush();
    },
  },
  {
    name: 'forced writes',
    size: 8 * BLOCK,
    options: SMALL,
    async run(disk) {
      await disk.write(2 * BLOCK, data(1), { fua: true });
      await disk.write(100, data(2, 50), { fua: true });
      await disk.write(5 * BLOCK, data(3));
      await disk.write(5 * BLOCK + 10, data(4, 10), { fua: true });
      await disk.writeZeroes(2 * BLOCK, BLOCK, { fua: true, unmap: true });
    },
  },
  {
    name: 'zeroes over data, unmapped and not',
    size: 10 * BLOCK,
    options: SMALL,
    before: (disk) => fill(disk, 0, 1, 2, 3, 4, 5),
    async run(disk) {
      await disk.writeZeroes(0, 2 * BLOCK, { unmap: true });
      await disk.writeZeroes(2 * BLOCK + 100, BLOCK);
      await disk.flush();
      await disk.writeZeroes(4 * BLOCK, BLOCK);
      await disk.writeZeroes(7 * BLOCK, BLOCK);
      await disk.flush();
    },
  },
  {
    name: 'discards and reuse of what they free',
    size: 12 * BLOCK,
    options: SMALL,
    before: (disk) => fill(disk, 0, 1, 2, 3, 4, 5),
    async run(disk) {
      await disk.discard(BLOCK, 2 * BLOCK);
      await disk.write(8 * BLOCK, data(1));
      await disk.flush();
      await disk.write(9 * BLOCK, data(2));
      await disk.discard(5 * BLOCK, BLOCK);
      await disk.write(10 * BLOCK, data(3));
      await disk.flush();
      await disk.discard(0, BLOCK);
      await disk.discard(8 * BLOCK, 3 * BLOCK);
      await disk.write(11 * BLOCK, data(4));
      await disk.write(BLOCK, data(5));
      await disk.flush();
    },
  },
  {
    name: 'discard, reuse and rewrite without a flush between',
    size: 8 * BLOCK,
    options: SMALL,
    before: (disk) => fill(disk, 0, 1, 2),
    async run(disk) {
      for (let turn = 0; turn < 4; turn++) {
        await disk.discard(turn * BLOCK, BLOCK);
        await disk.write((turn + 3) * BLOCK, data(turn + 1));
        await disk.write(turn * BLOCK, data(turn + 11, 700));
      }
      await disk.flush();
    },
  },
  {
    name: 'discards while a flush is under way, and reuse',
    size: 12 * BLOCK,
    options: SMALL,
    host: { seed: 3, latency: { min: 1, max: 9 } },
    before: (disk) => fill(disk, 0, 1, 2, 3, 4, 5),
    async run(disk) {
      for (let turn = 0; turn < 5; turn++) {
        await disk.write(6 * BLOCK + turn * 512, data(turn + 1, 512));
        const flushing = disk.flush();
        // By now the flush has taken the map as it was.
        await disk.write((turn + 1) * BLOCK, data(turn + 11, 512));
        await disk.discard(turn * BLOCK, BLOCK);
        await flushing;
        await disk.write((turn + 7) * BLOCK, data(turn + 21));
      }
    },
  },
  {
    name: 'growing, with data in the way of the longer map',
    size: 6 * BLOCK,
    options: TIGHT,
    before: (disk) => fill(disk, 0, 2, 3, 5, 4),
    async run(disk) {
      await disk.truncate(200 * BLOCK);
      await disk.write(150 * BLOCK, data(1));
      await disk.flush();
      await disk.write(3 * BLOCK, data(2, 100));
      await disk.truncate(210 * BLOCK + 512);
      await disk.flush();
    },
  },
  {
    name: 'growing a static image, with data in the way of the longer map',
    size: 3 * BLOCK,
    options: { ...TIGHT, preallocation: 'metadata' },
    before: (disk) => fill(disk, 0, 2),
    async run(disk) {
      await disk.truncate(150 * BLOCK);
      await disk.write(149 * BLOCK, data(1));
      await disk.flush();
    },
  },
  {
    name: 'shrinking, and growing again',
    size: 12 * BLOCK,
    options: SMALL,
    before: (disk) => fill(disk, 0, 3, 7, 8, 9, 10, 11),
    async run(disk) {
      await disk.truncate(8 * BLOCK + 512);
      await disk.flush();
      await disk.truncate(12 * BLOCK);
      await disk.write(11 * BLOCK, data(1, 100));
      await disk.flush();
      await disk.truncate(512);
      await disk.flush();
    },
  },
  {
    name: 'compaction of discarded blocks and blocks of zeroes',
    size: 16 * BLOCK,
    options: SMALL,
    async before(disk) {
      await fill(disk, 9, 0, 3, 12, 5, 7, 1, 14);
      await disk.discard(3 * BLOCK, BLOCK);
      await disk.discard(9 * BLOCK, BLOCK);
      await disk.write(7 * BLOCK, new Uint8Array(BLOCK));
    },
    async run({ disk }) {
      await disk.compact();
    },
  },
  {
    name: 'a static image written, zeroed and grown',
    size: 6 * BLOCK,
    options: { ...SMALL, preallocation: 'metadata' },
    async run(disk) {
      await disk.write(BLOCK, data(1, 2 * BLOCK));
      await disk.flush();
      await disk.writeZeroes(BLOCK, BLOCK, { unmap: true });
      await disk.truncate(9 * BLOCK);
      await disk.write(8 * BLOCK, data(2));
      await disk.flush();
    },
  },
];
