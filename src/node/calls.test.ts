import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, describe, expect, test, vi } from 'vitest';
import { AT_ONCE, THREAD_POOL } from './calls.ts';

const folder = fs.realpathSync(fs.mkdtempSync(path.join(tmpdir(), 'diskwright-')));
afterAll(() => fs.rmSync(folder, { recursive: true }));
afterEach(() => vi.restoreAllMocks());
const at = (name: string) => path.join(folder, name);
const posix = process.platform !== 'win32';
const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL, O_TRUNC } = fs.constants;

describe.each([
  ['the pool', THREAD_POOL],
  ['the event loop', AT_ONCE],
])('made by %s,', (who, calls) => {
  const name = at(who);

  test('calls do what they say', async () => {
    const fd = await calls.open(name, O_RDWR | O_CREAT | O_EXCL, 0o600);
    await calls.truncate(fd, 1000);
    expect((await calls.stat(fd)).size).toBe(1000n);
    await calls.truncate(fd, 10);
    expect((await calls.stat(name)).size).toBe(10n);
    expect(await calls.write(fd, Buffer.from('hello'), 0)).toBe(5);
    await calls.datasync(fd);
    await calls.close(fd);
    await calls.rename(name, `${name} 2`);
    expect(await calls.realPath(`${name} 2`)).toBe(`${name} 2`);
    expect(await calls.fileSystemType(`${name} 2`)).toBe(fs.statfsSync(folder).type);
    await calls.close(await calls.open(`${name} 2`, O_RDWR | O_TRUNC, 0o600));
    expect(fs.statSync(`${name} 2`).size).toBe(0);
  });

  test('errors are the same', async () => {
    const missing = { name: 'BlockError', code: 'ENOENT', message: 'No such file or directory' };
    await expect(calls.open(at('none'), O_RDONLY, 0)).rejects.toMatchObject(missing);
    await expect(calls.stat(at('none'))).rejects.toMatchObject(missing);
    await expect(calls.fileSystemType(at('none'))).rejects.toMatchObject(missing);
    await expect(calls.realPath(at('none'))).rejects.toMatchObject(missing);
    await expect(calls.rename(at('none'), at('other'))).rejects.toMatchObject(missing);
    await expect(calls.readLink(folder)).rejects.toMatchObject({ name: 'BlockError', code: 'EINVAL' });
    await expect(calls.close(2 ** 30)).rejects.toMatchObject({ name: 'BlockError', code: 'EBADF' });
  });
});

test('what gives much storage back is left to the pool', async () => {
  const truncated = vi.spyOn(fs, 'ftruncateSync');
  const closed = vi.spyOn(fs, 'closeSync');
  const opened = vi.spyOn(fs, 'openSync');
  fs.writeFileSync(at('large'), new Uint8Array(100));
  opened.mockClear();
  closed.mockClear();
  await AT_ONCE.close(await AT_ONCE.open(at('large'), O_RDWR | O_TRUNC, 0));
  expect([opened.mock.calls.length, closed.mock.calls.length]).toEqual([0, 1]);
  const fd = await AT_ONCE.open(at('large'), O_RDWR, 0);
  await AT_ONCE.truncate(fd, 1000);
  await AT_ONCE.truncate(fd, 10);
  expect(truncated).toHaveBeenCalledTimes(1);
  if (posix) fs.unlinkSync(at('large'));
  await AT_ONCE.close(fd);
  expect(closed).toHaveBeenCalledTimes(posix ? 1 : 2);
});

test.skipIf(!posix)('should there be a pipe where a file was, opening it does not wait for the other end', async () => {
  execFileSync('mkfifo', [at('pipe')]);
  const fd = await AT_ONCE.open(at('pipe'), O_RDONLY, 0);
  expect((await AT_ONCE.stat(fd)).size).toBe(0n);
  await AT_ONCE.close(fd);
});

test('a call that a signal interrupts is made again', async () => {
  const interrupted = Object.assign(new Error('EINTR: interrupted system call, stat'), { code: 'EINTR' });
  const stat = vi.spyOn(fs, 'statSync').mockImplementationOnce(() => {
    throw interrupted;
  });
  expect((await AT_ONCE.stat(folder)).size).toBeGreaterThan(0n);
  expect(stat).toHaveBeenCalledTimes(2);
});
