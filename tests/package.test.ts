/** The package as others get it: packed, unpacked elsewhere, its commands run and its entries imported. */
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { root } from './tidy/source-files.ts';

const folder = mkdtempSync(join(tmpdir(), 'diskwright-package-'));
const installed = join(folder, 'node_modules/diskwright');
afterAll(() => rmSync(folder, { recursive: true, force: true }));

beforeAll(() => {
  execFileSync('npm', ['pack', '--silent', '--pack-destination', folder], {
    cwd: root,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const tarball = readdirSync(folder).find((name) => name.endsWith('.tgz')) ?? '';
  execFileSync('tar', ['-xzf', tarball], { cwd: folder });
  mkdirSync(join(folder, 'node_modules'));
  cpSync(join(folder, 'package'), installed, { recursive: true });
  for (const dependency of ['koffi', '@koromix', '@types', 'undici-types']) {
    symlinkSync(join(root, 'node_modules', dependency), join(folder, 'node_modules', dependency));
  }
});

function node(...args: string[]) {
  return spawnSync(process.execPath, args, { cwd: folder, encoding: 'utf8' });
}

describe('the packed package', () => {
  test('runs its commands', () => {
    const create = node(join(installed, 'bin/diskwright'), 'create', '-f', 'vdi', 'a.vdi', '16M');
    expect(create.stderr).toBe('');
    expect(create.status).toBe(0);
    const info = node(join(installed, 'bin/diskwright-img'), 'info', 'a.vdi');
    expect(info.stdout).toContain('virtual size: 16 MiB (16777216 bytes)');
  });

  test('has every launcher as a command', () => {
    const { bin } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8'));
    const launchers = readdirSync(join(installed, 'bin')).filter((name) => !/\.js(on)?$/.test(name));
    expect(launchers).toContain('diskwright');
    expect(bin).toEqual(Object.fromEntries(launchers.map((name) => [name, `bin/${name}`])));
  });

  test('is called by the name of the link that leads to it', () => {
    symlinkSync(join(installed, 'bin/diskwright-img'), join(folder, 'qemu-img'));
    const run = spawnSync(join(folder, 'qemu-img'), ['info', 'missing'], { cwd: folder, encoding: 'utf8' });
    expect(run.stderr).toBe(
      "qemu-img: Could not open 'missing': Could not open 'missing': No such file or directory\n",
    );
    expect(run.status).toBe(1);
  });

  test.each(['diskwright', 'diskwright/node', 'diskwright/testing'])('imports %s', (entry) => {
    const run = node('--input-type=module', '-e', `process.stdout.write(Object.keys(await import('${entry}')).join())`);
    expect(run.stderr).toBe('');
    expect(run.stdout).toMatch(/\w/);
  });

  test.each([
    ['diskwright', ''],
    ['diskwright/testing', ''],
    ['diskwright/node', 'node'],
  ])('has types for %s, with no other types but "%s"', (entry, types) => {
    const program = `import * as entry from '${entry}';
export const all: object = entry;
export async function first(graph: import('diskwright').Graph): Promise<Uint8Array> {
  await using disk = await graph.open('disk.vdi');
  return await disk.read(0, 512);
}
`;
    writeFileSync(join(folder, 'use.mts'), program);
    const tsc = join(root, 'node_modules/typescript/bin/tsc');
    const run = node(
      tsc,
      '--strict',
      '--noEmit',
      '--target',
      'es2023',
      '--module',
      'nodenext',
      '--types',
      types,
      'use.mts',
    );
    expect(run.stdout).toBe('');
    expect(run.status).toBe(0);
  });

  test('ships no tests, no sources of tests and nothing else by accident', () => {
    const files = readdirSync(installed, { recursive: true, encoding: 'utf8' });
    expect(files.filter((name) => /\.test\.|\.stamp$|\.cache$|^src\b|^tests\b/.test(name))).toEqual([]);
  });
});

test('a clone that npm prepares for a project gets commands, library and declarations', { timeout: 120_000 }, () => {
  const clone = join(folder, 'clone');
  for (const name of [
    'bin',
    'src',
    'scripts',
    'package.json',
    'package-lock.json',
    'tsconfig.json',
    'tsconfig.build.json',
  ]) {
    cpSync(join(root, name), join(clone, name), { recursive: true });
  }
  symlinkSync(join(root, 'node_modules'), join(clone, 'node_modules'));
  const { scripts } = JSON.parse(readFileSync(join(clone, 'package.json'), 'utf8'));
  const run = spawnSync(scripts.prepare, { cwd: clone, encoding: 'utf8', shell: true });
  expect([run.status, run.stderr]).toEqual([0, '']);
  expect(readdirSync(join(clone, 'dist'))).toEqual(expect.arrayContaining(['lib', 'types']));
  expect(node(join(clone, 'bin/diskwright'), '--version').stdout).toMatch(/^diskwright \d/);
});

test('a command that was not built says what to run', () => {
  const bare = join(folder, 'bare');
  cpSync(join(root, 'bin'), join(bare, 'bin'), { recursive: true });
  const run = node(join(bare, 'bin/diskwright'), 'info', 'x');
  expect(run.stderr).toMatch(/^diskwright: not built yet: run `npm start`.*\n$/);
  expect(run.status).toBe(1);
});
