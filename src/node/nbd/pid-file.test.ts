/** The file with the server's number (N-113). */
import {
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { removePidFile, writePidFile } from './pid-file.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'diskwright-pid-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test('a number and a newline, mode 0600, in place of an older file at once, and nothing beside it (N-113)', () => {
  const path = join(folder, 'new.pid');
  writeFileSync(path, '12345\n', { mode: 0o644 });
  const { ino } = statSync(path);
  writePidFile(path);
  expect([readFileSync(path, 'utf8'), statSync(path).mode & 0o777]).toEqual([`${process.pid}\n`, 0o600]);
  // Another file, so that nobody has seen it empty.
  expect(statSync(path).ino).not.toBe(ino);
  expect(readdirSync(folder)).toEqual(['new.pid']);
  removePidFile(path);
  expect(readdirSync(folder)).toEqual([]);
});

test('what is no plain file is written to, and stays what it is', () => {
  const [link, target] = [join(folder, 'link'), join(folder, 'target')];
  symlinkSync(target, link);
  writePidFile(link);
  expect([lstatSync(link).isSymbolicLink(), readFileSync(target, 'utf8')]).toEqual([true, `${process.pid}\n`]);
  expect(() => writePidFile('/dev/null')).not.toThrow();
  expect(lstatSync('/dev/null').isCharacterDevice()).toBe(true);
});

test('a folder that is not there, and a folder instead of a file: told, and nothing is left', () => {
  const text = (path: string, reason: string) => `Could not create '${path}': ${reason}`;
  const missing = join(folder, 'nowhere', 'pid');
  expect(() => writePidFile(missing)).toThrow(text(missing, 'No such file or directory'));
  expect(() => writePidFile(folder)).toThrow(text(folder, 'Is a directory'));
});
