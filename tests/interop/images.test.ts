/** Images both ways: made and changed by us, judged by qemu-img; made and changed by qemu-io, read by us. */
import { copyFileSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { createImage } from '../../src/core/create.ts';
import type { Disk } from '../../src/core/disk.ts';
import type { OptionTree } from '../../src/core/options.ts';
import { nodeHost } from '../../src/node/host.ts';
import { differsAt } from '../../src/testing/compare-bytes.ts';
import { ModelDisk, SeededRandom } from '../../src/testing/index.ts';
import { longMode, testSeed } from '../set-up/seed.ts';
import { graphOn } from '../support/sim-disks.ts';
import { inFolder, peersMissing, qemuImg, qemuImgOk, qemuIo, skipNote } from './peer.ts';

const MIB = 1 << 20;
const graph = graphOn(nodeHost());

/** What both of us can do to a disk. */
type Step =
  | { readonly kind: 'write'; readonly offset: number; readonly length: number; readonly value: number }
  | { readonly kind: 'zero' | 'unmap' | 'discard'; readonly offset: number; readonly length: number };

function steps(random: SeededRandom, count: number, length: number): Step[] {
  return Array.from({ length: count }, () => {
    const unit = random.pick([MIB, 65536, 512, 1]);
    const offset = Math.min(Math.floor(random.below(length) / unit) * unit, length - 1);
    const size = Math.min(random.pick([MIB, 2 * MIB, 65536, random.between(1, 300_000)]), length - offset);
    const kind = random.pick(['write', 'write', 'write', 'zero', 'unmap', 'discard'] as const);
    return kind === 'write'
      ? { kind, offset, length: size, value: random.between(1, 255) }
      : { kind, offset, length: size };
  });
}

async function runOurs(disk: Disk, step: Step): Promise<void> {
  const { kind, offset, length } = step;
  if (kind === 'write') await disk.write(offset, new Uint8Array(length).fill(step.value));
  else if (kind === 'discard') await disk.discard(offset, length);
  else await disk.writeZeroes(offset, length, { unmap: kind === 'unmap' });
}

function ioCommand(step: Step): string {
  const range = `${step.offset} ${step.length}`;
  if (step.kind === 'write') return `write -P ${step.value} ${range}`;
  if (step.kind === 'discard') return `discard ${range}`;
  return `write -z ${step.kind === 'unmap' ? '-u ' : ''}${range}`;
}

/** A discard leaves what was there or zeroes: the model takes over what is found, if it is one of them. */
async function adopt(model: ModelDisk, disk: Disk, step: Step): Promise<void> {
  const { kind, offset, length } = step;
  if (kind === 'write') model.write(offset, new Uint8Array(length).fill(step.value));
  else if (kind !== 'discard') model.writeZeroes(offset, length);
  else {
    const found = await disk.read(offset, length);
    const old = model.read(offset, length);
    expect(found.every((byte, i) => byte === 0 || byte === old[i])).toBe(true);
    model.write(offset, found);
  }
}

async function ours<T>(path: string, format: string, writable: boolean, use: (disk: Disk) => Promise<T>): Promise<T> {
  await using disk = await graph.open(path, { format, writable });
  return await use(disk);
}

/**
 * qemu-img finds nothing wrong with it, and the content is the model's. A place that a discard gave up is ours to use again
 * (V-65); it counts as allocated, and qemu-img, which knows no such places, reports that one number and nothing else.
 */
async function expectJudged(path: string, format: string, model: ModelDisk, folder: string): Promise<void> {
  if (format === 'vdi') {
    const { leaks } = await ours(path, format, false, (disk) => disk.check({ repair: 'none', finding: () => {} }));
    const check = qemuImg('check', '-f', 'vdi', path);
    if (leaks === 0) {
      expect(check.stdout).toContain('No errors were found on the image.');
      expect([check.stderr, check.status]).toEqual(['', 0]);
    } else expect(check.stderr).toMatch(/^ERROR: allocated blocks mismatch, is \d+, should be \d+\n$/);
  }
  const expected = join(folder, 'model.raw');
  writeFileSync(expected, model.bytes);
  const compare = qemuImg('compare', '-f', format, '-F', 'raw', path, expected);
  expect([compare.status, compare.stdout]).toEqual([0, 'Images are identical.\n']);
}

async function expectReadAlike(path: string, format: string, model: ModelDisk): Promise<void> {
  await ours(path, format, false, async (disk) => {
    expect(disk.length).toBe(model.length);
    expect(differsAt(await disk.read(0, disk.length), model.bytes)).toBe(-1);
    if (format === 'vdi') {
      const report = await disk.check({ repair: 'none', finding: () => {} });
      expect(report).toMatchObject({ corruptions: 0, checkErrors: 0 });
    }
  });
}

const VARIANTS: readonly { readonly name: string; readonly format: string; readonly options: OptionTree }[] = [
  { name: 'raw', format: 'raw', options: {} },
  { name: 'vdi', format: 'vdi', options: {} },
  { name: 'vdi, static', format: 'vdi', options: { preallocation: 'metadata' } },
  { name: 'vdi, full', format: 'vdi', options: { preallocation: 'full' } },
];

const sequences = longMode ? 60 : 2;

describe.skipIf(peersMissing !== undefined)(`images made by us${skipNote}`, () => {
  test.each(VARIANTS)('$name: written, zeroed and discarded at random', async ({ format, options }) => {
    for (let seed = testSeed; seed < testSeed + sequences; seed++) {
      await inFolder(async (folder) => {
        const path = join(folder, 'a');
        const size = 6 * MIB + 512 * (seed % 3);
        await createImage(graph, { filename: path, format, size, options });
        await expectJudged(path, format, new ModelDisk(size), folder);
        const model = new ModelDisk(size);
        await ours(path, format, true, async (disk) => {
          for (const step of steps(new SeededRandom(seed), 25, size)) {
            await runOurs(disk, step);
            await adopt(model, disk, step);
          }
        });
        await expectJudged(path, format, model, folder);
        if (options.preallocation !== undefined || format !== 'vdi') return;
        await ours(path, format, true, (disk) => disk.compact());
        qemuImgOk('check', '-f', 'vdi', path);
        await expectJudged(path, format, model, folder);
      });
    }
  });

  test.each(VARIANTS)('$name: grown, shrunk, compacted', async ({ name, format, options }) => {
    await inFolder(async (folder) => {
      const path = join(folder, 'a');
      await createImage(graph, { filename: path, format, size: 4 * MIB, options });
      const model = new ModelDisk(4 * MIB);
      const change = async (work: (disk: Disk) => Promise<void>) => {
        await ours(path, format, true, work);
        await expectJudged(path, format, model, folder);
      };
      await change(async (disk) => {
        for (const step of steps(new SeededRandom(testSeed + 1), 12, model.length)) {
          await runOurs(disk, step);
          await adopt(model, disk, step);
        }
      });
      await change(async (disk) => {
        await disk.resize(20 * MIB);
        await disk.write(19 * MIB, new Uint8Array(1000).fill(9));
        model.truncate(20 * MIB);
        model.write(19 * MIB, new Uint8Array(1000).fill(9));
      });
      await change(async (disk) => {
        await disk.resize(3 * MIB + 512, { shrink: true });
        model.truncate(3 * MIB + 512);
      });
      await change(async (disk) => {
        await disk.resize(5 * MIB);
        model.truncate(5 * MIB);
        await disk.writeZeroes(0, MIB, { unmap: true });
        model.writeZeroes(0, MIB);
      });
      if (format === 'vdi' && name === 'vdi') {
        await change(async (disk) => await disk.compact());
      }
      expect(statSync(path).size).toBeLessThan(25 * MIB);
    });
  });
});

describe.skipIf(peersMissing !== undefined)(`images made by qemu-img${skipNote}`, () => {
  test.each([
    ['raw', []],
    ['vdi', []],
    ['vdi', ['-o', 'static=on']],
  ] as const)('%s %j: read by us, changed by both in turn', async (format, options) => {
    for (let seed = testSeed; seed < testSeed + sequences; seed++) {
      await inFolder(async (folder) => {
        const path = join(folder, 'a');
        const size = 5 * MIB + 512 * (seed % 5);
        qemuImgOk('create', '-q', '-f', format, ...options, path, String(size));
        const model = new ModelDisk(size);
        await expectReadAlike(path, format, model);
        const random = new SeededRandom(seed + 1);
        for (let turn = 0; turn < 4; turn++) {
          const some = steps(random, 6, size);
          if (turn % 2 === 0) {
            for (const step of some) {
              qemuIo(format, path, [ioCommand(step)]);
              await ours(path, format, false, (disk) => adopt(model, disk, step));
            }
          } else {
            await ours(path, format, true, async (disk) => {
              for (const step of some) {
                await runOurs(disk, step);
                await adopt(model, disk, step);
              }
              // qemu-io allocates behind all places, the given up ones too: past as many as there are blocks it must not come.
              if (format === 'vdi' && options.length === 0) await disk.compact();
            });
          }
          await expectJudged(path, format, model, folder);
          await expectReadAlike(path, format, model);
        }
      });
    }
  });

  test('the same steps by each on its own image end in equal disks', async () => {
    for (let seed = testSeed; seed < testSeed + sequences; seed++) {
      await inFolder(async (folder) => {
        const [a, b] = [join(folder, 'a.vdi'), join(folder, 'b.vdi')];
        const size = 8 * MIB;
        qemuImgOk('create', '-q', '-f', 'vdi', a, String(size));
        copyFileSync(a, b);
        // What a discard leaves is each one's own affair.
        const some = steps(new SeededRandom(seed + 2), 30, size).filter(({ kind }) => kind !== 'discard');
        qemuIo('vdi', b, some.map(ioCommand));
        await ours(a, 'vdi', true, async (disk) => {
          for (const step of some) await runOurs(disk, step);
        });
        expect(qemuImgOk('compare', '-f', 'vdi', '-F', 'vdi', a, b)).toBe('Images are identical.\n');
        const [ourDisk, theirDisk] = await Promise.all(
          [a, b].map((path) => ours(path, 'vdi', false, (disk) => disk.read(0, size))),
        );
        expect(differsAt(ourDisk ?? new Uint8Array(0), theirDisk ?? new Uint8Array(1))).toBe(-1);
        await ours(a, 'vdi', true, (disk) => disk.compact());
        qemuImgOk('check', '-f', 'vdi', a);
      });
    }
  });

  test('looking at an image does not change a byte of it', async () => {
    await inFolder(async (folder) => {
      const path = join(folder, 'a.vdi');
      qemuImgOk('create', '-q', '-f', 'vdi', path, '4M');
      qemuIo('vdi', path, ['write -P 3 1M 100k']);
      const before = readFileSync(path);
      const model = new ModelDisk(4 * MIB);
      model.write(MIB, new Uint8Array(100 * 1024).fill(3));
      await expectReadAlike(path, 'vdi', model);
      expect(readFileSync(path).equals(before)).toBe(true);
    });
  });
});
