/** The commands `replay` and `crashlab` as programs. */
import { readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { mark } from '../../src/filters/log/node.ts';
import { open } from '../../src/node/index.ts';
import { type Outcome, SideBySide } from '../interop/cli-programs.ts';

const MIB = 1 << 20;
let pair: SideBySide;
const path = (name: string) => join(pair.ours, name);

/** Fails when the first sector says that there are data at 8192 and there are none. */
const CHECK = `
const { readFileSync, writeFileSync } = require('node:fs');
const bytes = readFileSync(process.argv[2]);
writeFileSync(process.argv[2], 'spoilt');
if (bytes[0] === 4 && bytes[8192] !== 3) {
  process.stdout.write('no data; marks: ' + process.env.DISKWRIGHT_MARKS.split('\\n').join() + '\\n');
  process.exit(3);
}`;

beforeAll(async () => {
  pair = await SideBySide.make();
  for (const name of ['base.raw', 'disk.raw', 'log']) writeFileSync(path(name), '');
  for (const name of ['base.raw', 'disk.raw']) truncateSync(path(name), MIB);
  writeFileSync(path('check.cjs'), CHECK);
  const below = (name: string) => ({ driver: 'file', filename: path(name) });
  await using disk = await open({ driver: 'log', file: below('disk.raw'), log: below('log') }, { writable: true });
  await disk.write(65536, new Uint8Array(1024).fill(2));
  await disk.flush();
  await mark(disk, 'first');
  await disk.write(8192, new Uint8Array(8192).fill(3));
  await disk.write(0, new Uint8Array(512).fill(4));
  await disk.discard(65536, 4096);
  await disk.flush();
});
afterAll(() => pair?.remove());

function run(...args: string[]): Outcome {
  return pair.runDiskwright(args);
}

const CHECKED = ['--', process.execPath, 'check.cjs', '{}'];

describe('replay', () => {
  test('lists a log', () => {
    expect(run('replay', '--list', 'log').stdout.split('\n').slice(0, 6)).toEqual([
      '0       write   65536+1024',
      '1       flush',
      '2       mark    first',
      '3       write   8192+8192',
      '4       write   0+512',
      '5       discard 65536+4096',
    ]);
    const entries = JSON.parse(run('replay', '--list', '--json', '--from', '2', '--until', '4', 'log').stdout);
    expect(entries).toEqual([
      { entry: 2, kind: 'mark', name: 'first' },
      { entry: 3, kind: 'write', offset: 8192, length: 8192, fua: false, flush: false },
    ]);
    expect(JSON.parse(run('replay', '--list', '--output=json', '--until', '0', 'log').stdout)).toEqual([]);
  });

  test('makes the disk what it was, up to a mark or an entry', () => {
    writeFileSync(path('copy.raw'), readFileSync(path('base.raw')));
    const first = run('replay', '-f', 'raw', '--mark', 'first', 'log', 'copy.raw');
    expect([first.status, first.stdout]).toEqual([0, '2 entries replayed; the next one is 2.\n']);
    expect(readFileSync(path('copy.raw'))[65536]).toBe(2);
    expect(readFileSync(path('copy.raw'))[0]).toBe(0);
    const rest = run('replay', '-f', 'raw', '--json', '--from', '2', 'log', 'copy.raw');
    expect(JSON.parse(rest.stdout).entries).toBeGreaterThan(3);
    expect(readFileSync(path('copy.raw')).equals(readFileSync(path('disk.raw')))).toBe(true);
  });

  test('tells what is wrong', () => {
    const failures: [string[], string][] = [
      [['--mark', 'no', 'log', 'copy.raw'], "diskwright: The log has no mark 'no'\n"],
      [['--until', 'x', 'log', 'copy.raw'], 'diskwright: Invalid entry number for --until: x\n'],
      [['base.raw', 'copy.raw'], 'diskwright: Invalid log superblock magic\n'],
      [
        ['log'],
        "diskwright: Expecting a log and an image file name\nTry 'diskwright replay --help' for more information\n",
      ],
    ];
    for (const [args, message] of failures) {
      const { status, stderr } = run('replay', '-f', 'raw', ...args);
      expect([args, status, stderr]).toEqual([args, 1, message]);
    }
  });
});

describe('crashlab', () => {
  test('finds the state that the check refuses, names what is lost, and saves it', () => {
    const { status, stdout, stderr } = run(
      ...['crashlab', '-f', 'raw', '--base', 'base.raw', '--save', 'bad.raw', '--jobs', '2', 'log', ...CHECKED],
    );
    expect(stderr).toBe('');
    expect(stdout).toMatch(/^\d+ states of 4 changes in 2 epochs tried, chosen by seed 1 \(atomic 512\): 1 failed\n/);
    expect(stdout).toContain(
      "after mark 'first'; of 3 changes since the last flush one is lost:\n  write of 8192 bytes",
    );
    expect(stdout).toContain('fails: exit status 3\n  | no data; marks: first\n');
    expect(status).toBe(1);
    const bad = readFileSync(path('bad.raw'));
    expect([bad.length, bad[0], bad[8192]]).toEqual([MIB, 4, 0]);
  });

  test('as JSON, and all survive when writes are whole and the check is content', () => {
    const args = ['crashlab', '-f', 'raw', '--base', 'base.raw', '--json', '--atomic', '16k'];
    const found = run(...args, 'log', ...CHECKED);
    expect(found.status).toBe(1);
    expect(JSON.parse(found.stdout)).toMatchObject({
      exhaustive: true,
      failure: { lost: [{ entry: 3, kind: 'write', offset: 8192, length: 8192 }], marks: ['first'], minimal: true },
    });
    const sound = run(...args, 'log', '--', process.execPath, '-e', '0', '{}');
    expect([sound.status, JSON.parse(sound.stdout)]).toEqual([
      0,
      {
        seed: 1,
        atomic: 16384,
        entries: 7,
        changes: 4,
        epochs: 2,
        tried: 10,
        repeated: 0,
        failed: 0,
        exhaustive: true,
      },
    ]);
  });

  test('takes other exit statuses for a survivor, where it is told to', () => {
    const lab = ['crashlab', '-f', 'raw', '--base', 'base.raw', '--states', '2'];
    const ended = (status: string) => ['log', '--', process.execPath, '-e', `process.exit(${status})`, '{}'];
    expect(run(...lab, '--accept', '0,3', ...ended('3')).stdout).toMatch(/: all survive\n$/);
    expect(run(...lab, '--accept', '3', ...ended('0')).stdout).toContain('fails: exit status 0\n');
  });

  test('a sound VDI is found sound by its check, in every state of its file, but for leaks', () => {
    run('create', '-f', 'vdi', 'disk.vdi', '8M');
    writeFileSync(path('before.vdi'), readFileSync(path('disk.vdi')));
    writeFileSync(path('vdi.log'), '');
    const image = 'driver=vdi,file.driver=log,file.file.driver=file,file.file.filename=disk.vdi';
    const writes = ['write -q 3M 2M', 'write -q 0 1k', 'write -q 5M 1k', 'discard -q 3M 1M'].flatMap((word) => [
      '-c',
      word,
    ]);
    const log = 'file.log.driver=file,file.log.filename=vdi.log';
    expect(run('io', '-t', 'writeback', ...writes, '--image-opts', `${image},${log}`).status).toBe(0);
    const lab = ['crashlab', '-f', 'raw', '--base', 'before.vdi', '--states', '24', '--accept', '0,3', 'vdi.log', '--'];
    const checked = run(...lab, pair.program('diskwright'), 'check', '-q', '-f', 'vdi', '{}');
    expect([checked.stderr, checked.stdout]).toEqual(['', expect.stringMatching(/^\d\d states .*: all survive\n$/)]);
  });

  test('gives states by NBD as well, the same ones', () => {
    const program = pair.program('diskwright');
    const lab = ['crashlab', '-f', 'raw', '--base', 'base.raw', '--jobs', '2', '--states', '12', 'log', '--', program];
    const same = run(...lab, 'compare', '-f', 'raw', '-F', 'raw', '{}', '{nbd}');
    expect([same.stderr, same.status]).toEqual(['', 0]);
    expect(same.stdout).toMatch(/^12 states .* all survive\n$/);
    const commands = ['-c', 'write -q -P 9 0 512', '-c', 'read -q -P 9 0 512', '-c', 'read -q -P 2 65536 1024'];
    const { status, stdout } = run(...lab, 'io', '-f', 'raw', ...commands, '{nbd}');
    expect(status).toBe(1);
    expect(stdout).toContain('write of 1024 bytes at 65536 (entry 0)');
    expect(stdout).toContain('  | Pattern verification failed at offset 65536, 1024 bytes\n');
  });

  test('a command that hangs has failed', () => {
    const args = ['crashlab', '-f', 'raw', '--base', 'base.raw', '--timeout', '1', '--states', '1', 'log', '--'];
    const { status, stdout } = run(...args, process.execPath, '-e', 'for (;;);', '{}');
    expect(status).toBe(1);
    expect(stdout).toContain('fails: The check did not end within 1000 ms\n');
  });

  test('what cannot be tried is told with status 2, and no state is left in the temporary folder', () => {
    const base = ['-f', 'raw', '--base', 'base.raw'];
    const failures: [string[], string][] = [
      [[...base, 'log', '--', './no-program', '{}'], "Cannot run './no-program': No such file or directory\n"],
      [
        [...base, 'log', '--', 'true'],
        'The command has neither {} for the name of the state nor {nbd} for its NBD URI\n',
      ],
      [[...base, 'log'], 'Expecting -- and a command\n'],
      [['log', '--', 'true', '{}'], 'Expecting --base with the disk as it was before\n'],
      [[...base, 'check.cjs', '--', 'true', '{}'], 'Invalid log superblock magic\n'],
      [['-f', 'raw', '--base', 'no.raw', 'log', '--', 'true', '{}'], "Could not open 'no.raw': "],
      [[...base, '--atomic', '700', 'log', '--', 'true', '{}'], 'The atomic size must be a power of two, not 700\n'],
      [[...base, '--accept', '0,x', 'log', '--', 'true', '{}'], 'Invalid exit status for --accept: x\n'],
      [[...base, '--accept', '256', 'log', '--', 'true', '{}'], 'Invalid exit status for --accept: 256\n'],
      [[...base, '--states', '0', 'log', '--', 'true', '{}'], 'Invalid number for --states: 0\n'],
    ];
    for (const [args, message] of failures) {
      const { status, stderr } = run('crashlab', ...args);
      expect([args, status, stderr.startsWith(`diskwright: ${message}`)]).toEqual([args, 2, true]);
    }
    expect(readdirSync(tmpdir()).filter((name) => name.startsWith('diskwright-crashlab-'))).toEqual([]);
  });
});
