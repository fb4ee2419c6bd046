/**
 * Images damaged at random. Q-CHK-2, Q-CHK-3, Q-CHK-5: check tells what qemu-img's check tells, to the letter. Q-CHK-4, Q-CHK-6,
 * Q-CHK-7: a repair does what its plan says, in one pass or many, and when it says that all is well, so says qemu-img.
 */
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BlockError } from '../../src/core/errors.ts';
import type { CheckDiskOptions } from '../../src/jobs/check.ts';
import { check, open } from '../../src/node/index.ts';
import { differsAt } from '../../src/testing/compare-bytes.ts';
import { SeededRandom } from '../../src/testing/index.ts';
import { peerMissing, SideBySide } from '../interop/cli-programs.ts';
import { longMode, testSeed } from '../set-up/seed.ts';

const KINDS = [
  'cluster_size=512',
  'cluster_size=4096',
  'cluster_size=65536',
  'cluster_size=16384,extended_l2=on',
  'cluster_size=4096,refcount_bits=1',
  'cluster_size=512,compat=0.10',
  'cluster_size=4096,refcount_bits=32',
];

/** Seeds that found something once, and are part of every run. */
const REPAIRS_AGAIN = [20_261_221, 20_261_509, 20_262_096];
const IMAGES_AGAIN = [20_261_183, 20_261_509, 20_261_731, 20_262_526];

const COPIED = 1n << 63n;
const OFFSET = 0x00fffffffffffe00n;

/** Changes some words of tables and counts; returns what was changed. */
function damage(bytes: Buffer, random: SeededRandom): string[] {
  const word = (at: number) => (at + 8 <= bytes.length ? bytes.readBigUInt64BE(at) : 0n);
  const clusterSize = 2 ** bytes.readUInt32BE(20);
  const l1 = Number(word(40));
  const entries = bytes.readUInt32BE(36);
  const counts = Number(word(Number(word(48))));
  const tables = Array.from({ length: entries }, (_, i) => Number(word(l1 + i * 8) & OFFSET)).filter((at) => at > 0);
  const place = () =>
    random.pick([
      random.pick(tables) + 8 * random.below(Math.min(64, clusterSize / 8)),
      random.pick(tables) + 8 * random.below(Math.min(64, clusterSize / 8)),
      l1 + 8 * random.below(entries),
      counts + 8 * random.below(6),
    ]);
  const cluster = () => BigInt(random.below(bytes.length / clusterSize + 3) * clusterSize);
  return Array.from({ length: random.between(1, 3) }, () => {
    const at = place();
    const old = word(at);
    const next = random.pick([
      old ^ COPIED,
      old ^ (1n << BigInt(random.below(63))),
      old + BigInt(clusterSize),
      old ^ 512n,
      old | 1n,
      old | (1n << 58n),
      0n,
      COPIED | cluster(),
      (1n << 62n) | BigInt(random.below(bytes.length)),
      old ^ BigInt(random.below(65536)),
    ]);
    if (at + 8 <= bytes.length) bytes.writeBigUInt64BE(next & (2n ** 64n - 1n), at);
    return `${at.toString(16)}: ${old.toString(16)} to ${next.toString(16)}`;
  });
}

function seedsOf(count: number, again: readonly number[]): number[] {
  return [...again, ...Array.from({ length: count }, (_, i) => testSeed + i)];
}

/** What can be read of the disk, cluster by cluster. */
async function readable(path: string): Promise<Map<number, Uint8Array>> {
  const found = new Map<number, Uint8Array>();
  await using disk = await open(path, { format: 'qcow2', checkOnly: true });
  for (let at = 0; at < disk.length; at += 4096) {
    await disk.read(at, 4096).then(
      (bytes) => found.set(at, bytes),
      (error: unknown) => {
        if (!(error instanceof BlockError)) throw error;
      },
    );
  }
  return found;
}

/** All that a check says, or why it could not be done. */
async function told(path: string, options: CheckDiskOptions) {
  const lines: string[] = [];
  const finding = (line: string) => void lines.push(line);
  try {
    const how = { repair: 'all', zeroBeyondEnd: true, format: 'qcow2', finding, detail: finding, ...options } as const;
    return { lines, ...(await check(path, how)) };
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return { lines, error: error.message };
  }
}

describe.skipIf(peerMissing !== undefined)(`checks beside qemu-img's${peerMissing ? ` (${peerMissing})` : ''}`, () => {
  let pair: SideBySide;
  beforeAll(async () => {
    pair = await SideBySide.make();
    for (const [number, kind] of KINDS.entries()) {
      const name = `${number}.qcow2`;
      pair.prepareTheirs('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', kind, name, '2M');
      const writes = ['write -P 3 0 70k', 'write -P 4 512k 300k', 'write -z 520k 64k', 'write -c -P 5 1M 64k'];
      pair.prepareTheirs('qemu-io', '-f', 'qcow2', ...writes.flatMap((each) => ['-c', each]), name);
      if (number % 3 !== 0 || kind.includes('extended')) continue;
      pair.prepareTheirs('qemu-img', 'snapshot', '-c', 's', name);
      pair.prepareTheirs('qemu-io', '-f', 'qcow2', '-c', 'write -P 6 10k 9000', name);
    }
  });
  afterAll(() => pair?.remove());

  const repairs = longMode ? 1000 : 8;
  test(`${repairs} repairs`, async () => {
    for (const seed of seedsOf(repairs, REPAIRS_AGAIN)) {
      const random = new SeededRandom(seed);
      const number = random.below(KINDS.length);
      const bytes = readFileSync(join(pair.theirs, `${number}.qcow2`));
      const what = `seed ${seed}, ${KINDS[number]}, ${damage(bytes, random).join(', ')}`;
      const [path, other] = [join(pair.theirs, 'damaged.qcow2'), join(pair.theirs, 'passes.qcow2')];
      for (const each of [path, other]) writeFileSync(each, bytes);
      const before = await readable(path);
      const plan = await told(path, { plan: true });
      expect(bytes.equals(readFileSync(path)), what).toBe(true);
      const real = await told(path, {});
      expect(plan.lines, what).toEqual(real.lines);
      const passes = await told(other, { memory: random.between(5, 60) });
      expect({ ...passes, lines: [] }, what).toEqual({ ...real, lines: [] });
      expect(readFileSync(other).equals(readFileSync(path)), what).toBe(true);
      if (!('report' in real) || real.report === undefined) continue;
      const { corruptions, leaks, checkErrors } = real.report;
      expect(leaks, what).toBe(0);
      // Where something cannot be mended, such as data that do not decompress in a table's place, we see more than they do.
      if (corruptions + checkErrors === 0) {
        expect(pair.runTheirs(['check', '-q', '-f', 'qcow2', 'damaged.qcow2']).status, what).toBe(0);
      }
      // What was metadata too may have been changed as such; where counts cannot tell of two uses, nobody is named.
      if (real.lines.some((line) => / and the |: overflow cluster /.test(line))) continue;
      const after = await readable(path);
      for (const [at, content] of before) {
        const now = after.get(at);
        expect(now === undefined ? -2 : differsAt(now, content), `${what}: guest offset ${at}`).toBe(-1);
      }
    }
  }, 600_000);

  const cases = longMode ? 2000 : 35;
  test(`${cases} images`, async () => {
    for (const seed of seedsOf(cases, IMAGES_AGAIN)) {
      const random = new SeededRandom(seed);
      const number = random.below(KINDS.length);
      const bytes = readFileSync(join(pair.theirs, `${number}.qcow2`));
      const changes = damage(bytes, random);
      writeFileSync(join(pair.theirs, 'damaged.qcow2'), bytes);
      copyFileSync(join(pair.theirs, 'damaged.qcow2'), join(pair.ours, 'damaged.qcow2'));
      const args = ['check', '-f', 'qcow2', 'damaged.qcow2'];
      const ours = await pair.runOursHere(args);
      expect(ours, `seed ${seed}, ${KINDS[number]}, ${changes.join(', ')}`).toEqual(pair.runTheirs(args));
    }
  }, 600_000);
});
