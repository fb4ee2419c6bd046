import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { THREAD_POOL } from './calls.ts';
import { QuickNames } from './quick-names.ts';
import { storageOf } from './storage.ts';

const folder = fs.mkdtempSync(path.join(tmpdir(), 'diskwright-'));
afterAll(() => fs.rmSync(folder, { recursive: true }));
const at = (name: string) => path.join(folder, name);
const posix = process.platform !== 'win32';
/** Not where folders for temporary files are on an overlay, as in containers. */
const { quick } = await storageOf(folder, THREAD_POOL);

test('files on local storage are quick, and names of nothing there', async () => {
  fs.writeFileSync(at('file'), '');
  const names = new QuickNames();
  expect(await names.isQuick(at('file'))).toBe(quick);
  expect(await names.isQuick(path.relative('', at('file')))).toBe(quick);
  expect(await names.isQuick(at('none'))).toBe(quick);
  expect(await names.isQuick(at('new'), true)).toBe(quick);
  expect(await names.isQuick(at('none/below'))).toBe(false);
});

test.skipIf(!posix)('what may hang is not: pipes, devices, folders, file systems of other kinds', async () => {
  execFileSync('mkfifo', [at('pipe')]);
  fs.mkdirSync(at('folder'));
  const names = new QuickNames();
  const others = [at('pipe'), at('folder'), '/dev/null', ...(process.platform === 'linux' ? ['/proc/version'] : [])];
  for (const name of others) expect(await names.isQuick(name)).toBe(false);
});

test.skipIf(!posix)('a link is as what it leads to, and one to nothing may lead anywhere', async () => {
  fs.writeFileSync(at('end'), '');
  fs.symlinkSync('end', at('link'));
  fs.symlinkSync('/dev/null', at('device'));
  fs.symlinkSync('missing', at('dangling'));
  const names = new QuickNames();
  expect(await names.isQuick(at('link'))).toBe(quick);
  expect(await names.isQuick(at('device'))).toBe(false);
  expect(await names.isQuick(at('dangling'))).toBe(false);
});

test.skipIf(!posix)(
  'a name that a file is made by is looked at when it is used again, unless the file was made',
  async () => {
    execFileSync('mkfifo', [at('taken')]);
    const names = new QuickNames();
    expect(await names.isQuick(at('taken'), true)).toBe(quick);
    expect(await names.isQuick(at('taken'))).toBe(false);
    names.remember(at('made'));
    expect(await names.isQuick(at('made'))).toBe(true);
  },
);
