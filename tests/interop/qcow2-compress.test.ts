/** Compressed qcow2 images both ways: ours are those of qemu-img to the byte, and each side goes on with what the other made. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Graph } from '../../src/core/graph.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { type ConvertOptions, convert } from '../../src/jobs/convert.ts';
import { Coding } from '../../src/node/coders.ts';
import { CodingPool } from '../../src/node/coding-pool.ts';
import { nodeHost } from '../../src/node/host.ts';
import { loadKoffi } from '../../src/node/koffi.ts';
import { differsAt } from '../../src/testing/compare-bytes.ts';
import { operationData } from '../../src/testing/disk-operations.ts';
import { peerMissing } from './cli-programs.ts';

const SIZE = 1024 * 1024 + 5120;
const CHECK = { repair: 'none', finding() {} } as const;

/** Words, noise and zeroes: clusters that compress well, a little, and not at all. */
function mixed(): Uint8Array {
  const bytes = new Uint8Array(SIZE);
  for (let i = 0; i < bytes.length; i++) bytes[i] = (i >> 6) * (i % 47);
  bytes.fill(0, 200_000, 420_000);
  bytes.set(operationData(5, 150_000), 500_000);
  for (let at = 700_000; at < SIZE; at += 4096) bytes.set(operationData(at, 2500), Math.min(at, SIZE - 2500));
  return bytes;
}

/** The encoders of QEMU's programs: images are the same to the byte. */
const pool = new CodingPool(loadKoffi());
const sameEncoders = process.platform === 'linux' && pool.can(Coding.deflate) && pool.can(Coding.encodeZstd);

describe.skipIf(peerMissing !== undefined)(`compression and QEMU${peerMissing ? ` (${peerMissing})` : ''}`, () => {
  let folder: string;
  const content = mixed();
  const path = (name: string) => join(folder, name);
  const qemu = (program: string, ...args: string[]) => execFileSync(program, args, { encoding: 'utf8', stdio: 'pipe' });
  const newGraph = () => new Graph({ host: nodeHost(), drivers: DRIVERS });

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'diskwright-compress-'));
    writeFileSync(path('raw'), content);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  async function compressTo(
    name: string,
    createOptions: Record<string, string>,
    options: Partial<ConvertOptions> = {},
  ) {
    const graph = newGraph();
    const source = await graph.open(path('raw'), { format: 'raw' });
    const target = { filename: path(name), format: 'qcow2', createOptions };
    await convert({ graph, sources: [source], target, compress: true, ...options });
    await source.close();
  }

  async function expectContent(name: string, expected: Uint8Array): Promise<void> {
    expect(qemu('qemu-img', 'check', path(name))).toContain('No errors were found on the image.');
    qemu('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', path(name), path('out'));
    expect(differsAt(readFileSync(path('out')), expected)).toBe(-1);
    const disk = await newGraph().open(path(name), { format: 'qcow2' });
    expect(differsAt(await disk.read(0, disk.length), expected)).toBe(-1);
    const report = await disk.check(CHECK);
    expect(report).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
    expect(report.compressedClusters).toBeGreaterThan(0);
    await disk.close();
  }

  for (const [type, sizes] of [
    ['zlib', ['4096', '65536', '2097152']],
    ['zstd', ['512', '65536']],
  ] as const) {
    for (const cluster of sizes) {
      test(`${type}, clusters of ${cluster}: the image that qemu-img makes`, async () => {
        const options = { compression_type: type, cluster_size: cluster };
        await compressTo('ours', options);
        await expectContent('ours', content);
        const given = `compression_type=${type},cluster_size=${cluster}`;
        qemu('qemu-img', 'convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', given, path('raw'), path('theirs'));
        const [ours, theirs] = [readFileSync(path('ours')), readFileSync(path('theirs'))];
        expect(Math.abs(ours.length - theirs.length) / theirs.length).toBeLessThan(sameEncoders ? 0.001 : 0.06);
        // Small clusters have many refcount blocks, which QEMU makes in another order.
        if (sameEncoders && cluster !== '512') expect(differsAt(ours, theirs)).toBe(-1);
      });
    }
  }

  test('in any order, with subclusters, small counts and lazy ones: sound, and the same content', async () => {
    await compressTo('w', { refcount_bits: '4', lazy_refcounts: 'on' }, { outOfOrder: true, parallel: 16 });
    await expectContent('w', content);
    await compressTo('x', { extended_l2: 'on', compression_type: 'zstd', refcount_bits: '1' }, { parallel: 1 });
    await expectContent('x', content);
    await compressTo('old', { compat: '0.10' });
    await expectContent('old', content);
  });

  test('each goes on writing what the other compressed', async () => {
    await compressTo('shared', { cluster_size: '4096' });
    const expected = content.slice();
    const commands: string[] = [];
    for (let i = 0; i < 20; i++) {
      const offset = (i * 104_729) % (SIZE - 4096);
      expected.fill(i + 1, offset, offset + 1000);
      commands.push('-c', `write -P ${i + 1} ${offset} 1000`);
    }
    // Into clusters that are there no more.
    commands.push('-c', 'discard 40k 40k', '-c', 'write -c -P 77 44k 8k');
    expected.fill(0, 40 << 10, 80 << 10).fill(77, 44 << 10, 52 << 10);
    qemu('qemu-io', '-f', 'qcow2', ...commands, path('shared'));
    await expectContent('shared', expected);
    const disk = await newGraph().open(path('shared'), { format: 'qcow2', writable: true });
    for (let i = 0; i < 20; i++) {
      const offset = ((i * 224_737) % (SIZE - 8192)) & ~4095;
      expected.fill(i + 100, offset, offset + 8192);
      await disk.write(offset, new Uint8Array(8192).fill(i + 100), { compressed: true });
      await disk.write(offset + 100, new Uint8Array(50).fill(i));
      expected.fill(i, offset + 100, offset + 150);
    }
    await disk.close();
    await expectContent('shared', expected);
  });
});
