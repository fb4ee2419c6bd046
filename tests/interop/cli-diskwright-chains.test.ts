/** Chains of VDI images in the program `diskwright`: commit, rebase, create and convert over others, pictures. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Outcome, SideBySide } from './cli-programs.ts';

const MIB = 1 << 20;

let pair: SideBySide;

beforeAll(async () => {
  pair = await SideBySide.make();
});
afterAll(() => pair.remove());

function run(...args: string[]): Promise<Outcome> {
  return pair.runDiskwrightHere(args);
}

/** The lines that a run prints; it must succeed and be silent otherwise. */
async function lines(...args: string[]): Promise<string[]> {
  const { status, stdout, stderr } = await run(...args);
  expect([args.join(' '), status, stderr]).toEqual([args.join(' '), 0, '']);
  return stdout.split('\n').slice(0, -1);
}

function write(name: string, bytes: Uint8Array): void {
  writeFileSync(join(pair.ours, name), bytes);
}

/** `base.vdi`, `mid.vdi` over it, `top.vdi` over that, which holds what `x.raw` does. */
async function makeChain(): Promise<void> {
  write('x.raw', Buffer.concat([Buffer.alloc(2 * MIB, 7), Buffer.alloc(2 * MIB)]));
  await lines('create', '-q', 'base.vdi', '4M');
  await lines('create', '-q', '-b', 'base.vdi', '-F', 'vdi', 'mid.vdi');
  await lines('create', '-q', '-b', 'mid.vdi', '-F', 'vdi', 'top.vdi');
  await lines('convert', '-n', '-O', 'vdi', 'x.raw', 'top.vdi');
}

describe('chains of VDI images', () => {
  test('are made, told and mapped', async () => {
    await makeChain();
    expect(await lines('create', '-b', 'base.vdi', '-F', 'vdi', 'other.vdi')).toEqual([
      "Formatting 'other.vdi', fmt=vdi size=4194304 static=off parent=base.vdi",
    ]);
    const told = await lines('info', '--backing-chain', 'top.vdi');
    expect(told.filter((line) => /^(image|backing)/.test(line))).toEqual([
      'image: top.vdi',
      'backing file: mid.vdi',
      'backing file format: vdi',
      'image: mid.vdi',
      'backing file: base.vdi',
      'backing file format: vdi',
      'image: base.vdi',
    ]);
    expect(JSON.parse((await lines('info', '--backing-chain', '--output=json', 'top.vdi')).join('\n')).length).toBe(3);
    expect((await lines('map', '--output=json', 'top.vdi')).join('')).toContain(
      '"depth": 0, "present": true, "zero": false',
    );
  });

  test('are committed, and fit each other afterwards', async () => {
    await makeChain();
    expect(await lines('commit', 'top.vdi')).toEqual(['Image committed.']);
    expect(await lines('compare', 'x.raw', 'mid.vdi')).toEqual(['Images are identical.']);
    expect((await lines('map', '--output=json', 'top.vdi'))[0]).toContain('"depth": 1');
    expect(await lines('commit', '-q', '-d', 'mid.vdi')).toEqual([]);
    expect(await lines('compare', 'x.raw', 'base.vdi')).toEqual(['Images are identical.']);
    expect(await lines('compare', 'x.raw', 'top.vdi')).toEqual(['Images are identical.']);
  });

  test('are committed down to an image by name', async () => {
    await makeChain();
    expect(await lines('commit', '-b', './base.vdi', 'top.vdi')).toEqual(['Image committed.']);
    expect(await lines('compare', 'x.raw', 'base.vdi')).toEqual(['Images are identical.']);
    const { status, stderr } = await run('commit', '-b', 'nope.vdi', 'top.vdi');
    expect([status, stderr.split('\n').at(-2)]).toEqual([
      1,
      "diskwright: Did not find 'nope.vdi' in the backing chain of 'top.vdi'",
    ]);
  });

  test('are rebased, flattened, and copied over an image below', async () => {
    await makeChain();
    await lines('rebase', '-b', 'base.vdi', '-F', 'vdi', 'top.vdi');
    expect(await lines('info', 'top.vdi')).toContain('backing file: base.vdi');
    await lines('convert', '-B', 'base.vdi', '-F', 'vdi', 'top.vdi', 'copy.vdi');
    expect(await lines('info', 'copy.vdi')).toContain('backing file: base.vdi');
    await lines('convert', '--flatten', 'top.vdi', 'alone.vdi');
    expect((await lines('info', 'alone.vdi')).some((line) => line.startsWith('backing'))).toBe(false);
    expect(await run('convert', '--flatten', '-B', 'base.vdi', '-F', 'vdi', 'top.vdi', 'no.vdi')).toEqual({
      status: 1,
      stdout: '',
      stderr: 'diskwright: --flatten and -B exclude each other\n',
    });
    await lines('rebase', '-b', '', 'top.vdi');
    expect((await lines('info', 'top.vdi')).some((line) => line.startsWith('backing'))).toBe(false);
    for (const name of ['top.vdi', 'copy.vdi', 'alone.vdi']) {
      expect(await lines('compare', 'x.raw', name)).toEqual(['Images are identical.']);
    }
    await lines('rebase', '-u', '-b', 'mid.vdi', '-F', 'vdi', 'copy.vdi');
    expect(await lines('info', 'copy.vdi')).toContain('backing file: mid.vdi');
  });

  test('a commit that cannot be written says what failed, and keeps the image (T-COMMIT-1)', async () => {
    await makeChain();
    await lines('commit', '-q', 'top.vdi');
    const failing = [
      'driver=vdi,file.filename=mid.vdi,backing.driver=vdi,backing.file.driver=blkdebug',
      'backing.file.image.driver=file,backing.file.image.filename=base.vdi',
      'backing.file.inject-error.0.event=flush_to_disk,backing.file.inject-error.0.errno=28',
    ];
    expect(await run('commit', '--image-opts', failing.join(','))).toMatchObject({
      status: 1,
      stdout: '',
      stderr: expect.stringMatching(
        /^diskwright: Block job failed: error while writing back '.*': No space left on device\n$/,
      ),
    });
    expect((await lines('map', '--output=json', 'mid.vdi'))[0]).toContain('"depth": 0');
  });

  test('the other dialect refuses them as qemu-img does (V-50)', async () => {
    await makeChain();
    expect(pair.runOurs(['info', 'top.vdi'])).toEqual({
      status: 1,
      stdout: '',
      stderr: "qemu-img: Could not open 'top.vdi': unsupported VDI image (non-NULL link UUID)\n",
    });
  });
});

describe('graph', () => {
  test('draws a tree, a picture, a file for Graphviz, and JSON', async () => {
    await makeChain();
    const tree = (await lines('graph', 'top.vdi')).map((line) => line.replace(/#block\d+/, '#block'));
    expect(tree.slice(0, 2)).toEqual(['an unnamed block device', '`-- root: vdi top.vdi [#block]']);
    expect(tree.filter((line) => line.includes('backing: vdi')).length).toBe(2);
    expect((await lines('graph', '--output=svg', 'top.vdi'))[0]).toMatch(
      /^<svg xmlns="http:\/\/www.w3.org\/2000\/svg" /,
    );
    expect((await lines('graph', '--output=dot', 'top.vdi'))[0]).toBe('digraph blocks {');
    const { boxes, links } = JSON.parse((await lines('graph', '--output=json', 'top.vdi')).join('\n'));
    expect([boxes.length, links.length]).toEqual([7, 6]);
  });

  test('shows what a writer needs, and writes nothing', async () => {
    await makeChain();
    const before = readFileSync(join(pair.ours, 'top.vdi'));
    expect((await lines('graph', '-w', 'top.vdi')).slice(2, 5)).toEqual([
      expect.stringMatching(/4 MiB, .* in use, writable$/),
      '    |   requests best 1 MiB',
      '    |   needs cw--, shares c-u-',
    ]);
    expect(readFileSync(join(pair.ours, 'top.vdi')).equals(before)).toBe(true);
  });

  test('refuses other forms', async () => {
    expect(await run('graph', '--output=png', 'top.vdi')).toMatchObject({
      status: 1,
      stderr: 'diskwright: --output must be used with tree, json, dot or svg as argument.\n',
    });
  });
});
