/** Programs at work on a VDI that our server mirrors by blkverify (BV-5, BV-16): nbdcopy, fio, SQLite, nbdkit's filters. */
import { spawn, spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, mkdtempSync, readFileSync, rmSync, watch, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { SeededRandom } from '../../src/bytes/random.ts';
import type { Disk } from '../../src/core/disk.ts';
import { blkverifyOf } from '../../src/filters/blkverify/node.ts';
import { check, create, open, type Serving, serve } from '../../src/node/index.ts';
import { testSeed } from '../set-up/seed.ts';
import { missing, runBeside } from './nbd-programs.ts';

const MIB = 1 << 20;
const SIZE = 16 * MIB;

let folder: string;
let content: Buffer;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'diskwright-mirrored-'));
  // Data, a hole, data; pieces that are no multiple of anything.
  content = Buffer.alloc(SIZE);
  new SeededRandom(testSeed).fill(content.subarray(12_345, 5 * MIB));
  content.fill(0x5a, 9 * MIB + 1, 13 * MIB);
  writeFileSync(join(folder, 'source.img'), content);
});
beforeEach(async () => {
  for (const name of ['disk.vdi', 'disk.img']) await create(join(folder, name), { size: SIZE });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function ok(command: string, ...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await runBeside(command, args, folder);
  expect([command, ...args, status, status === 0 ? '' : stderr]).toEqual([command, ...args, 0, '']);
  return stdout;
}

/** Afterwards both sides are equal and the VDI is whole. */
async function mirrored(work: (served: Serving, disk: Disk) => Promise<void>): Promise<void> {
  {
    const vdi = { driver: 'vdi', discard: 'unmap', file: { driver: 'file', filename: join(folder, 'disk.vdi') } };
    const raw = { driver: 'file', filename: join(folder, 'disk.img') };
    await using disk = await open({ driver: 'blkverify', discard: 'unmap', test: vdi, raw }, { writable: true });
    {
      await using served = await serve(disk, { name: 'e', socket: join(folder, 's.sock') });
      await work(served, disk);
      expect(served.stats().errors).toBe(0);
    }
    await blkverifyOf(disk).verify();
    expect(blkverifyOf(disk).counts().mismatches).toBe(0);
  }
  expect(await check(join(folder, 'disk.vdi'))).toMatchObject({ report: { corruptions: 0, leaks: 0 } });
}

const copy = missing('nbdcopy');
test.skipIf(copy !== '')(`nbdcopy there and back, by four connections${copy}`, async () => {
  await mirrored(async ({ uri }, disk) => {
    await ok('nbdcopy', '--connections=4', '--flush', 'source.img', uri);
    expect(Buffer.from(await disk.read(0, SIZE)).equals(content)).toBe(true);
    await ok('nbdcopy', '--connections=4', uri, 'back.img');
    expect(readFileSync(join(folder, 'back.img')).equals(content)).toBe(true);
  });
});

const fio = missing('fio');
test.skipIf(fio !== '')(`fio: writes and trims here and there, checked${fio}`, async () => {
  await mirrored(async ({ uri }) => {
    const job = ['--ioengine=nbd', `--uri=${uri}`, `--size=${SIZE}`, '--iodepth=16', `--randseed=${testSeed}`];
    const writes = ['--name=w', '--rw=randwrite', '--bsrange=512-96k', '--verify=crc32c', '--verify_fatal=1'];
    const trims = ['--name=t', '--rw=randtrim', '--bs=64k', '--io_size=4M'];
    for (const kind of [writes, trims, writes]) expect(await ok('fio', ...kind, ...job)).toMatch(/err= 0/);
  });
});

function whyNoMount(): string {
  const note = missing('nbdfuse', 'fusermount3', 'sqlite3');
  if (note !== '') return note;
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
    return '';
  } catch {
    return ' (skipped: /dev/fuse may not be used)';
  }
}

/** The export as a file, for the time of `work`. */
async function mounted(uri: string, work: (path: string) => Promise<void>): Promise<void> {
  const [path, pid] = [join(folder, 'mounted'), join(folder, 'pid')];
  writeFileSync(path, '');
  rmSync(pid, { force: true });
  const fuse = spawn('nbdfuse', ['-P', pid, path, uri], { stdio: ['ignore', 'ignore', 'inherit'] });
  const ended = new Promise<void>((resolve) => fuse.once('exit', () => resolve()));
  const watcher = watch(folder);
  // The process id is written when the file is there.
  const there = new Promise<void>((resolve) => watcher.on('change', () => existsSync(pid) && resolve()));
  try {
    if (!existsSync(pid)) await Promise.race([there, ended]);
    await work(path);
  } finally {
    watcher.close();
    if (fuse.exitCode === null) spawnSync('fusermount3', ['-u', '-z', path]);
    await ended;
  }
}

const mount = whyNoMount();
test.skipIf(mount !== '')(`SQLite on the export as a file${mount}`, async () => {
  await ok('sqlite3', 'seed.db', 'CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB)');
  const seed = readFileSync(join(folder, 'seed.db'));
  const insert = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<2000)
    INSERT INTO t SELECT i, hex(zeroblob(i % 700)) || i FROM n`;
  const sums = 'SELECT count(*), sum(length(data)), sum(substr(data, -1)) FROM t';
  // The journal has no folder of its own to be in.
  const sql = ['PRAGMA journal_mode=MEMORY', insert, 'DELETE FROM t WHERE id % 3 = 0', sums, 'PRAGMA integrity_check'];
  const expected = (await ok('sqlite3', 'seed.db', sql.join(';'))).trim().split('\n').slice(1);
  expect(expected).toEqual([expect.stringMatching(/^1334\|/), 'ok']);
  await mirrored(async ({ uri }, disk) => {
    await disk.write(0, seed);
    await mounted(uri, async (path) => {
      expect((await ok('sqlite3', path, sql.join(';'))).trim().split('\n')).toEqual(['memory', ...expected]);
    });
    // Once more, from the disk.
    await mounted(uri, async (path) => {
      const answer = await ok('sqlite3', '-readonly', path, `${sums};PRAGMA integrity_check`);
      expect(answer.trim().split('\n')).toEqual(expected);
    });
  });
});

const kit = missing('nbdkit', 'nbdcopy', 'nbdinfo', 'qemu-io');
describe.skipIf(kit !== '')(`nbdkit in front${kit}`, () => {
  const through = (uri: string, filters: readonly string[], settings: readonly string[], script: string) => {
    const words = [...filters.map((name) => `--filter=${name}`), 'nbd', `uri=${uri}`, ...settings, '--run', script];
    return runBeside('nbdkit', ['-U', '-', ...words], folder);
  };

  test('cow and delay: what is written stays in front, what is read comes from us', async () => {
    await mirrored(async ({ uri, stats }, disk) => {
      await disk.write(0, content);
      const script = 'nbdcopy "$uri" a.img && qemu-io -f raw -c "write -P 7 1M 1M" "$uri" && nbdcopy "$uri" b.img';
      const { status, stderr } = await through(uri, ['cow', 'delay'], ['rdelay=1ms', 'wdelay=1ms'], script);
      expect([status, stderr]).toEqual([0, '']);
      const changed = Buffer.from(content).fill(7, MIB, 2 * MIB);
      expect(readFileSync(join(folder, 'a.img')).equals(content)).toBe(true);
      expect(readFileSync(join(folder, 'b.img')).equals(changed)).toBe(true);
      expect(stats().bytesWritten).toBe(0);
    });
  });

  test('error: what it lets through is right', async () => {
    await mirrored(async ({ uri }, disk) => {
      await disk.write(0, content);
      const settings = ['error-pread=EIO', 'error-pread-rate=100%'];
      const script = 'qemu-io -f raw -c "write -P 9 0 64k" -c "read 0 64k" "$uri"';
      const { stdout } = await through(uri, ['error'], settings, script);
      expect(stdout).toContain('wrote 65536/65536');
      expect(stdout).toContain('read failed: Input/output error');
      expect(Buffer.from(await disk.read(0, 65536)).every((byte) => byte === 9)).toBe(true);
    });
  });
});
