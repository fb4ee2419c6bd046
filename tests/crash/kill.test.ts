/** kill -9 in the middle of a conversion and of a compaction, at change after change, in real processes on real files. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createImage } from '../../src/core/create.ts';
import { nodeHost } from '../../src/node/host.ts';
import { differsAt } from '../../src/testing/compare-bytes.ts';
import { operationData } from '../../src/testing/disk-operations.ts';
import { peersMissing, qemuImg } from '../interop/peer.ts';
import { longMode } from '../set-up/seed.ts';
import { graphOn } from '../support/drivers.ts';
import { root } from '../tidy/source-files.ts';
import type { KillTask } from './kill-child.ts';

const MIB = 1 << 20;
const SIZE = 12 * MIB;
const graph = graphOn(nodeHost());
let folder = '';

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'diskwright-kill-'));
  await build({
    absWorkingDir: root,
    entryPoints: ['tests/crash/kill-child.ts'],
    outfile: join(folder, 'child.cjs'),
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node20.19',
    packages: 'external',
    // The native library is found from where the tests are.
    define: { 'import.meta.url': JSON.stringify(import.meta.url) },
  });
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Runs the child; whether it was killed before it had finished. */
function runChild(task: KillTask): boolean {
  const child = join(folder, 'child.cjs');
  const run = spawnSync(process.execPath, [child, JSON.stringify(task)], { encoding: 'utf8', cwd: root });
  if (run.signal === 'SIGKILL') return true;
  expect([run.status, run.stderr]).toEqual([0, '']);
  return false;
}

/** Early changes one by one, later ones in growing steps. */
function* killPoints(): Generator<number> {
  for (let at = 1; ; at += longMode ? 1 : Math.ceil(at / 4)) yield at;
}

function content(): Uint8Array {
  const bytes = new Uint8Array(SIZE);
  for (const [block, seed] of [
    [0, 1],
    [3, 2],
    [4, 3],
    [7, 4],
    [11, 5],
  ] as const) {
    bytes.set(operationData(seed, MIB), block * MIB);
  }
  return bytes;
}

async function contentOf(path: string, format: string): Promise<Uint8Array> {
  await using disk = await graph.open(path, { format });
  return await disk.read(0, disk.length);
}

describe('kill -9', () => {
  test.each(['raw', 'vdi'])('in the middle of a conversion to %s', async (format) => {
    const source = join(folder, 'source.raw');
    const target = join(folder, `target.${format}`);
    writeFileSync(source, content());
    for (const previous of [undefined, 'what was there before']) {
      let killed = 0;
      for (const dieAt of killPoints()) {
        rmSync(target, { force: true });
        if (previous !== undefined) writeFileSync(target, previous);
        const unfinished = runChild({ task: 'convert', source, target, format, dieAt });
        for (const name of readdirSync(folder)) if (name.includes('.partial-')) rmSync(join(folder, name));
        if (!unfinished) break;
        killed++;
        expect(existsSync(target)).toBe(previous !== undefined);
        if (previous !== undefined) expect(readFileSync(target, 'utf8')).toBe(previous);
      }
      expect(killed).toBeGreaterThan(3);
      expect(differsAt(await contentOf(target, format), content())).toBe(-1);
    }
  });

  test('in the middle of a compaction: no corruption, and no byte lost', async () => {
    const image = join(folder, 'image.vdi');
    const target = join(folder, 'compacted.vdi');
    await createImage(graph, { filename: image, format: 'vdi', size: SIZE });
    const expected = content();
    {
      await using disk = await graph.open(image, { format: 'vdi', writable: true });
      await disk.write(0, expected);
      // Blocks of zeroes that are stored, holes given up, and data behind both.
      for (const block of [1, 2, 5]) await disk.write(block * MIB, new Uint8Array(MIB).fill(1));
      for (const block of [1, 2]) await disk.writeZeroes(block * MIB, MIB);
      await disk.discard(5 * MIB, MIB);
    }
    let killed = 0;
    for (const dieAt of killPoints()) {
      copyFileSync(image, target);
      const unfinished = runChild({ task: 'compact', source: '', target, format: 'vdi', dieAt });
      if (unfinished) killed++;
      await using disk = await graph.open(target, { format: 'vdi', writable: true });
      expect(await disk.check({ repair: 'none', finding: () => {} })).toMatchObject({ corruptions: 0, checkErrors: 0 });
      expect(differsAt(await disk.read(0, SIZE), expected)).toBe(-1);
      await disk.compact();
      await disk.close();
      if (peersMissing === undefined) expect(qemuImg('check', '-f', 'vdi', target)).toMatchObject({ status: 0 });
      expect(differsAt(await contentOf(target, 'vdi'), expected)).toBe(-1);
      if (!unfinished) break;
    }
    expect(killed).toBeGreaterThan(2);
  });
});
