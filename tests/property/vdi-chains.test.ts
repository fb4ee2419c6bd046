/** V-50: chains of differencing images against plain arrays of bytes; what is below never changes. */
import { describe, expect, test } from 'vitest';
import { createImage } from '../../src/core/create.ts';
import type { Graph } from '../../src/core/graph.ts';
import type { OptionTree } from '../../src/core/options.ts';
import { differsAt } from '../../src/testing/compare-bytes.ts';
import { type DiskOperation, randomOperations } from '../../src/testing/disk-operations.ts';
import { DiskTrial } from '../../src/testing/disk-trial.ts';
import { SeededRandom, SimHost, type SimHostOptions } from '../../src/testing/index.ts';
import { longMode, testSeed } from '../set-up/seed.ts';
import { graphOn } from '../support/drivers.ts';
import { readVdi } from '../support/vdi-bytes.ts';

const DEPTH = 10;

function mood(random: SeededRandom, seed: number): SimHostOptions {
  return {
    seed,
    record: false,
    latency: random.chance(0.3) ? { min: 0, max: random.between(1, 12) } : { min: 0, max: 0 },
    refuseNow: random.pick([0, 0, 0.3, 1]),
    missing: random.chance(0.3) ? ['punchHole', 'zeroRange', 'allocate', 'extent'] : [],
  };
}

/** Every image over the one before, with blocks and a size of its own. */
async function makeLayer(graph: Graph, depth: number, random: SeededRandom, length: number): Promise<void> {
  const options: OptionTree = {
    'block-size': random.pick([4096, 4096, 8192, 16384]),
    'data-align': random.pick([512, 4096]),
    ...(depth === 0 ? {} : { parent: nameOf(depth - 1) }),
  };
  await createImage(graph, { filename: nameOf(depth), format: 'vdi', size: length, options });
}

const nameOf = (depth: number) => `/chain/${depth}.vdi`;

function resized(bytes: Uint8Array, length: number): Uint8Array {
  const copy = new Uint8Array(length);
  copy.set(bytes.subarray(0, length));
  return copy;
}

async function runAll(trial: DiskTrial, operations: readonly DiskOperation[]): Promise<void> {
  for (const [index, operation] of operations.entries()) {
    try {
      await trial.run(operation);
    } catch (error) {
      throw new Error(`operation ${index}, ${JSON.stringify(operation)}: ${error}`, { cause: error });
    }
  }
}

/** Writes into one layer after the other, each time through all below. Returns what each reads as. */
async function growChain(host: SimHost, random: SeededRandom, depth: number): Promise<Uint8Array[]> {
  const graph = graphOn(host);
  const contents: Uint8Array[] = [];
  let content = new Uint8Array(0);
  for (let layer = 0; layer < depth; layer++) {
    const length = random.between(1, 12 * 8) * 512;
    await makeLayer(graph, layer, random, length);
    const trial = await DiskTrial.start({
      open: () =>
        graph.open(nameOf(layer), {
          format: 'vdi',
          writable: true,
          detectZeroes: random.pick(['off', 'off', 'on'] as const),
          discard: random.pick(['unmap', 'unmap', 'ignore'] as const),
        }),
    });
    trial.model.write(0, resized(content, length));
    const plan = { count: 14, length, blockSize: 4096, resize: { min: 0, max: 60_000, step: 512 } };
    await runAll(trial, randomOperations(random.uint32(), plan));
    if (random.chance(0.3) && 'compact' in trial.disk) await (trial.disk as { compact(): Promise<void> }).compact();
    await trial.finish();
    content = trial.model.bytes.slice();
    contents.push(content);
  }
  return contents;
}

async function expectAllLayers(host: SimHost, contents: readonly Uint8Array[]): Promise<void> {
  const graph = graphOn(host);
  for (const [layer, content] of contents.entries()) {
    expect(readVdi(host.contents(nameOf(layer))).problems).toEqual([]);
    const disk = await graph.open(nameOf(layer), { format: 'vdi' });
    expect(disk.length).toBe(content.length);
    expect([layer, differsAt(await disk.read(0, disk.length), content)]).toEqual([layer, -1]);
    await disk.close();
  }
  expect(host.warnings).toEqual([]);
  expect(host.openFiles).toEqual([]);
  expect(graph.nodes()).toEqual([]);
}

describe('chains of differencing VDIs', () => {
  const sequences = longMode ? 600 : 30;
  test(`${sequences} chains of up to ${DEPTH} images`, async () => {
    for (let seed = testSeed; seed < testSeed + sequences; seed++) {
      const random = new SeededRandom(seed);
      const host = new SimHost(mood(random, seed));
      const depth = random.pick([2, 2, 3, 4, DEPTH]);
      try {
        await expectAllLayers(host, await growChain(host, random, depth));
      } catch (error) {
        throw new Error(`seed ${seed}, ${depth} images: ${error}`, { cause: error });
      }
    }
  });
});
