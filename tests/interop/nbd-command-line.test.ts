/** diskwright-nbd beside qemu-nbd: arguments, ready, ends (N-110 to N-118). */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { clientFlags, encodeRequest, optionFrame } from '../../src/nbd/wire.ts';
import { linkProgram } from './cli-programs.ts';
import { missing, type Outcome, run, runBeside, start, stop } from './nbd-programs.ts';

let folder: string;
let ours: string;
const running: ChildProcess[] = [];

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'diskwright-nbd-'));
  // Called by this name, our messages begin like theirs.
  ours = join(folder, 'qemu-nbd');
  await linkProgram('diskwright-nbd', ours);
  writeFileSync(join(folder, 'disk.img'), Buffer.alloc(1 << 20));
});
afterEach(async () => {
  for (const child of running.splice(0)) await stop(child, 'SIGKILL');
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const path = (name: string) => join(folder, name);

/** Our server, once its socket is there. */
async function serving(socket: string, ...args: string[]): Promise<ChildProcess> {
  const child = start(ours, ['-f', 'raw', '-k', path(socket), ...args, 'disk.img'], folder);
  running.push(child);
  await appeared(path(socket), child);
  return child;
}

async function appeared(file: string, child?: ChildProcess): Promise<void> {
  for (let tries = 0; !existsSync(file); tries++) {
    if (tries > 2000 || (child !== undefined && child.exitCode !== null)) throw new TypeError(`no ${file}`);
    await delay(5);
  }
}

const sizeAt = (socket: string, ...more: string[]) =>
  runBeside('nbdinfo', ['--size', ...more, `nbd+unix:///?socket=${path(socket)}`], folder);

const peer = missing('qemu-nbd');
const info = missing('nbdinfo');

describe.skipIf(peer !== '')(`refusals in qemu-nbd's words (N-117)${peer}`, () => {
  const long = 'a'.repeat(4097);
  /** A socket in the tests' folder: the port that is the default may be in use. */
  const KEY = ['-k', 'FOLDER/unused.sock'];
  test.each<string[]>(
    [
      [],
      ['a', 'b'],
      ['--bogus'],
      ['-e'],
      ['-e', 'x', 'disk.img'],
      ['-e', '-1', 'disk.img'],
      ['-o', 'zz', 'disk.img'],
      ['--cache=foo', 'disk.img'],
      ['-n', '--cache=none', 'disk.img'],
      ['--discard=foo', 'disk.img'],
      ['--discard=on', '--discard=off', 'disk.img'],
      ['--detect-zeroes=foo', 'disk.img'],
      ['--detect-zeroes=unmap', 'disk.img'],
      ['--aio=foo', 'disk.img'],
      ['--aio=threads', '--aio=io_uring', 'disk.img'],
      [...KEY, '--aio=native', '-f', 'raw', 'disk.img'],
      [...KEY, '--aio=native', '--cache=unsafe', '--image-opts', 'driver=raw,file.filename=disk.img'],
      [...KEY, '-o', '1048577', '-f', 'raw', 'disk.img'],
      [...KEY, '-o', '9223372036854775807', '-f', 'raw', 'disk.img'],
      [...KEY, '-o', '-9223372036854775809', '-f', 'raw', 'disk.img'],
      [...KEY, '-o', '-1', '-f', 'raw', 'disk.img'],
      [...KEY, '-o', '0x8000000000000000', '-f', 'raw', 'disk.img'],
      [...KEY, '-o', '-1', '-f', 'raw', 'nonexist.img'],
      ['-o', '2000000000000000000000', 'disk.img'],
      ['-o', '1k', 'disk.img'],
      ['-b', 'no-such-host.invalid', '-f', 'raw', 'disk.img'],
      ['-b', '127.0.0.1', '-p', 'no-such-service', '-f', 'raw', 'disk.img'],
      ['-b', '127.0.0.1', '-p', '0x2a39', '-f', 'raw', 'disk.img'],
      ['-k', `/tmp/${'s'.repeat(110)}`, '-f', 'raw', 'disk.img'],
      [...KEY, '-f', 'foo', 'disk.img'],
      [...KEY, '-f', 'raw', 'nonexist.img'],
      [...KEY, '-l', 'x', '-f', 'raw', 'disk.img'],
      ['-l', 'snapshot.foo=1', '-f', 'raw', 'disk.img'],
      [...KEY, '--fork', '-f', 'raw', 'nonexist.img'],
      ['-k', 'rel.sock', 'disk.img'],
      ['-x', long, 'disk.img'],
      ['-D', long, 'disk.img'],
      [...KEY, '-B', 'foo', '-f', 'raw', 'disk.img'],
      ['--tls-creds', 'x', 'disk.img'],
      ['--tls-authz', 'x', 'disk.img'],
      ['--tls-hostname', 'x', 'disk.img'],
      ['--object', 'foo', 'disk.img'],
      ['--object', 'tls-creds-x509,id=x,dir=/nonexist,endpoint=server', '-f', 'raw', 'disk.img'],
      ['--object', 'tls-creds-psk,id=x,dir=/nonexist,endpoint=server', '--tls-creds', 'x', '-f', 'raw', 'disk.img'],
      ['--object', 'tls-creds-psk,id=x,dir=/nonexist,verify-peer=2', '-L'],
      ['--object', 'authz-simple,id=x,identity=a', '--tls-creds', 'x', '-f', 'raw', 'disk.img'],
      [...KEY, '--image-opts', '-f', 'raw', 'driver=raw'],
      ['-k', '/nonexist/q.sock', '-f', 'raw', 'disk.img'],
      ['-L', 'disk.img'],
      ['-L', '-x', 'a'],
      ['-L', '-o', '5'],
      ['-L', '-f', 'raw'],
      ['-L', '-A'],
      ['-L', '-B', 'x'],
      ['-L', '-n'],
      ['-L', '--fork'],
      ['-L', '-k', 'rel.sock'],
      ['-L', '-b', '127.0.0.1', '-p', 'no-such-service'],
      ['-L', '-k', '/nonexist/q.sock'],
      ['-L', '--tls-creds', 'x'],
    ].map((words) => [words] as never),
  )('%j', async (...given) => {
    const words = (given[0] as unknown as string[]).map((word) => word.replace('FOLDER', folder));
    const same = ({ status, stdout, stderr }: Outcome) => ({ status, stdout, stderr });
    expect(same(run(ours, words, folder))).toEqual(same(run('qemu-nbd', words, folder)));
  });

  test('help has every option, spelled alike; the version is one of QEMU', () => {
    const options = (text: string) => [...text.matchAll(/^ +(-.*?)(?: {2,}|$)/gm)].map(([, label]) => label?.trim());
    const wanted = options(run('qemu-nbd', ['--help'], folder).stdout).filter((label) => !label?.includes('selinux'));
    const spelled = (label = '') => label.match(/--[a-z-]+(?:[= ][A-Z_a-z,=.]+)?/)?.[0].split(' [')[0];
    const have = options(run(ours, ['--help'], folder).stdout).map(spelled);
    const names = (label: string | undefined) => label?.split(/[= ]/)[0];
    expect(wanted.map(spelled).filter((label) => !have.some((each) => names(each) === names(label)))).toEqual([]);
    expect(wanted.map(spelled).filter((label) => label?.includes('=') && !have.includes(label))).toEqual([]);
    expect(run(ours, ['-V'], folder).stdout).toMatch(/^qemu-nbd \d+\.\d+\.\d+ \(diskwright /);
  });
});

const kit = missing('qemu-nbd', 'nbdkit');
test.skipIf(kit !== '').each(['--no-sr memory 1M', 'memory 1M', 'file disk.img'])(
  `-L lists what qemu-nbd lists of nbdkit %s (N-118)${kit}`,
  (server) => {
    const list = (program: string) =>
      run('nbdkit', ['-U', '-', ...server.split(' '), '--run', `${program} -L -k $unixsocket`], folder);
    const theirs = list('qemu-nbd');
    expect(theirs).toMatchObject({ status: 0, stderr: '' });
    expect(list(ours)).toEqual(theirs);
  },
);

test('kernel devices are refused (N-110)', () => {
  for (const words of [
    ['-c', '/dev/nbd0', 'disk.img'],
    ['-d', '/dev/nbd0'],
  ]) {
    expect(run(ours, words, folder)).toMatchObject({ status: 1, stderr: expect.stringContaining('nbd-client') });
  }
});

test('ports above 65535 (N-115)', () => {
  expect(run(ours, ['-p', '99999', '-f', 'raw', 'disk.img'], folder)).toMatchObject({ status: 1, stdout: '' });
});

describe.skipIf(info !== '')(`ready and ended${info}`, () => {
  test('ends with the last client that reached transmission; listing does not end it (N-112)', async () => {
    const child = await serving('once.sock');
    const uri = `nbd+unix:///?socket=${path('once.sock')}`;
    expect((await runBeside(ours, ['-L', '-k', path('once.sock')], folder)).status).toBe(0);
    expect(child.exitCode).toBeNull();
    const ended = once(child, 'exit');
    expect((await runBeside('nbdcopy', [uri, 'null:'], folder)).status).toBe(0);
    expect(await ended).toEqual([0, null]);
    expect(existsSync(path('once.sock'))).toBe(false);
  });

  test('ends by a signal also while a server whose disk it is to serve says nothing (N-136)', async () => {
    await using mute = createServer((socket) => socket.resume());
    await once(mute.listen(path('mute.sock')), 'listening');
    const uri = `nbd+unix:///?socket=${path('mute.sock')}`;
    const child = start(ours, ['-f', 'raw', '-k', path('never.sock'), uri], folder);
    running.push(child);
    const said = child.stderr?.toArray();
    await once(mute, 'connection');
    child.kill('SIGINT');
    expect([await once(child, 'close'), await said]).toEqual([[null, 'SIGINT'], []]);
  });

  test('persistent until it is told to end; then its files are gone, and it says nothing (N-81, N-113)', async () => {
    const child = await serving('long.sock', '-t', '--pid-file', path('pid'));
    let said = '';
    child.stderr?.on('data', (text: Buffer) => {
      said += text;
    });
    await appeared(path('pid'), child);
    expect(readFileSync(path('pid'), 'utf8')).toBe(`${child.pid}\n`);
    expect(statSync(path('pid')).mode & 0o777).toBe(0o600);
    expect(statSync(path('long.sock')).mode & 0o777).toBe(0o600);
    for (let each = 0; each < 2; each++) expect((await sizeAt('long.sock')).stdout).toBe(`${1 << 20}\n`);
    expect(await stop(child)).toBe(0);
    expect([said, existsSync(path('pid')), existsSync(path('long.sock'))]).toEqual(['', false, false]);
  });

  test('a second signal ends it at once, whatever is under way (N-81)', async () => {
    const limits = ['--object', 'throttle-group,id=g,x-bps-total=1', '--grace', '3600', '--image-opts'];
    const image = 'driver=throttle,throttle-group=g,file.driver=raw,file.file.filename=disk.img';
    const args = ['-r', '-t', '-k', path('slow.sock'), '--pid-file', path('slow.pid'), image];
    const child = start(ours, [...limits, ...args], folder);
    running.push(child);
    await appeared(path('slow.pid'), child);
    const client = connect(path('slow.sock'));
    await once(client, 'data');
    client.write(Buffer.concat([clientFlags(3), optionFrame(1, new Uint8Array(0))]));
    await once(client, 'data');
    // The second waits for a day.
    for (let cookieLow = 0; cookieLow < 2; cookieLow++) {
      client.write(encodeRequest({ command: 0, flags: 0, cookieHigh: 0, cookieLow, offset: 0, length: 65536 }, false));
    }
    await once(client, 'data');
    const exited = once(child, 'exit');
    child.kill('SIGTERM');
    for (let tries = 0; existsSync(path('slow.sock')) && tries < 2000; tries++) await delay(5);
    expect(child.exitCode).toBeNull();
    // What comes in the same moment may be the same signal.
    const again = setInterval(() => child.kill('SIGTERM'), 50);
    expect(await exited).toEqual([null, 'SIGTERM']);
    clearInterval(again);
    client.destroy();
  });

  test('a pid file that is another process by now is left (N-113)', async () => {
    const child = await serving('own.sock', '-t', '--pid-file', path('own.pid'));
    await appeared(path('own.pid'), child);
    writeFileSync(path('own.pid'), '1\n');
    await stop(child);
    expect(readFileSync(path('own.pid'), 'utf8')).toBe('1\n');
  });

  test('--fork: back when clients can connect, with nothing to say; the pid file names the server (N-113)', async () => {
    const args = ['--fork', '-t', '--pid-file', path('fork.pid'), '-f', 'raw', '-k', path('fork.sock'), 'disk.img'];
    expect(run(ours, args, folder)).toEqual({ status: 0, stdout: '', stderr: '' });
    const pid = Number(readFileSync(path('fork.pid'), 'utf8'));
    try {
      expect((await sizeAt('fork.sock')).stdout).toBe(`${1 << 20}\n`);
    } finally {
      process.kill(pid, 'SIGTERM');
    }
    for (let tries = 0; existsSync(path('fork.pid')) && tries < 2000; tries++) await delay(5);
    expect(existsSync(path('fork.pid'))).toBe(false);
  });

  test('a dead socket is replaced; a live one and a file are not (N-114)', async () => {
    const dead = await serving('stale.sock', '-t');
    await stop(dead, 'SIGKILL');
    const live = await serving('stale.sock', '-t', '-r');
    // The dead one's file was there from the start.
    for (let tries = 0; (await sizeAt('stale.sock')).status !== 0; tries++) expect(tries).toBeLessThan(500);
    const second = await runBeside(ours, ['-r', '-f', 'raw', '-k', path('stale.sock'), 'disk.img'], folder);
    expect(second.stderr).toBe(`qemu-nbd: Failed to bind socket to ${path('stale.sock')}: Address already in use\n`);
    expect((await sizeAt('stale.sock')).stdout).toBe(`${1 << 20}\n`);
    await stop(live);
    writeFileSync(path('file'), 'precious');
    expect((await runBeside(ours, ['-r', '-f', 'raw', '-k', path('file'), 'disk.img'], folder)).status).toBe(1);
    expect(readFileSync(path('file'), 'utf8')).toBe('precious');
  });

  test('both families of the loopback, and nothing else, by default (N-115)', async () => {
    const port = await freePort();
    const child = start(ours, ['-t', '-r', '-p', String(port), '-f', 'raw', 'disk.img'], folder);
    running.push(child);
    let outcome: Outcome = { status: 1, stdout: '', stderr: '' };
    for (let tries = 0; outcome.status !== 0 && tries < 100; tries++) {
      outcome = await runBeside('nbdinfo', ['--size', `nbd://127.0.0.1:${port}`], folder);
    }
    expect(outcome.stdout).toBe(`${1 << 20}\n`);
    if (
      spawnSync('sh', [
        '-c',
        'test -f /proc/net/if_inet6 && grep -q ^00000000000000000000000000000001 /proc/net/if_inet6',
      ]).status === 0
    ) {
      expect((await runBeside('nbdinfo', ['--size', `nbd://[::1]:${port}`], folder)).status).toBe(0);
    }
    const again = await runBeside(ours, ['-r', '-p', String(port), '-f', 'raw', 'disk.img'], folder);
    expect(again.stderr).toBe('qemu-nbd: Failed to find an available port: Address already in use\n');
  });

  test('an address of all machines is warned of, once (N-115)', async () => {
    const child = start(ours, ['-t', '-r', '-b', '0.0.0.0', '-p', '0', '-f', 'raw', 'disk.img'], folder);
    running.push(child);
    const [text] = await once(child.stderr ?? child, 'data');
    expect(String(text)).toMatch(/^qemu-nbd: warning: '0\.0\.0\.0' may be reached from other machines[^\n]*\n$/);
  });

  test('socket activation (N-116)', async () => {
    const args = ['--size', '--', '[', ours, '-r', '-f', 'raw', 'disk.img', ']'];
    expect(await runBeside('nbdinfo', args, folder)).toMatchObject({ status: 0, stdout: `${1 << 20}\n` });
  });

  test('socket activation goes on to the child of --fork, which nobody else is served by (N-113, N-116)', async () => {
    const args = ['--size', '--', '[', ours, '--fork', '-r', '-f', 'raw', '--pid-file', path('a.pid'), 'disk.img', ']'];
    expect(await runBeside('nbdinfo', args, folder)).toMatchObject({ status: 0, stdout: `${1 << 20}\n` });
    // It ends with its only client.
    for (let tries = 0; existsSync(path('a.pid')); tries++) {
      expect(tries).toBeLessThan(2000);
      await delay(5);
    }
  });

  test('socket activation without a socket (N-116)', () => {
    const command = 'LISTEN_PID=$$ LISTEN_FDS=1 exec ./qemu-nbd -r -f raw disk.img 3</dev/null';
    const stderr = 'qemu-nbd: Socket activation failed: descriptor 3 is not a socket\n';
    expect(run('bash', ['-c', command], folder)).toMatchObject({ status: 1, stderr });
  });

  test.each([
    ['1', '-k /tmp/x', "qemu-nbd: Unix socket can't be set when using socket activation\n"],
    ['1', '-p 99', "qemu-nbd: TCP port number can't be set when using socket activation\n"],
    ['1', '-b localhost', "qemu-nbd: The interface can't be set when using socket activation\n"],
    ['2', '', 'qemu-nbd: qemu-nbd does not support socket activation with LISTEN_FDS > 1\n'],
  ])('socket activation that cannot be: %s %s (N-116)', (count, words, text) => {
    const command = `LISTEN_PID=$$ LISTEN_FDS=${count} exec ./qemu-nbd ${words} -f raw disk.img`;
    expect(run('bash', ['-c', command], folder)).toMatchObject({ status: 1, stderr: text });
  });

  test("another process's activation is ignored (N-116)", async () => {
    const args = ['-f', 'raw', '-k', path('other.sock'), '-t', 'disk.img'];
    const command = `LISTEN_PID=1 LISTEN_FDS=1 exec ./qemu-nbd ${args.join(' ')}`;
    const child = start('bash', ['-c', command], folder);
    running.push(child);
    await appeared(path('other.sock'), child);
    expect((await sizeAt('other.sock')).status).toBe(0);
  });

  test('several exports, one of them the default (N-110)', async () => {
    writeFileSync(path('two.img'), Buffer.alloc(2 << 20));
    await serving(
      'two.sock',
      '-t',
      '-x',
      'one',
      '--export',
      'name=two,file=two.img,format=raw,description=second',
      '--export',
      'name=part,offset=512,size=1024',
      '--default-export',
      'two',
    );
    const listed = JSON.parse(
      (await runBeside('nbdinfo', ['--list', '--json', `nbd+unix:///?socket=${path('two.sock')}`], folder)).stdout,
    );
    const facts = listed.exports.map((each: Record<string, unknown>) => [each['export-name'], each['export-size']]);
    expect(facts).toEqual([
      ['one', 1 << 20],
      ['two', 2 << 20],
      ['part', 1024],
    ]);
    expect((await sizeAt('two.sock')).stdout).toBe(`${2 << 20}\n`);
  });

  const copy = missing('nbdcopy', 'qemu-nbd');
  test.skipIf(copy !== '')(
    `a sparse copy stays sparse, whether or not trims are passed on, as with qemu-nbd (N-47)${copy}`,
    async () => {
      writeFileSync(path('sparse.img'), Buffer.alloc(1 << 16, 7));
      truncateSync(path('sparse.img'), 4 << 20);
      const blocks: number[] = [];
      for (const program of [ours, '/usr/bin/env qemu-nbd']) {
        for (const words of [[], ['--discard=ignore'], ['--discard=unmap']]) {
          rmSync(path('target.img'), { force: true });
          writeFileSync(path('target.img'), '');
          truncateSync(path('target.img'), 4 << 20);
          const server = ['[', ...program.split(' '), ...words, '-f', 'raw', 'target.img', ']'];
          const { status, stderr } = await runBeside('nbdcopy', ['--', 'sparse.img', ...server], folder);
          expect([status, stderr]).toEqual([0, '']);
          expect(readFileSync(path('target.img')).equals(readFileSync(path('sparse.img')))).toBe(true);
          blocks.push(statSync(path('target.img')).blocks);
        }
      }
      // Some file systems take a few more for themselves.
      for (const each of blocks) expect(each).toBeLessThan((1 << 20) / 512);
    },
  );

  test('--stdio serves one client (N-110)', async () => {
    writeFileSync(path('in.bin'), Buffer.concat([clientFlags(3), optionFrame(2, new Uint8Array(0))]));
    expect(run('sh', ['-c', './qemu-nbd -r --stdio -f raw disk.img < in.bin > out.bin'], folder).status).toBe(0);
    expect(readFileSync(path('out.bin')).length).toBe(18 + 20);
  });

  test('--stdio is no socket; its pid file is there as long as the client (N-110, N-113)', async () => {
    for (const words of [['--fork'], ['-k', '/tmp/x'], ['-p', '1'], ['-b', '::1']]) {
      const { status, stderr } = run(ours, ['-r', '--stdio', ...words, '-f', 'raw', 'disk.img'], folder);
      expect([status, stderr]).toEqual([
        1,
        expect.stringMatching(/^qemu-nbd: --stdio is incompatible with --[a-z]+\n$/),
      ]);
    }
    expect(run(ours, ['-L', '--stdio'], folder).status).toBe(1);
    const args = ['-r', '--stdio', '--pid-file', 'stdio.pid', '-f', 'raw', 'disk.img'];
    const child = spawn(ours, args, { cwd: folder, stdio: 'pipe' });
    running.push(child);
    await once(child.stdout, 'data');
    expect(readFileSync(path('stdio.pid'), 'utf8')).toBe(`${child.pid}\n`);
    child.stdin.end();
    expect(await once(child, 'exit')).toEqual([0, null]);
    expect(existsSync(path('stdio.pid'))).toBe(false);
  });

  test('a client killed in the middle of a write harms nobody', async () => {
    const child = await serving('kill.sock', '-t', '-e', '0');
    const writer = start(
      'qemu-io',
      [
        '-f',
        'raw',
        ...Array.from({ length: 50 }, () => ['-c', 'aio_write -q 0 1M']).flat(),
        `nbd+unix:///?socket=${path('kill.sock')}`,
      ],
      folder,
    );
    writer.on('error', () => {});
    await delay(20);
    writer.kill('SIGKILL');
    expect((await sizeAt('kill.sock')).status).toBe(0);
    expect(child.exitCode).toBeNull();
  });
});

async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' && address !== null ? address.port : 0;
}
