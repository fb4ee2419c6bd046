/** Servers whose messages nobody reads: clients are served all the same. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { linkProgram } from './cli-programs.ts';
import { stop } from './nbd-programs.ts';

let folder: string;
const running: ChildProcess[] = [];
const path = (name: string) => join(folder, name);

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'diskwright-unread-'));
  await linkProgram('diskwright', path('diskwright'));
  writeFileSync(path('disk.img'), Buffer.alloc(1 << 20));
});
afterEach(async () => {
  for (const child of running.splice(0)) await stop(child, 'SIGKILL');
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** What a server logs of a client with flags that nobody knows. */
const LINE = 'diskwright: option negotiation failed: ';
/** So many of these lines are more than a pipe of 64 KiB holds, or a socket of 208 KiB with its overhead. */
const CLIENTS = 1500;

/** Our server, its messages going where `stderr` says, once clients can connect. */
async function serving(stderr: number | 'pipe'): Promise<ChildProcess> {
  const args = ['serve', '-r', '-f', 'raw', '-k', path('s.sock'), 'disk.img'];
  const child = spawn(path('diskwright'), args, { cwd: folder, stdio: ['ignore', 'pipe', stderr] });
  running.push(child);
  await once(child.stdout ?? child, 'data');
  return child;
}

/** Connects, is greeted, and answers with nonsense; returns when the server has left. */
async function failHandshake(): Promise<void> {
  const socket: Socket = connect(path('s.sock'));
  const [greeting] = (await once(socket, 'data')) as [Buffer];
  expect(greeting.toString('latin1', 0, 8)).toBe('NBDMAGIC');
  socket.end(Buffer.alloc(4, 0xff));
  await once(socket, 'close');
}

/** All lines are there, or have been counted. */
function expectAllTold(text: string, clients: number): void {
  const lines = text.split('\n').slice(0, -1);
  const dropped = lines.flatMap((line) => /warning: (\d+) messages were dropped/.exec(line)?.[1] ?? []);
  expect(dropped).toHaveLength(1);
  const written = lines.filter((line) => line.startsWith(LINE)).length;
  expect(written + Number(dropped[0])).toBe(clients);
  expect(written + 1).toBe(lines.length);
}

describe('messages that nobody reads make no client wait', () => {
  test.skipIf(process.platform !== 'linux')(
    'in a pipe; the count of those dropped comes when it is read again',
    async () => {
      spawnSync('mkfifo', [path('log')]);
      const log = openSync(path('log'), constants.O_RDWR | constants.O_NONBLOCK);
      const child = await serving(log);
      for (let clients = 0; clients < CLIENTS; clients++) await failHandshake();
      let text = drained(log);
      expect(text).not.toContain('dropped');
      await failHandshake();
      expect(await stop(child)).toBe(0);
      text += drained(log);
      closeSync(log);
      expectAllTold(text, CLIENTS + 1);
    },
    60_000,
  );

  test('in a socket, as Node and systemd give it; the count comes at the end where it is read again', async () => {
    const child = await serving('pipe');
    for (let clients = 0; clients < CLIENTS; clients++) await failHandshake();
    let text = '';
    child.stderr?.on('data', (bytes) => {
      text += bytes;
    });
    child.kill('SIGTERM');
    expect(await once(child, 'close')).toEqual([0, null]);
    expectAllTold(text, CLIENTS);
  }, 60_000);
});

/** What is in a pipe now. */
function drained(pipe: number): string {
  const bytes = Buffer.alloc(1 << 20);
  return bytes.toString('utf8', 0, readSync(pipe, bytes));
}
