/** `diskwright serve`, and how both servers end before they have begun (N-81, N-113). */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { clientFlags, encodeRequest, optionFrame } from '../../src/nbd/wire.ts';
import { linkProgram } from './cli-programs.ts';
import { missing, run, runBeside, start, stop } from './nbd-programs.ts';

let folder: string;
let ours: string;
let diskwright: string;
const running: ChildProcess[] = [];

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'diskwright-nbd-'));
  ours = join(folder, 'qemu-nbd');
  await linkProgram('diskwright-nbd', ours);
  diskwright = join(folder, 'diskwright');
  await linkProgram('diskwright', diskwright);
  writeFileSync(join(folder, 'disk.img'), Buffer.alloc(1 << 20));
});
afterEach(async () => {
  for (const child of running.splice(0)) await stop(child, 'SIGKILL');
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const path = (name: string) => join(folder, name);
const info = missing('nbdinfo');

describe('an image that does not open soon', () => {
  /** A place where somebody connects, and is told nothing. */
  async function silence(): Promise<{ uri: string; client: Promise<Socket>; end: () => void }> {
    const server = createServer();
    const client = once(server, 'connection').then(([socket]) => socket as Socket);
    server.listen(path('silent.sock'));
    await once(server, 'listening');
    return { uri: `nbd+unix:///?socket=${path('silent.sock')}`, client, end: () => void server.close() };
  }

  test.each([
    ['diskwright-nbd', []],
    ['serve', ['serve']],
  ] as const)('%s: a signal ends it then, too (N-81)', async (_name, words) => {
    const { uri, client, end } = await silence();
    const args = [...words, '-f', 'raw', '-k', path('never.sock'), uri];
    const child = start(words.length > 0 ? diskwright : ours, args, folder);
    running.push(child);
    (await client).resume();
    child.kill('SIGTERM');
    expect(await once(child, 'exit')).toEqual([null, 'SIGTERM']);
    end();
  });

  test('--fork: the child does not outlive who waits for it (N-113)', async () => {
    const { uri, client, end } = await silence();
    const parent = start(ours, ['--fork', '-f', 'raw', '-k', path('never.sock'), uri], folder);
    running.push(parent);
    const socket = await client;
    socket.resume();
    parent.kill('SIGKILL');
    await once(socket, 'close');
    end();
  });
});

describe('diskwright serve', () => {
  test.skipIf(info !== '')(
    `serves on the socket that it is started with, and prints nothing (N-116)${info}`,
    async () => {
      const args = ['--size', '--', '[', diskwright, 'serve', '-r', '-f', 'raw', 'disk.img', ']'];
      expect(await runBeside('nbdinfo', args, folder)).toEqual({ status: 0, stdout: `${1 << 20}\n`, stderr: '' });
      const command = 'LISTEN_PID=$$ LISTEN_FDS=1 exec ./diskwright serve -p 1 disk.img';
      const { status, stderr } = run('bash', ['-c', command], folder);
      expect([status, stderr]).toEqual([1, "diskwright: TCP port number can't be set when using socket activation\n"]);
    },
  );

  test.skipIf(info !== '')(`lets in whom --tls-authz lets in (N-105)${info}`, async () => {
    writeFileSync(path('keys.psk'), ['alice', 'bob'].map((user) => `${user}:${'5a'.repeat(32)}\n`).join(''));
    const tls = ['--tls-psk', 'keys.psk', '--object', 'authz-simple,id=a,identity=alice', '--tls-authz', 'a'];
    const child = start(diskwright, ['serve', '-r', '-k', 'psk.sock', ...tls, '-f', 'raw', 'disk.img'], folder);
    running.push(child);
    await once(child.stdout ?? child, 'data');
    const size = (user: string) => {
      const uri = `nbds+unix://${user}@/?socket=${path('psk.sock')}&tls-psk-file=${path('keys.psk')}`;
      return runBeside('nbdinfo', ['--size', uri], folder);
    };
    expect(await size('alice')).toMatchObject({ status: 0, stdout: `${1 << 20}\n` });
    expect(await size('bob')).toMatchObject({ status: 1, stdout: '' });
  });

  test('what cannot be flushed at the end is told of, whatever ends it', async () => {
    const faults = 'inject-error.0.event=none,inject-error.0.iotype=flush,inject-error.0.errno=28';
    const image = `driver=blkdebug,image.driver=file,image.filename=disk.img,${faults}`;
    const child = start(diskwright, ['serve', '-k', 'full.sock', '--image-opts', image], folder);
    running.push(child);
    let stderr = '';
    child.stderr?.on('data', (text) => {
      stderr += text;
    });
    await once(child.stdout ?? child, 'data');
    const uri = `nbd+unix:///?socket=${path('full.sock')}`;
    await runBeside(diskwright, ['io', '-f', 'raw', '-c', 'write 0 512', uri], folder);
    child.kill('SIGTERM');
    expect(await once(child, 'close')).toEqual([1, null]);
    expect(stderr).toMatch(/^diskwright: .*No space left on device\n$/);
  });

  test('prints where clients find each image, and ends when told to', async () => {
    const child = start(diskwright, ['serve', '-r', '-k', 's.sock', 'disk.img', 'file.img'], folder);
    writeFileSync(path('file.img'), Buffer.alloc(512));
    running.push(child);
    let text = '';
    for await (const piece of child.stdout ?? []) {
      text += piece;
      if (text.split('\n').length === 3) break;
    }
    expect(text).toBe(`nbd+unix:///disk.img?socket=${path('s.sock')}\nnbd+unix:///file.img?socket=${path('s.sock')}\n`);
    expect(await stop(child, 'SIGINT')).toBe(0);
  });

  test.skipIf(info !== '')(`each image offers the bitmaps that it has${info}`, async () => {
    const img = (...words: string[]) => expect(run(diskwright, words, folder)).toMatchObject({ status: 0 });
    for (const [name, bitmaps] of [
      ['one', ['b0']],
      ['two', ['b0', 'b1']],
    ] as const) {
      img('create', '-f', 'qcow2', `${name}.qcow2`, '1M');
      for (const bitmap of bitmaps) img('bitmap', '--add', `${name}.qcow2`, bitmap);
    }
    const args = ['serve', '-k', 'b.sock', '--idle-timeout', '0.5', '-B', 'b0', '-B', 'b1', 'one.qcow2', 'two.qcow2'];
    const child = start(diskwright, args, folder);
    running.push(child);
    await once(child.stdout ?? child, 'data');
    const contexts = async (name: string) => {
      const uri = `nbd+unix:///${name}?socket=${path('b.sock')}`;
      const { stdout } = await runBeside('nbdinfo', ['--json', uri], folder);
      return JSON.parse(stdout).exports[0].contexts;
    };
    const [base, b0, b1] = ['base:allocation', 'qemu:dirty-bitmap:b0', 'qemu:dirty-bitmap:b1'];
    expect(await contexts('one.qcow2')).toEqual([base, b0]);
    expect(await contexts('two.qcow2')).toEqual([base, b0, b1]);
  });

  test('--handshake-timeout cuts off who chooses no export, --grace requests that take too long (N-21, N-81)', async () => {
    const limits = ['--object', 'throttle-group,id=g,x-bps-total=1', '--handshake-timeout', '0.3', '--grace', '0.05'];
    const image = 'driver=throttle,throttle-group=g,file.driver=raw,file.file.filename=disk.img';
    const child = start(diskwright, ['serve', '-r', '-k', 'times.sock', ...limits, '--image-opts', image], folder);
    running.push(child);
    let said = '';
    child.stderr?.on('data', (text) => {
      said += text;
    });
    await once(child.stdout ?? child, 'data');
    const silent = connect(path('times.sock'));
    silent.resume();
    await once(silent, 'close');
    expect(said).toBe('diskwright: option negotiation failed: it took too long\n');
    const client = connect(path('times.sock'));
    await once(client, 'data');
    client.write(Buffer.concat([clientFlags(3), optionFrame(1, new Uint8Array(0))]));
    await once(client, 'data');
    // The second waits for a day.
    for (let cookieLow = 0; cookieLow < 2; cookieLow++) {
      client.write(encodeRequest({ command: 0, flags: 0, cookieHigh: 0, cookieLow, offset: 0, length: 65536 }, false));
    }
    await once(client, 'data');
    client.resume();
    child.kill('SIGTERM');
    const [[status]] = await Promise.all([once(child, 'close'), once(client, 'close')]);
    expect(status).toBe(0);
  });

  test.each([
    [[], 'Expecting at least one image file name'],
    [['-k', 'a', '-p', '1', 'disk.img'], '--socket goes with neither --port nor --bind'],
    [['--tls-no-verify', 'disk.img'], '--tls-no-verify goes with --tls only'],
    [['--tls-authz', 'a', 'disk.img'], '--tls-authz goes with --tls or --tls-psk only'],
    [['--once', '-t', 'disk.img'], '--once and --persistent are mutually exclusive'],
    [['-x', 'a', '-x', 'b', 'disk.img'], 'There are more names than images'],
    [['-D', 'a', '-D', 'b', 'disk.img'], 'There are more descriptions than images'],
    [['--idle-timeout', 'x', 'disk.img'], "Invalid idle timeout 'x'"],
    [['--handshake-timeout', '-1', 'disk.img'], "Invalid handshake timeout '-1'"],
    [['--grace', '1s', 'disk.img'], "Invalid grace '1s'"],
    [['-B', 'none', '-f', 'raw', 'disk.img'], "Bitmap 'none' is not found"],
    [['-p', '65536', 'disk.img'], "Invalid port number '65536': not between 0 and 65535"],
    [['disk.img', './disk.img'], "Two images would have the export name 'disk.img': give them with --name"],
    [['--tls', 'nowhere', 'disk.img'], 'Unable to access credentials nowhere/ca-cert.pem: No such file or directory'],
  ])('%j is refused', (args, text) => {
    const { status, stderr } = run(diskwright, ['serve', ...args], folder);
    expect([status, stderr.split('\n')[0]]).toEqual([1, `diskwright: ${text}`]);
  });
});
