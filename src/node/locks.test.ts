import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { HostFile } from '../core/host.ts';
import { nodeHost } from './host.ts';

const linux = process.platform === 'linux';

describe.skipIf(!linux)('locks of open files', () => {
  let folder = '';
  let name = '';
  const host = nodeHost();
  const open: HostFile[] = [];
  const opened = async (write = true) => {
    const file = await host.files.open(name, { write });
    open.push(file);
    return file;
  };

  beforeEach(() => {
    folder = fs.mkdtempSync(path.join(tmpdir(), 'diskwright-'));
    name = path.join(folder, 'disk');
    fs.writeFileSync(name, 'x');
  });
  afterEach(async () => {
    for (const file of open.splice(0)) await file.close();
    fs.rmSync(folder, { recursive: true });
  });

  test('shared ones go together, exclusive ones do not, even within one process', async () => {
    const [first, second] = [await opened(), await opened()];
    expect(first.lock('shared', 100, 1)).toBe(true);
    expect(second.lock('shared', 100, 1)).toBe(true);
    expect(second.lock('exclusive', 100, 1)).toBe(false);
    expect(second.isLocked('exclusive', 100, 1)).toBe(true);
    expect(second.isLocked('shared', 100, 1)).toBe(false);
    expect(second.lock('exclusive', 101, 1)).toBe(true);
    expect(first.isLocked('shared', 101, 1)).toBe(true);
    expect(first.isLocked('shared', 102, 1)).toBe(false);
  });

  test('our own locks are not in our way, and dropping works', async () => {
    const [first, second] = [await opened(), await opened()];
    expect(first.lock('shared', 100, 4)).toBe(true);
    expect(first.isLocked('exclusive', 100, 4)).toBe(false);
    expect(second.isLocked('exclusive', 101, 1)).toBe(true);
    expect(first.lock('none', 101, 1)).toBe(true);
    expect(second.isLocked('exclusive', 101, 1)).toBe(false);
    expect(second.isLocked('exclusive', 102, 1)).toBe(true);
  });

  test('a file opened for reading can hold shared locks and look for others', async () => {
    const [reader, writer] = [await opened(false), await opened()];
    expect(reader.lock('shared', 100, 1)).toBe(true);
    expect(writer.lock('shared', 201, 1)).toBe(true);
    expect(reader.isLocked('exclusive', 201, 1)).toBe(true);
  });

  test('closing drops them', async () => {
    const [first, second] = [await opened(), await host.files.open(name, { write: true })];
    expect(second.lock('exclusive', 100, 1)).toBe(true);
    expect(first.isLocked('shared', 100, 1)).toBe(true);
    await second.close();
    expect(first.isLocked('shared', 100, 1)).toBe(false);
  });

  test('the holder within this process is this process', async () => {
    const [first, second] = [await opened(), await opened()];
    expect(second.lock('shared', 201, 1)).toBe(true);
    expect(first.lock('shared', 100, 1)).toBe(true);
    expect(first.lockHolder(201, 1)).toEqual({ pid: process.pid, command: commandOf(process.pid), own: true });
    expect(first.lockHolder(100, 1)).toBeUndefined();
    expect(first.lockHolder(300, 1)).toBeUndefined();
  });

  test('the holder in another process is told with its command', async () => {
    const file = await opened();
    const child = await heldByAnother(name);
    try {
      expect(file.isLocked('exclusive', 203, 1)).toBe(true);
      expect(file.lockHolder(203, 1)).toEqual({ pid: child.pid, command: commandOf(child.pid) });
      expect(file.lockHolder(205, 1)).toBeUndefined();
    } finally {
      child.kill();
      await once(child, 'close');
    }
  });
});

const commandOf = (pid: number | undefined) => fs.readFileSync(`/proc/${pid}/comm`, 'utf8').trimEnd();

/** Another process with a shared lock on bytes 200 to 203; it ends when it is killed. */
async function heldByAnother(name: string): Promise<ChildProcess> {
  const program = `
    const koffi = require('koffi');
    const fcntl = koffi.load(null).func('int fcntl(int fd, int command, ...)');
    const lock = new BigInt64Array([0n, 200n, 4n, 0n]);
    const fd = require('node:fs').openSync(process.argv[1], 'r');
    process.stdout.write(String(fcntl(fd, 37, 'void *', lock)));
    setInterval(() => {}, 1e6);
  `;
  const child = spawn(process.execPath, ['-e', program, name], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [answer] = await once(child.stdout, 'data');
  expect(String(answer)).toBe('0');
  return child;
}
