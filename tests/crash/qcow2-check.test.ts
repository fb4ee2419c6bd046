/**
 * A repair while the power goes (Q-CHK-4, Q-CHK-6, Q-ORD-7): at no point is more wrong than before, save for leaks; nothing that
 * could be read is lost; and another repair mends what is left.
 */
import { describe, expect, test } from 'vitest';
import { BlockError } from '../../src/core/errors.ts';
import { differsAt } from '../../src/testing/compare-bytes.ts';
import { type CrashScenario, exploreCrashes, SimHost } from '../../src/testing/index.ts';
import { testSeed } from '../set-up/seed.ts';
import { checkWhole, faultsOf } from '../support/qcow2-checks.ts';
import {
  type Contents,
  contentsOf,
  makeImage,
  PATH,
  patchWords,
  some,
  useDisk,
  wordsAt,
} from '../support/qcow2-image.ts';

const CLUSTER = 512;
/** Guest clusters below one L2 table. */
const BELOW = CLUSTER / 8;
const OFFSET = 0x00ff_ffff_ffff_fe00n;
/** Bytes of an entry of the snapshot table before its extra data, and of these. */
const [FIXED, EXTRA] = [40, 24];

const wordAt = (host: SimHost, offset: number) => wordsAt(host, offset)[0] ?? 0n;

/** The first snapshot's entry, and the L2 tables below it. */
function firstSnapshot(host: SimHost) {
  const entry = Number(wordAt(host, 64));
  const l1 = Number(wordAt(host, entry));
  const [first = 0n, second = 0n] = wordsAt(host, l1, 2);
  return { entry, l1, l2: Number(first & OFFSET), second: Number(second & OFFSET) };
}

/** With two snapshots, of which the first has tables of its own. */
async function withSnapshots(): Promise<SimHost> {
  const host = await makeImage({ cluster_size: CLUSTER }, { size: 2 * BELOW * CLUSTER });
  await useDisk(host, async (disk) => {
    await disk.write(0, some(1, 4 * CLUSTER));
    await disk.write(BELOW * CLUSTER, some(2, 2 * CLUSTER));
    await disk.snapshots.create('first');
    await disk.write(0, some(3, 3 * CLUSTER));
    await disk.snapshots.create('second');
    await disk.write(BELOW * CLUSTER, some(4, CLUSTER));
  });
  return host;
}

/** Takes the extra data of the first entry down to nothing, as version 2 writes it; the table stays in its place. */
async function incomplete(host: SimHost): Promise<void> {
  const { entry } = firstSnapshot(host);
  const bytes = host.contents(PATH).slice(entry, entry + CLUSTER);
  const view = new DataView(bytes.buffer);
  const length = FIXED + EXTRA + view.getUint16(12) + view.getUint16(14);
  const rest = bytes.slice(FIXED + EXTRA, length);
  const next = bytes.slice(Math.ceil(length / 8) * 8);
  bytes.fill(0, FIXED);
  bytes.set(rest, FIXED);
  view.setUint32(36, 0);
  bytes.set(next.subarray(0, 80), Math.ceil((FIXED + rest.length) / 8) * 8);
  await patchWords(host, entry, ...Array.from({ length: CLUSTER / 8 }, (_, i) => view.getBigUint64(i * 8)));
}

/** The first snapshot alone, in a table of its own behind the end of the file, which nothing counts. */
async function tooMuchExtra(host: SimHost): Promise<void> {
  const extra = 1100;
  const { entry } = firstSnapshot(host);
  const bytes = host.contents(PATH);
  const at = Math.ceil(bytes.length / CLUSTER) * CLUSTER;
  const table = new Uint8Array(1200);
  table.set(bytes.subarray(entry, entry + FIXED + EXTRA));
  table.set(bytes.subarray(entry + FIXED + EXTRA, entry + FIXED + EXTRA + 16), FIXED + extra);
  const view = new DataView(table.buffer);
  view.setUint32(36, extra);
  await patchWords(host, at, ...Array.from({ length: table.length / 8 }, (_, i) => view.getBigUint64(i * 8)));
  await patchWords(host, 56, (wordAt(host, 56) & ~0xffffffffn) | 1n, BigInt(at));
}

type Damage = (host: SimHost) => Promise<void>;

const DAMAGES: Readonly<Record<string, Damage>> = {
  'an incomplete snapshot table is written anew': incomplete,
  'too much extra data is cut off, and counts are built anew': tooMuchExtra,
  'counts are built anew': async (host) => {
    const block = Number(wordAt(host, Number(wordAt(host, 48))));
    await patchWords(host, block + 8, 0n, 0n);
  },
  'data of a snapshot get their own': async (host) => {
    const { l2, second } = firstSnapshot(host);
    await patchWords(host, l2 + 16, wordAt(host, l2));
    await patchWords(host, second + 8, wordAt(host, l2));
  },
  'an L2 table of a snapshot gets its own': async (host) => {
    const { l1 } = firstSnapshot(host);
    await patchWords(host, l1 + 8, wordAt(host, l1));
  },
  'data of the disk get their own': async (host) => {
    const l2 = Number(wordAt(host, Number(wordAt(host, 40))) & OFFSET);
    await patchWords(host, l2 + 16, wordAt(host, l2));
  },
};

function expectSame(found: Contents, expected: Contents): void {
  expect(found.snapshots.length).toBe(expected.snapshots.length);
  expect(differsAt(found.disk, expected.disk)).toBe(-1);
  for (const [i, content] of expected.snapshots.entries()) {
    expect(differsAt(found.snapshots[i] ?? found.disk, content)).toBe(-1);
  }
}

/** What a check counts; all there is where it cannot be done. */
async function wrongIn(host: SimHost): Promise<number> {
  try {
    const { report } = await checkWhole(host);
    return report.corruptions + report.checkErrors;
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return Number.POSITIVE_INFINITY;
  }
}

async function scenario(damage: Damage): Promise<CrashScenario & { readonly wrong: number }> {
  const made = await withSnapshots();
  await damage(made);
  const image = made.snapshot();
  const wrong = await wrongIn(made);
  const before = contentsOf(made);
  return {
    wrong,
    start: () => new SimHost({ record: true }, image),
    async workload(host) {
      await checkWhole(host, { repair: 'all' });
    },
    async check(host) {
      expect(await wrongIn(host)).toBeLessThanOrEqual(wrong);
      // A table that no check could read is not read without one either.
      if (Number.isFinite(wrong)) expectSame(contentsOf(host), before);
      const { report } = await checkWhole(host, { repair: 'all' });
      expect(report).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
      const { problems, leaks } = faultsOf(host);
      const held = host.contents(PATH).length / CLUSTER;
      // Counts of clusters that the file never got are looked at by nobody, qemu-img's check included.
      expect([problems, leaks.filter((cluster) => cluster < held)]).toEqual([[], []]);
      expectSame(contentsOf(host), before);
    },
  };
}

describe('the power goes while', () => {
  test.each(Object.entries(DAMAGES))('%s', async (_name, damage) => {
    const { wrong, ...explored } = await scenario(damage);
    expect(wrong).toBeGreaterThan(0);
    const { cuts } = await exploreCrashes(explored, { seed: testSeed, statesPerCut: 24 });
    expect(cuts).toBeGreaterThan(3);
  });
});
