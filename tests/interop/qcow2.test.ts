/** qcow2 images both ways: made by qemu-img and used by us, made by us and used by qemu-img and qemu-io. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createImage } from '../../src/core/create.ts';
import { Graph } from '../../src/core/graph.ts';
import type { OptionTree } from '../../src/core/options.ts';
import { DEFAULT_OPEN_POLICY } from '../../src/core/policy.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { nodeHost } from '../../src/node/host.ts';
import { differsAt } from '../../src/testing/compare-bytes.ts';
import { operationData } from '../../src/testing/disk-operations.ts';
import { SeededRandom } from '../../src/testing/index.ts';
import { testSeed } from '../set-up/seed.ts';
import { peerMissing } from './cli-programs.ts';

const SIZE = 3 * 1024 * 1024 + 512;

/** Every two values of two options come together somewhere. */
const PLANS: readonly (OptionTree & { readonly base?: never })[] = [
  { cluster_size: 65536, refcount_bits: 16 },
  { cluster_size: 512, refcount_bits: 1 },
  { cluster_size: 512, refcount_bits: 64, lazy_refcounts: 'on' },
  { cluster_size: 4096, refcount_bits: 8, compression_type: 'zstd' },
  { cluster_size: 1048576, refcount_bits: 32, lazy_refcounts: 'on' },
  { cluster_size: 2097152, refcount_bits: 2, compression_type: 'zstd' },
  { cluster_size: 65536, compat: '0.10' },
  { cluster_size: 512, compat: '0.10' },
  { cluster_size: 16384, extended_l2: 'on', refcount_bits: 4 },
  { cluster_size: 131072, extended_l2: 'on', lazy_refcounts: 'on', compression_type: 'zstd' },
  { cluster_size: 65536, data_file: 'DATA' },
  { cluster_size: 16384, data_file: 'DATA', data_file_raw: 'on', refcount_bits: 1 },
  { cluster_size: 65536, extended_l2: 'on', data_file: 'DATA' },
  { cluster_size: 4096, preallocation: 'metadata' },
  { cluster_size: 65536, preallocation: 'falloc', refcount_bits: 64 },
  { cluster_size: 65536, extended_l2: 'on', preallocation: 'metadata' },
  { cluster_size: 4096, backing_file: 'BASE', backing_fmt: 'raw' },
  { cluster_size: 512, backing_file: 'BASE', backing_fmt: 'raw', lazy_refcounts: 'on', refcount_bits: 8 },
  { cluster_size: 32768, backing_file: 'BASE', backing_fmt: 'raw', extended_l2: 'on' },
  { cluster_size: 65536, backing_file: 'BASE', backing_fmt: 'raw', compat: '0.10' },
];

describe.skipIf(peerMissing !== undefined)(`qcow2 and QEMU${peerMissing ? ` (${peerMissing})` : ''}`, () => {
  let folder: string;
  const base = operationData(4711, 2 * 1024 * 1024);
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'diskwright-qcow2-'));
    writeFileSync(join(folder, 'base.raw'), base);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const qemu = (program: string, ...args: string[]) => execFileSync(program, args, { encoding: 'utf8', stdio: 'pipe' });

  /** Names in options are those of files in the folder. */
  const named = (plan: OptionTree, number: string): OptionTree => {
    const names: Record<string, string> = { DATA: join(folder, `${number}.data`), BASE: join(folder, 'base.raw') };
    return Object.fromEntries(Object.entries(plan).map(([key, value]) => [key, names[String(value)] ?? value]));
  };
  const graph = () => new Graph({ host: nodeHost(), drivers: DRIVERS, openPolicy: DEFAULT_OPEN_POLICY });

  /** What the disk holds at first. */
  const initial = (plan: OptionTree): Uint8Array => {
    const content = new Uint8Array(SIZE);
    if (plan.backing_file !== undefined) content.set(base);
    return content;
  };

  /** Ranges and patterns, some of them zeroes. */
  const changes = (seed: number) => {
    const random = new SeededRandom(seed);
    return Array.from({ length: 14 }, (_, i) => {
      const offset = random.below(SIZE / 512 - 1) * 512;
      const length = Math.min(SIZE - offset, random.between(1, 300) * 512);
      return { offset, length, byte: i % 5 === 4 ? 0 : i + 1 };
    });
  };

  async function expectContent(path: string, expected: Uint8Array): Promise<void> {
    const raw = `${path}.raw`;
    qemu('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', path, raw);
    expect(differsAt(readFileSync(raw), expected)).toBe(-1);
    const disk = await graph().open(path, { format: 'qcow2' });
    expect(differsAt(await disk.read(0, disk.length), expected)).toBe(-1);
    const report = await disk.check({ repair: 'none', finding: () => {} });
    expect([report.corruptions, report.leaks, report.checkErrors]).toEqual([0, 0, 0]);
    await disk.close();
    // Exits with 2 for damage and 3 for leaks, and then throws.
    qemu('qemu-img', 'check', '-q', '-f', 'qcow2', path);
  }

  function applyTheirs(path: string, content: Uint8Array, seed: number): void {
    const commands = changes(seed).flatMap(({ offset, length, byte }) => {
      content.fill(byte, offset, offset + length);
      return ['-c', byte === 0 ? `write -z ${offset} ${length}` : `write -P ${byte} ${offset} ${length}`];
    });
    qemu('qemu-io', '-f', 'qcow2', ...commands, path);
  }

  async function applyOurs(path: string, content: Uint8Array, seed: number): Promise<void> {
    const disk = await graph().open(path, { format: 'qcow2', writable: true });
    for (const { offset, length, byte } of changes(seed)) {
      content.fill(byte, offset, offset + length);
      if (byte === 0) await disk.writeZeroes(offset, length, { unmap: offset % 1024 === 0 });
      else await disk.write(offset, new Uint8Array(length).fill(byte));
    }
    await disk.close();
  }

  for (const [number, plan] of PLANS.entries()) {
    const title = JSON.stringify(plan);
    test(`made by qemu-img, written by both in turn: ${title}`, async () => {
      const path = join(folder, `theirs-${number}.qcow2`);
      const options = Object.entries(named(plan, `t${number}`)).map(([key, value]) => `${key}=${value}`);
      qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', options.join(','), path, String(SIZE));
      const content = initial(plan);
      applyTheirs(path, content, testSeed + number);
      await expectContent(path, content);
      await applyOurs(path, content, testSeed + number + 100);
      await expectContent(path, content);
      applyTheirs(path, content, testSeed + number + 200);
      await expectContent(path, content);
    });

    test(`made by us, the very bytes that qemu-img makes, and written by both: ${title}`, async () => {
      const path = join(folder, `ours-${number}.qcow2`);
      const options = named(plan, 'same');
      await createImage(graph(), { filename: path, format: 'qcow2', size: SIZE, options });
      const same = join(folder, `same-${number}.qcow2`);
      const given = Object.entries(options).map(([key, value]) => `${key}=${value}`);
      const ours = readFileSync(path);
      qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', given.join(','), same, String(SIZE));
      // Preallocated data and tables are in another order.
      if (plan.preallocation === undefined) {
        expect([ours.length, differsAt(ours, readFileSync(same))]).toEqual([readFileSync(same).length, -1]);
      }
      const content = initial(plan);
      await applyOurs(path, content, testSeed + number + 300);
      await expectContent(path, content);
      applyTheirs(path, content, testSeed + number + 400);
      await applyOurs(path, content, testSeed + number + 500);
      await expectContent(path, content);
    });
  }

  test.each(['zlib', 'zstd'])('Q-MAP-5, Q-MAP-6: clusters that qemu-img compressed with %s', async (type) => {
    const raw = join(folder, `${type}.plain`);
    const content = new Uint8Array(2 * 1024 * 1024);
    for (let i = 0; i < content.length; i++) content[i] = (i >> 7) * (i % 61);
    content.fill(0, 300_000, 700_000);
    content.set(operationData(5, 131072), 1_048_576);
    writeFileSync(raw, content);
    for (const clusterSize of [512, 4096, 65536, 2097152]) {
      const path = join(folder, `${type}-${clusterSize}.qcow2`);
      const options = `compression_type=${type},cluster_size=${clusterSize}`;
      qemu('qemu-img', 'convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', options, raw, path);
      const expected = content.slice();
      await expectContent(path, expected);
      // Writing over compressed clusters allocates them anew, and frees what they shared.
      const disk = await graph().open(path, { format: 'qcow2', writable: true });
      for (const offset of [0, 100_000, 1_200_000]) {
        expected.fill(9, offset, offset + 700);
        await disk.write(offset, new Uint8Array(700).fill(9));
      }
      const dropped = Math.min(content.length, 2 * clusterSize);
      await disk.discard(0, dropped);
      expected.fill(0, 0, dropped);
      await disk.close();
      await expectContent(path, expected);
    }
  });
});
