import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { nodeHost } from './host.ts';

const HOSTS = [
  ['by the pool', nodeHost()],
  ['at once where that is quick', nodeHost({ callsAtOnce: true })],
] as const;
const posix = process.platform !== 'win32';

let folder = '';
const at = (name: string) => path.join(folder, name);

beforeEach(() => {
  folder = fs.realpathSync(fs.mkdtempSync(path.join(tmpdir(), 'diskwright-')));
});
afterEach(() => {
  fs.rmSync(folder, { recursive: true });
});

/** A block device over a file; undefined where we may not make one. */
function loopDevice(image: string): string | undefined {
  try {
    return execFileSync('losetup', ['--find', '--show', image], {
      stdio: ['ignore', 'pipe', 'ignore'],
      encoding: 'utf8',
    }).trim();
  } catch {
    return undefined;
  }
}

describe.each(HOSTS)('calls made %s:', (_how, { files }) => {
  describe('open', () => {
    test('a missing file is ENOENT, with the system text alone', async () => {
      await expect(files.open(at('none'), { write: false })).rejects.toMatchObject({
        name: 'BlockError',
        code: 'ENOENT',
        message: 'No such file or directory',
      });
    });

    test('"new" makes a file, and is EEXIST where there is one', async () => {
      const file = await files.open(at('a'), { write: true, create: 'new', createMode: 0o600 });
      expect(file.size()).toBe(0);
      await file.close();
      if (posix) expect(fs.statSync(at('a')).mode & 0o777).toBe(0o600);
      await expect(files.open(at('a'), { write: true, create: 'new' })).rejects.toMatchObject({ code: 'EEXIST' });
    });

    test('"truncate" empties what is there', async () => {
      fs.writeFileSync(at('a'), 'content');
      const file = await files.open(at('a'), { write: true, create: 'truncate' });
      expect(file.size()).toBe(0);
      await file.close();
    });

    test.skipIf(!posix)('kinds are told', async () => {
      execFileSync('mkfifo', [at('pipe')]);
      expect((await files.stat(at('pipe'))).kind).toBe('pipe');
      expect((await files.stat('/dev/null')).kind).toBe('character');
      expect((await files.stat(folder)).kind).toBe('directory');
      const directory = await files.open(folder, { write: false });
      expect(directory.kind).toBe('directory');
      await directory.close();
      await expect(files.open(folder, { write: true })).rejects.toMatchObject({ code: 'EISDIR' });
    });

    test.skipIf(!posix)('a pipe is read and written in order, whatever the offset', async () => {
      execFileSync('mkfifo', [at('pipe')]);
      const [reader, writer] = await Promise.all([
        files.open(at('pipe'), { write: false }),
        new Promise<number>((resolve, reject) =>
          fs.open(at('pipe'), 'w', (error, fd) => (error ? reject(error) : resolve(fd))),
        ),
      ]);
      fs.writeSync(writer, 'hello');
      const target = new Uint8Array(5);
      expect(reader.tryReadNow(0, target)).toBe(-1);
      expect(await reader.read(1000, target)).toBe(5);
      expect(new TextDecoder().decode(target)).toBe('hello');
      fs.closeSync(writer);
      expect(await reader.read(0, target)).toBe(0);
      await reader.close();
    });
  });

  describe('stat', () => {
    test('tells size, storage and identity, through symbolic links', async () => {
      fs.writeFileSync(at('a'), new Uint8Array(10_000));
      fs.linkSync(at('a'), at('hard'));
      fs.writeFileSync(at('b'), '');
      const info = await files.stat(at('a'));
      expect(info).toMatchObject({ kind: 'regular', size: 10_000 });
      expect((await files.stat(at('hard'))).identity).toBe(info.identity);
      expect((await files.stat(at('b'))).identity).not.toBe(info.identity);
      if (!posix) return;
      expect(info.allocated).toBeGreaterThanOrEqual(0);
      fs.symlinkSync('a', at('soft'));
      expect((await files.stat(at('soft'))).identity).toBe(info.identity);
    });
  });

  describe('resolve', () => {
    test.skipIf(!posix)('follows links, the last component need not exist', async () => {
      fs.mkdirSync(at('dir'));
      fs.writeFileSync(at('dir/a'), '');
      fs.symlinkSync('dir', at('alias'));
      fs.symlinkSync('alias/missing', at('dangling'));
      fs.symlinkSync('loop', at('loop'));
      expect(await files.resolve(at('alias/a'))).toBe(at('dir/a'));
      expect(await files.resolve(at('alias/new'))).toBe(at('dir/new'));
      expect(await files.resolve(at('dangling'))).toBe(at('dir/missing'));
      await expect(files.resolve(at('none/new'))).rejects.toMatchObject({ code: 'ENOENT' });
      await expect(files.resolve(at('loop'))).rejects.toMatchObject({ code: 'ELOOP' });
    });
  });

  describe('rename, remove, list', () => {
    test('a renamed file takes over the permission bits of the one it replaces', async () => {
      fs.writeFileSync(at('old'), 'old', { mode: 0o640 });
      fs.writeFileSync(at('new'), 'new', { mode: 0o600 });
      await files.rename(at('new'), at('old'));
      expect(fs.readFileSync(at('old'), 'utf8')).toBe('new');
      if (posix) expect(fs.statSync(at('old')).mode & 0o777).toBe(0o640);
      await files.rename(at('old'), at('elsewhere'));
      expect(await files.list(folder)).toEqual(['elsewhere']);
      await files.remove(at('elsewhere'));
      expect(await files.list(folder)).toEqual([]);
      await expect(files.remove(at('elsewhere'))).rejects.toMatchObject({ code: 'ENOENT' });
    });
  });

  describe('a block device', () => {
    test('has its capacity as size, zeroes and discards, and is read past the cache (skipped without a loop device)', async (context) => {
      fs.writeFileSync(at('image'), new Uint8Array(1024 * 1024).fill(7));
      const device = loopDevice(at('image'));
      if (device === undefined) {
        context.skip('no permission to make a loop device');
        return;
      }
      try {
        expect(await files.stat(device)).toMatchObject({ kind: 'block', size: 1024 * 1024 });
        const file = await files.open(device, { write: true });
        expect([file.kind, file.size(), file.requestAlign]).toEqual(['block', 1024 * 1024, 1]);
        await file.zeroRange(0, 65_536);
        await file.discard?.(65_536, 65_536);
        await file.flush();
        const target = new Uint8Array(8192);
        expect(await file.read(61_440, target.subarray(0, 4096))).toBe(4096);
        expect(target.subarray(0, 4096).every((byte) => byte === 0)).toBe(true);
        expect(file.extent(0, 1024 * 1024)).toEqual({ kind: 'data', length: 1024 * 1024 });
        expect(await file.read(1024 * 1024 - 4096, target)).toBe(4096);
        expect(await file.read(2 * 1024 * 1024, target)).toBe(0);
        await expect(file.write(1024 * 1024, target)).rejects.toMatchObject({ code: 'ENOSPC' });
        expect(file.size()).toBe(1024 * 1024);
        await file.close();
        const direct = await files.open(device, { write: false, direct: true });
        expect(direct.requestAlign).toBeGreaterThanOrEqual(512);
        expect(await direct.read(512 * 1024, target)).toBe(8192);
        expect(target.every((byte) => byte === 7)).toBe(true);
        await direct.close();
      } finally {
        execFileSync('losetup', ['--detach', device]);
      }
    });
  });
});
