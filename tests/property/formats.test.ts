/** Random operations against a plain array of bytes, on every format, on hosts of many moods. */
import { describe, expect, test } from 'vitest';
import { differsAt } from '../../src/testing/compare-bytes.ts';
import {
  SeededRandom,
  SimHost,
  type SimHostOptions,
  searchTrials,
  type TrialSubject,
} from '../../src/testing/index.ts';
import { longMode, testSeed } from '../set-up/seed.ts';
import { qcow2Decrypt } from '../support/luks-bytes.ts';
import { readQcow2 } from '../support/qcow2-bytes.ts';
import {
  type DiskKind,
  graphOn,
  LUKS_KINDS,
  openKind,
  PATH,
  QCOW2_KINDS,
  RAW_KINDS,
  VDI_KINDS,
} from '../support/sim-disks.ts';
import { readVdi } from '../support/vdi-bytes.ts';

/** A host in a mood that the seed decides: late, unwilling to answer at once, without some features. */
function mood(seed: number): SimHostOptions {
  const random = new SeededRandom(seed);
  const features = ['punchHole', 'zeroRange', 'allocate', 'copyFrom', 'extent'] as const;
  return {
    seed,
    record: false,
    latency: random.chance(0.3) ? { min: 0, max: random.between(1, 20) } : { min: 0, max: 0 },
    refuseNow: random.pick([0, 0, 0.2, 0.5, 1]),
    missing: random.chance(0.3) ? features.filter(() => random.chance(0.5)) : [],
  };
}

/** Most sequences run on short disks, so that ends and edges are near. */
function lengthOf(kind: DiskKind, seed: number): number {
  const random = new SeededRandom(seed + 7);
  const blocks = kind.blockSize >= 1 << 20 ? 3 : 12;
  return random.between(1, (kind.blockSize / 512) * blocks) * 512;
}

async function subject(kind: DiskKind, seed: number): Promise<TrialSubject> {
  const host = new SimHost(mood(seed));
  const random = new SeededRandom(seed + 3);
  const length = lengthOf(kind, seed);
  await kind.make(host, length);
  const graph = graphOn(host);
  return {
    open: () =>
      openKind(graph, kind, length, {
        writable: true,
        cache: random.pick(['writeback', 'writeback', 'writethrough', 'none', 'unsafe'] as const),
        discard: random.pick(['unmap', 'unmap', 'ignore'] as const),
        detectZeroes: random.pick(['off', 'off', 'on'] as const),
      }),
    finish(model) {
      expect(host.openFiles).toEqual([]);
      expect(graph.nodes()).toEqual([]);
      if (kind.format === 'qcow2') {
        const view = readQcow2(
          host.contents(PATH),
          kind.dataFile === undefined ? undefined : host.contents(kind.dataFile),
        );
        expect([view.problems, view.leaks, view.size]).toEqual([[], [], model.length]);
        const decrypt = kind.passphrase === undefined ? undefined : qcow2Decrypt(host.contents(PATH), kind.passphrase);
        expect(differsAt(view.content(undefined, decrypt), model.bytes)).toBe(-1);
      }
      if (kind.format !== 'vdi') return;
      const image = readVdi(host.contents(PATH));
      expect(image.problems).toEqual([]);
      expect(image.diskSize).toBe(model.length);
      expect(differsAt(image.content(), model.bytes)).toBe(-1);
    },
  };
}

const isLarge = ({ blockSize }: DiskKind) => blockSize >= 1 << 16;

function search(kind: DiskKind, firstSeed: number, sequences: number): Promise<number> {
  return searchTrials({
    make: (seed) => subject(kind, seed),
    plan: (seed) => ({
      count: isLarge(kind) ? 25 : 40,
      length: lengthOf(kind, seed),
      blockSize: kind.blockSize,
      longest: Math.min(kind.blockSize * 2.5, kind.blockSize + 65536),
      ...(kind.resizable ? { resize: { min: 0, max: Math.min(kind.blockSize * 16, 5 << 20), step: 512 } } : {}),
    }),
    firstSeed,
    sequences,
  });
}

/** By whether blocks are large, or keys have to be found, which makes a sequence slow. */
const SEQUENCES = longMode ? { small: 5000, large: 300, keyed: 100 } : { small: 250, large: 8, keyed: 4 };

/** Sequences that found a mistake once. */
const FOUND: readonly (readonly [kind: string, seed: number])[] = [
  // A write into subclusters without data and with some made the latter zero for a moment.
  ['qcow2, subclusters', 261_123_527],
  ['qcow2, subclusters, preallocated', 261_124_064],
  ['qcow2 over zeroes, subclusters', 261_123_385],
  // Zeroes and data written at one time were in the tables in one order, in the data file in the other.
  ['qcow2, raw data file', 261_124_471],
];

describe('random operations against plain bytes', () => {
  for (const kind of [...RAW_KINDS, ...VDI_KINDS, ...QCOW2_KINDS, ...LUKS_KINDS]) {
    const keyed = LUKS_KINDS.includes(kind);
    const sequences = keyed ? SEQUENCES.keyed : isLarge(kind) ? SEQUENCES.large : SEQUENCES.small;
    test(`${kind.name}: ${sequences} sequences`, async () => {
      expect(await search(kind, (testSeed % 1_000_000) * 1000, sequences)).toBeGreaterThan(0);
    });
  }

  test.each(FOUND)('%s, seed %i', async (name, seed) => {
    const kind = QCOW2_KINDS.find((each) => each.name === name);
    expect(kind && (await search(kind, seed, 1))).toBeGreaterThan(0);
  });
});
