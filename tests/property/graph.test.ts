/**
 * Random changes of graphs with images that share images, some of which fail at random steps, while requests are under way:
 * afterwards all that is worked out anew from the links is as it is stored, what failed has changed nothing, disks read as
 * they should, and in the end nothing is left open.
 */
import { expect, test } from 'vitest';
import { longMode, testSeed } from '../set-up/seed.ts';
import { fingerprint } from '../support/graph-checks.ts';
import { OPERATIONS, type Operation, startRequests } from '../support/graph-operations.ts';
import { GraphWorld } from '../support/graph-world.ts';

const SEQUENCES = longMode ? 10_000 : 250;
const STEPS = 24;

test(`${SEQUENCES} sequences of changes`, { timeout: 3_600_000 }, async () => {
  for (let index = 0; index < SEQUENCES; index++) await runSequence(testSeed + index);
});

async function runSequence(seed: number): Promise<void> {
  const world = new GraphWorld(seed);
  try {
    await world.prepare();
    for (let step = 0; step < STEPS; step++) {
      if (world.random.chance(0.25)) await twoAtOnce(world);
      else await oneAlone(world);
      await world.check();
    }
    await world.end();
  } catch (error) {
    throw new Error(`seed ${seed}:\n${world.story.slice(-12).join('\n')}`, { cause: error });
  }
}

function choose(world: GraphWorld) {
  const total = OPERATIONS.reduce((sum, { weight }) => sum + weight, 0);
  let left = world.random.below(total);
  const found = OPERATIONS.find(({ weight }) => {
    left -= weight;
    return left < 0;
  }) as Operation;
  const plan = found.plan(world);
  return plan && { ...plan, changesData: found.changesData === true };
}

async function oneAlone(world: GraphWorld): Promise<void> {
  const plan = choose(world);
  if (plan === undefined) return;
  const before = fingerprint(world.graph);
  const notices = world.host.notices.length;
  if (plan.changesData) world.forgetData();
  const requests = startRequests(world);
  const failure = await withFaults(world, () => attempt(world, plan));
  await world.inTime(requests);
  // Closing goes to its end all the same.
  if (failure === undefined || /^(close|release)/.test(plan.text)) return;
  if (world.host.notices.slice(notices).some((notice) => notice.includes('could not be undone'))) return;
  expect(fingerprint(world.graph)).toEqual(before);
}

/** Both must be as if one had come after the other. */
async function twoAtOnce(world: GraphWorld): Promise<void> {
  const plans = [choose(world), choose(world), choose(world)].filter((plan) => plan !== undefined);
  world.forgetData();
  const requests = startRequests(world);
  await withFaults(world, () => Promise.all(plans.map((plan) => attempt(world, plan))));
  await world.inTime(requests);
}

async function attempt(world: GraphWorld, plan: { text: string; run(): Promise<unknown> }): Promise<unknown> {
  const line = world.story.push(`  ${plan.text}`) - 1;
  try {
    await world.inTime(plan.run());
    world.story[line] = `${plan.text}: done`;
    return undefined;
  } catch (error) {
    world.expected(error);
    world.story[line] = `${plan.text}: ${(error as Error).message}`;
    return error;
  }
}

async function withFaults<T>(world: GraphWorld, work: () => Promise<T>): Promise<T> {
  const { random, host } = world;
  if (random.chance(0.6)) return work();
  world.failing = random.pick([0.02, 0.1, 0.4]);
  const operation = random.pick(['open', 'stat', 'flush', 'close'] as const);
  const disarm = host.faults.inject({ operation, code: 'EIO', skip: random.below(4), times: random.between(1, 2) });
  try {
    return await work();
  } finally {
    world.failing = 0;
    disarm();
  }
}
