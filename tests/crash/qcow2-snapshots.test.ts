/**
 * Snapshots while the power goes or the host fails (Q-SNAP-5, Q-ORD-1, Q-ORD-7): the image is as it was or as it is to be,
 * never between, and only space is lost.
 */
import { describe, expect, test } from 'vitest';
import { createImage } from '../../src/core/create.ts';
import type { Disk } from '../../src/core/disk.ts';
import { codeOf } from '../../src/core/errors.ts';
import type { OptionTree } from '../../src/core/options.ts';
import { differsAt } from '../../src/testing/compare-bytes.ts';
import { operationData } from '../../src/testing/disk-operations.ts';
import { type CrashScenario, exploreCrashes, SimHost } from '../../src/testing/index.ts';
import { longMode, testSeed } from '../set-up/seed.ts';
import { type Qcow2View, readQcow2 } from '../support/qcow2-bytes.ts';
import { graphOn, PATH } from '../support/sim-disks.ts';

const CLUSTER = 512;

type Step =
  | { readonly do: 'write'; readonly at: number; readonly length: number }
  | { readonly do: 'resize'; readonly length: number }
  | { readonly do: 'create' | 'apply' | 'delete'; readonly name: string };

/** What the disk and its snapshots hold. */
interface State {
  readonly content: Uint8Array;
  readonly snapshots: readonly { readonly name: string; readonly content: Uint8Array }[];
}

interface Workload {
  readonly name: string;
  readonly options: OptionTree;
  /** Clusters. */
  readonly size: number;
  readonly before: readonly Step[];
  readonly steps: readonly Step[];
}

const write = (at: number, length: number): Step => ({ do: 'write', at: at * CLUSTER, length: length * CLUSTER });
const resize = (clusters: number): Step => ({ do: 'resize', length: clusters * CLUSTER });
const create = (name: string): Step => ({ do: 'create', name });
const apply = (name: string): Step => ({ do: 'apply', name });
const remove = (name: string): Step => ({ do: 'delete', name });

const WORKLOADS: readonly Workload[] = [
  {
    name: 'made, written over, gone back to, deleted',
    options: { cluster_size: CLUSTER },
    size: 100,
    before: [write(0, 6), write(70, 2)],
    steps: [create('a'), write(1, 2), create('b'), apply('a'), write(3, 1), remove('a'), apply('b'), remove('b')],
  },
  {
    name: 'sizes that differ',
    options: { cluster_size: CLUSTER, refcount_bits: 8 },
    size: 10,
    before: [write(0, 3), create('small'), resize(200), write(190, 2), create('large')],
    steps: [apply('small'), write(9, 1), apply('large'), remove('small')],
  },
  {
    name: 'lazy refcounts',
    options: { cluster_size: CLUSTER, lazy_refcounts: true },
    size: 30,
    before: [write(0, 5), create('a'), write(1, 1)],
    steps: [write(2, 1), create('b'), apply('a'), remove('b'), remove('a')],
  },
];

/** Takes minutes. */
const LARGE: Workload = {
  name: 'many refcount blocks, and a longer refcount table',
  options: { cluster_size: CLUSTER, refcount_bits: 64 },
  size: 4000,
  before: [write(0, 3930)],
  steps: [create('a'), write(5, 40), remove('a')],
};

async function perform(disk: Disk, step: Step, seed: number): Promise<void> {
  if (step.do === 'write') {
    await disk.write(step.at, operationData(seed, step.length));
    await disk.flush();
  } else if (step.do === 'resize') await disk.resize(step.length, { shrink: true });
  else await disk.snapshots[step.do](step.name);
}

function after({ content, snapshots }: State, step: Step, seed: number): State {
  const next = content.slice();
  switch (step.do) {
    case 'write':
      next.set(operationData(seed, step.length), step.at);
      return { content: next, snapshots };
    case 'resize': {
      const resized = new Uint8Array(step.length);
      resized.set(content.subarray(0, step.length));
      return { content: resized, snapshots };
    }
    case 'create':
      return { content, snapshots: [...snapshots, { name: step.name, content }] };
    case 'apply':
      return { content: snapshots.find(({ name }) => name === step.name)?.content ?? content, snapshots };
    case 'delete':
      return { content, snapshots: snapshots.filter(({ name }) => name !== step.name) };
  }
}

/** States after 0, 1, … steps. */
function statesOf(start: State, steps: readonly Step[], seed: number): State[] {
  const states = [start];
  for (const [i, step] of steps.entries()) states.push(after(states.at(-1) ?? start, step, seed + i));
  return states;
}

const open = (host: SimHost, writable = true) => graphOn(host).open(PATH, { format: 'qcow2', writable });

async function prepare({ options, size, before }: Workload) {
  const host = new SimHost({ record: false });
  await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size: size * CLUSTER, options });
  const disk = await open(host);
  for (const [i, step] of before.entries()) await perform(disk, step, 100 + i);
  await disk.close();
  const start = { content: new Uint8Array(size * CLUSTER), snapshots: [] };
  return { image: host.snapshot(), state: statesOf(start, before, 100).at(-1) ?? start };
}

/** Why the image is not in a state; undefined: it is. */
function difference(view: Qcow2View, { content, snapshots }: State): string | undefined {
  const names = view.snapshots.map(({ name }) => name).join();
  const wanted = snapshots.map(({ name }) => name).join();
  if (names !== wanted) return `snapshots are ${names} rather than ${wanted}`;
  if (view.size !== content.length) return `the disk has ${view.size} bytes rather than ${content.length}`;
  const at = differsAt(view.content(), content);
  if (at >= 0) return `byte ${at} of the disk differs`;
  const damaged = view.snapshots.find((each, i) => differsAt(each.content(), snapshots[i]?.content ?? content) >= 0);
  return damaged && `snapshot ${damaged.name} differs`;
}

/** Outside of what is being written. */
function withWritten(view: Qcow2View, state: State, step: Step | undefined): State {
  if (step?.do !== 'write' || view.size !== state.content.length) return state;
  const content = state.content.slice();
  content.set(view.content().subarray(step.at, step.at + step.length), step.at);
  return { ...state, content };
}

function expectState(host: SimHost, allowed: readonly State[], step: Step | undefined, when: string): State {
  const view = readQcow2(host.contents(PATH));
  if (view.problems.length > 0) throw new Error(`${when} the image is corrupt: ${view.problems.join('; ')}`);
  const states = allowed.map((state) => withWritten(view, state, step));
  const differences = states.map((state) => difference(view, state));
  const found = differences.indexOf(undefined);
  const state = states[found];
  if (state === undefined)
    throw new Error(`${when} the image is in no state that it was in: ${differences.join('; ')}`);
  return state;
}

/** Life goes on: snapshots are applied and deleted, and at the end everything is right. */
async function expectUsable(host: SimHost, { content, snapshots }: State): Promise<void> {
  const disk = await open(host);
  const report = await disk.check({ repair: 'none', finding: () => {} });
  expect(report).toMatchObject({ corruptions: 0, checkErrors: 0 });
  for (const kept of snapshots) {
    await disk.snapshots.apply(kept.name);
    expect(differsAt(await disk.read(0, disk.length), kept.content)).toBe(-1);
    await disk.write(0, operationData(9, Math.min(900, disk.length)));
  }
  await disk.snapshots.create('after');
  for (const { name } of snapshots) await disk.snapshots.delete(name);
  if (snapshots.length === 0) expect(differsAt(await disk.read(0, disk.length), content)).toBe(-1);
  await disk.close();
  expect(readQcow2(host.contents(PATH)).problems).toEqual([]);
}

async function crashScenario(workload: Workload): Promise<CrashScenario> {
  const { image, state } = await prepare(workload);
  const states = statesOf(state, workload.steps, 200);
  return {
    start: () => new SimHost({ record: true }, image),
    async workload(host) {
      const disk = await open(host);
      for (const [i, step] of workload.steps.entries()) {
        await perform(disk, step, 200 + i);
        host.note(i);
      }
      await disk.close();
    },
    async check(host, { notes, cut }) {
      const done = notes.length;
      const step = workload.steps[done];
      const found = expectState(host, states.slice(done, done + 2), step, 'after the crash');
      // Living on takes longest, and differs little from cut to cut.
      if (longMode || cut % 4 === 0) await expectUsable(host, found);
    },
  };
}

describe('the power goes', () => {
  for (const workload of longMode ? [...WORKLOADS, LARGE] : WORKLOADS) {
    test(workload.name, async () => {
      const statesPerCut = longMode ? 60 : 6;
      const { cuts } = await exploreCrashes(await crashScenario(workload), { seed: testSeed, statesPerCut });
      expect(cuts).toBeGreaterThan(20);
    });
  }
});

/** Each step fails at each of its requests in turn; with `times`, some fail, else all from then on. */
async function failEverywhere(
  workload: Workload,
  operation: 'write' | 'flush' | 'read',
  times?: number,
): Promise<number> {
  const { image, state } = await prepare(workload);
  const states = statesOf(state, workload.steps, 200);
  let failures = 0;
  for (const [i, step] of workload.steps.entries()) {
    if (step.do === 'write') continue;
    // Later steps do what the first ones do.
    for (let skip = 0; ; skip += longMode || i < 2 ? 1 : 3) {
      const host = new SimHost({ record: false }, image);
      const disk = await open(host);
      for (const [j, earlier] of workload.steps.slice(0, i).entries()) await perform(disk, earlier, 200 + j);
      host.faults.inject({ operation, code: skip % 2 === 0 ? 'EIO' : 'ENOSPC', skip, ...(times && { times }) });
      const error = await perform(disk, step, 200 + i).then(() => undefined, codeOf);
      host.faults.clear();
      if (error !== undefined) failures++;
      const [before = state, next = state] = states.slice(i, i + 2);
      const told = disk.snapshots.list().map(({ name }) => name);
      const is = error === undefined ? next : before;
      expect(told).toEqual(is.snapshots.map(({ name }) => name));
      const content = await disk.read(0, disk.length).catch(() => undefined);
      if (content !== undefined) expect(differsAt(content, is.content)).toBe(-1);
      await disk.close().catch(() => {});
      const allowed = error === undefined ? [next] : content === undefined ? [before, next] : [before];
      await expectUsable(host, expectState(host, allowed, undefined, `failing #${skip} of step ${i}`));
      if (error === undefined) break;
    }
  }
  return failures;
}

describe('the host fails', () => {
  const [first, second] = WORKLOADS;
  if (first === undefined || second === undefined) throw new Error('there are workloads');
  test.each([
    ['one write', first, 'write', 1],
    ['all writes from one on', first, 'write', undefined],
    ['one flush', second, 'flush', 1],
    ['all flushes from one on', second, 'flush', undefined],
    ['one read', second, 'read', 1],
  ] as const)('%s', async (_name, workload, operation, times) => {
    expect(await failEverywhere(workload, operation, times)).toBeGreaterThan(3);
  });
});
