/** Random work on a qcow2 disk and its snapshots, against plain bytes (Q-SNAP-4 to Q-SNAP-7, Q-REF-2, Q-CHK). */
import { describe, expect, test } from 'vitest';
import { createImage } from '../../src/core/create.ts';
import type { Disk } from '../../src/core/disk.ts';
import type { OptionTree } from '../../src/core/options.ts';
import { differsAt } from '../../src/testing/compare-bytes.ts';
import { operationData } from '../../src/testing/disk-operations.ts';
import { SeededRandom, SimHost } from '../../src/testing/index.ts';
import { longMode, testSeed } from '../set-up/seed.ts';
import { readQcow2 } from '../support/qcow2-bytes.ts';
import { graphOn, PATH } from '../support/sim-disks.ts';

const BELOW = '/below.raw';
const below = operationData(99, 30 * 512);

interface Plan {
  readonly options: OptionTree;
  readonly size: number;
  readonly based?: boolean;
  readonly resizable?: boolean;
}

const PLANS: readonly Plan[] = [
  { options: { cluster_size: 512 }, size: 50 * 512 },
  { options: { cluster_size: 512, refcount_bits: 64 }, size: 150 * 512 },
  { options: { cluster_size: 512, refcount_bits: 4 }, size: 70 * 512, based: true },
  { options: { cluster_size: 1024, lazy_refcounts: true }, size: 40 * 1024 },
  { options: { cluster_size: 512, compat: '0.10' }, size: 50 * 512, resizable: false },
  { options: { cluster_size: 16384, extended_l2: true }, size: 5 * 16384, based: true },
];

interface Kept {
  readonly id: string;
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** A disk, and what it and its snapshots should be. */
class World {
  readonly host: SimHost;
  readonly plan: Plan;
  readonly random: SeededRandom;
  bytes: Uint8Array;
  kept: readonly Kept[] = [];
  disk: Disk | undefined;
  steps = 0;

  constructor(host: SimHost, plan: Plan, random: SeededRandom) {
    this.host = host;
    this.plan = plan;
    this.random = random;
    this.bytes = new Uint8Array(plan.size);
    if (plan.based) this.bytes.set(below.subarray(0, plan.size));
  }

  async open(writable = true): Promise<Disk> {
    const checks = this.random.pick(['cached', 'all']);
    const tree = { driver: 'qcow2', file: { driver: 'file', filename: PATH }, 'overlap-check': checks };
    this.disk = await graphOn(this.host).open(tree, { writable });
    return this.disk;
  }

  async step(disk: Disk): Promise<void> {
    const { random } = this;
    this.steps++;
    const work = random.pick(STEPS);
    await work(this, disk);
  }

  range(): { offset: number; length: number } {
    const { random, bytes } = this;
    if (bytes.length === 0) return { offset: 0, length: 0 };
    const offset = random.below(bytes.length);
    return { offset, length: Math.min(bytes.length - offset, random.between(1, 3000)) };
  }

  expectSame(content: Uint8Array): void {
    expect(content.length).toBe(this.bytes.length);
    expect(differsAt(content, this.bytes)).toBe(-1);
  }
}

type Step = (world: World, disk: Disk) => Promise<void>;

const write: Step = async (world, disk) => {
  const { offset, length } = world.range();
  const data = operationData(world.steps, length);
  world.bytes.set(data, offset);
  await disk.write(offset, data);
};

const zero: Step = async (world, disk) => {
  const { offset, length } = world.range();
  world.bytes.fill(0, offset, offset + length);
  await disk.writeZeroes(offset, length, { unmap: world.random.chance(0.5) });
};

/** Whole clusters, stored compressed where that saves anything. */
const writeCompressed: Step = async (world, disk) => {
  const unit = disk.info().clusterSize ?? 512;
  const clusters = Math.floor(world.bytes.length / unit);
  if (clusters === 0) return;
  const offset = world.random.below(clusters) * unit;
  const data = new Uint8Array(unit).fill(world.steps);
  data.set(operationData(world.steps, 40), 100);
  world.bytes.set(data, offset);
  await disk.write(offset, data, { compressed: true });
};

const compact: Step = async (world, disk) => {
  if (world.random.chance(0.6)) return;
  await disk.compact();
  world.expectSame(await disk.read(0, disk.length));
};

/** What is discarded as a whole reads as zeroes, except in version 2 over another image. */
const discard: Step = async (world, disk) => {
  const { offset, length } = world.range();
  await disk.discard(offset, length);
  world.bytes = await disk.read(0, disk.length);
};

/** Counts of four bits go up to 15: more snapshots of a cluster, or of compressed ones in it, are refused and change nothing. */
async function unlessFull<T>({ plan }: World, work: Promise<T>): Promise<T | undefined> {
  return work.catch((error: unknown) => {
    if (plan.options.refcount_bits !== 4) throw error;
    expect(String(error)).toMatch(/refcount width of 4 bits cannot hold another reference/);
    return undefined;
  });
}

const create: Step = async (world, disk) => {
  const name = `n${world.random.below(3)}`;
  const writes = world.random.chance(0.3) ? [write(world, disk), write(world, disk)] : [];
  await Promise.all(writes);
  const made = await unlessFull(world, disk.snapshots.create(name));
  if (made === undefined) return;
  const { id } = made;
  world.kept = [...world.kept, { id, name, bytes: world.bytes.slice() }];
};

const apply: Step = async (world, disk) => {
  if (world.kept.length === 0) return create(world, disk);
  const kept = world.random.pick(world.kept);
  const applied = await unlessFull(
    world,
    disk.snapshots.apply({ id: kept.id }).then(() => true),
  );
  if (applied) world.bytes = kept.bytes.slice();
};

const remove: Step = async (world, disk) => {
  if (world.kept.length === 0) return;
  const kept = world.random.pick(world.kept);
  await disk.snapshots.delete(kept.id);
  world.kept = world.kept.filter((each) => each !== kept);
};

const resize: Step = async (world, disk) => {
  if (world.plan.resizable === false) return;
  const length = world.random.below(Math.ceil((world.plan.size * 3) / 512)) * 512;
  await disk.resize(length, { shrink: true });
  const bytes = new Uint8Array(length);
  bytes.set(world.bytes.subarray(0, length));
  world.bytes = bytes;
};

const reopen: Step = async (world, disk) => {
  await disk.close();
  await world.open();
};

/** Looks at a snapshot, and at all of the image. */
const look: Step = async (world, disk) => {
  await disk.close();
  const reader = await world.open(false);
  const report = await reader.check({ repair: 'none', finding: () => {} });
  expect(report).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
  const kept = world.kept.length > 0 ? world.random.pick(world.kept) : undefined;
  if (kept !== undefined) {
    await reader.snapshots.show({ id: kept.id, name: kept.name });
    expect(differsAt(await reader.read(0, reader.length), kept.bytes)).toBe(-1);
  }
  await reader.close();
  await world.open();
};

const read: Step = async (world, disk) => world.expectSame(await disk.read(0, disk.length));
const flush: Step = (_world, disk) => disk.flush();

const STEPS: readonly Step[] = [
  ...[write, write, write, write, write, zero, discard, create, create, apply, apply],
  ...[remove, resize, reopen, read, flush, look, writeCompressed, writeCompressed, compact],
];

function expectSound(world: World): void {
  const view = readQcow2(world.host.contents(PATH));
  expect(view.problems).toEqual([]);
  expect(view.leaks).toEqual([]);
  const { based } = world.plan;
  const under = based ? below : undefined;
  world.expectSame(view.content(under));
  expect(view.snapshots.map(({ id, name }) => [id, name])).toEqual(world.kept.map(({ id, name }) => [id, name]));
  for (const [index, { content, size }] of view.snapshots.entries()) {
    expect(size).toBe(world.kept[index]?.bytes.length);
    expect(differsAt(content(under), world.kept[index]?.bytes ?? new Uint8Array(0))).toBe(-1);
  }
}

async function trial(plan: Plan, seed: number, steps: number): Promise<void> {
  const random = new SeededRandom(seed);
  const latency = random.chance(0.2) ? { min: 0, max: 5 } : { min: 0, max: 0 };
  const host = new SimHost({ seed, record: false, latency, refuseNow: random.pick([0, 0, 0.5, 1]) });
  host.put(BELOW, below);
  const base = plan.based ? { backing_file: BELOW, backing_fmt: 'raw' } : {};
  const options = { ...plan.options, ...base };
  await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size: plan.size, options });
  const world = new World(host, plan, random);
  await world.open();
  for (let i = 0; i < steps; i++) if (world.disk !== undefined) await world.step(world.disk);
  await world.disk?.close();
  expectSound(world);
}

const factor = longMode ? 30 : 1;

describe('random work with snapshots', () => {
  for (const plan of PLANS) {
    const sequences = (plan.options.extended_l2 ? 3 : 8) * factor;
    test(`${JSON.stringify(plan.options)}: ${sequences} sequences`, async () => {
      for (let i = 0; i < sequences; i++) {
        const seed = (testSeed % 1_000_000) * 1000 + i;
        await trial(plan, seed, 40).catch((error: unknown) => {
          throw new Error(`seed ${seed}: ${error instanceof Error ? error.message : error}`, { cause: error });
        });
      }
    });
  }
});
