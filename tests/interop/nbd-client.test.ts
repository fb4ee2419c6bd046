/** Our NBD client with the servers that people have: qemu-nbd and nbdkit, plain and with TLS (N-100 to N-106, N-130 to N-138). */
import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Disk } from '../../src/core/disk.ts';
import { Graph } from '../../src/core/graph.ts';
import type { NestedOptions } from '../../src/core/options.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { map } from '../../src/jobs/map.ts';
import { NbdClient } from '../../src/nbd/client/client.ts';
import { tlsCredentials } from '../../src/nbd/client/credentials.ts';
import { clientTls, loadPsk, loadX509, nodeHost } from '../../src/node/index.ts';
import { makeCertificates, makePsk, startServer, stopServer } from './nbd-peers.ts';
import { missing, run } from './nbd-programs.ts';

const MIB = 1 << 20;
const SIZE = 8 * MIB;
let folder: string;
let content: Buffer;
const running: ChildProcess[] = [];
let sockets = 0;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'diskwright-nbd-'));
  content = Buffer.alloc(SIZE);
  randomBytes(MIB).copy(content, 3 * MIB);
});
afterEach(async () => {
  for (const child of running.splice(0)) await stopServer(child);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function newSocket(): string {
  return join(folder, `${++sockets}.sock`);
}

function newImage(): string {
  const path = join(folder, `${sockets}.img`);
  writeFileSync(path, content);
  return path;
}

async function qemuNbd(...args: string[]): Promise<{ readonly socket: string; readonly image: string }> {
  const socket = newSocket();
  const image = newImage();
  running.push(
    await startServer('qemu-nbd', ['-t', '-e', '8', '-k', socket, '-f', 'raw', '-x', 'e', ...args, image], socket),
  );
  return { socket, image };
}

/** `memory` or `file=…`, with filters and options before it. */
async function nbdkit(...args: string[]): Promise<string> {
  const socket = newSocket();
  running.push(await startServer('nbdkit', ['-f', '-U', socket, ...args], socket));
  return socket;
}

const host = nodeHost({ warn: () => {}, allowNamedKeys: true });

async function open(options: NestedOptions | string, writable = true): Promise<Disk> {
  const graph = new Graph({ host, drivers: DRIVERS });
  return graph.open(typeof options === 'string' ? options : { driver: 'nbd', ...options }, { writable });
}

/** Changes of every kind, and what a plain array says of them. */
async function exercise(disk: Disk): Promise<void> {
  const model = Buffer.from(content.subarray(0, disk.length));
  const check = async () => {
    const read = Buffer.alloc(disk.length);
    await disk.read(0, read);
    expect(Buffer.compare(read, model)).toBe(0);
  };
  await check();
  const data = randomBytes(200_000);
  await Promise.all([disk.write(1001, data), disk.write(5 * MIB + 7, data.subarray(0, 77))]);
  data.copy(model, 1001);
  data.copy(model, 5 * MIB + 7, 0, 77);
  await disk.writeZeroes(100_000, 300_000, { unmap: true });
  model.fill(0, 100_000, 400_000);
  await disk.writeZeroes(3 * MIB + 5, 1000);
  model.fill(0, 3 * MIB + 5, 3 * MIB + 1005);
  await disk.flush();
  await check();
  await disk.discard(0, 65536);
  await disk.flush();
}

async function extentsOf(disk: Disk): Promise<(readonly [number, number, boolean])[]> {
  const found: (readonly [number, number, boolean])[] = [];
  for await (const batch of map(disk)) for (const { start, length, zero } of batch) found.push([start, length, zero]);
  return found;
}

const noQemu = missing('qemu-nbd');
describe.skipIf(noQemu !== '')(`qemu-nbd${noQemu}`, () => {
  test('reads, writes, zeroes, discards, flushes', async () => {
    const { socket } = await qemuNbd();
    const disk = await open(`nbd+unix:///e?socket=${socket}`);
    expect(disk.length).toBe(SIZE);
    await exercise(disk);
    await disk.close();
  });

  test('status of a sparse image (N-133)', async () => {
    const { socket } = await qemuNbd('-r');
    await using disk = await open({ path: socket, export: 'e' }, false);
    const runs = await extentsOf(disk);
    expect(runs.reduce((sum, [, length]) => sum + length, 0)).toBe(SIZE);
    for (const [start, length, zero] of runs) {
      if (zero) expect(content.subarray(start, start + length).every((byte) => byte === 0)).toBe(true);
    }
  });

  test('an unknown export, and a read-only one (N-130, N-131)', async () => {
    const { socket } = await qemuNbd('-r');
    await expect(open({ path: socket, export: 'f' })).rejects.toThrow(
      "Requested export not available\nserver reported: export 'f' not present",
    );
    await expect(open({ path: socket, export: 'e' })).rejects.toMatchObject({ code: 'EACCES' });
  });

  test('several connections to one image see each other (N-132)', async () => {
    const { socket } = await qemuNbd();
    const client = await NbdClient.open({
      clock: host.clock,
      connect: (signal) =>
        host.connect?.({ type: 'unix', path: socket }, { signal }) ?? Promise.reject(new TypeError()),
      handshake: { export: 'e', contexts: [] },
    });
    for (let round = 0; round < 40 && client.connectionCount < 4; round++) {
      const offsets = Array.from({ length: 64 }, (_, index) => index * 4096);
      const pieces = offsets.map(() => randomBytes(4096));
      await Promise.all(offsets.map((offset, index) => client.write(offset, pieces[index] ?? Buffer.alloc(0))));
      const back = new Uint8Array(64 * 4096);
      await client.read(0, back);
      expect(Buffer.compare(back, Buffer.concat(pieces))).toBe(0);
    }
    expect(client.connectionCount).toBe(4);
    await client.flush();
    await client.close();
  });

  test('killed in the middle of writing, and started anew (N-138)', async () => {
    const { socket, image } = await qemuNbd();
    await using disk = await open({ path: socket, export: 'e', 'reconnect-delay': 30 });
    const data = randomBytes(SIZE);
    const writes: Promise<void>[] = [];
    for (let at = 0; at < SIZE; at += 65536) writes.push(disk.write(at, data.subarray(at, at + 65536)));
    await writes[0];
    const [server] = running.splice(0);
    if (server !== undefined) await stopServer(server, 'SIGKILL');
    rmSync(socket, { force: true });
    const again = ['-t', '-e', '8', '-k', socket, '-f', 'raw', '-x', 'e', image];
    running.push(await startServer('qemu-nbd', again, socket));
    await Promise.all(writes);
    const back = Buffer.alloc(SIZE);
    await disk.read(0, back);
    expect(Buffer.compare(back, data)).toBe(0);
    // Some writes may have been answered by the one that is gone.
    await disk.flush().catch((error: unknown) => expect(error).toMatchObject({ code: 'EIO' }));
    await disk.flush();
    expect(Buffer.compare(readFileSync(image), data)).toBe(0);
  });

  test('waited for at opening (N-137)', async () => {
    const socket = newSocket();
    const image = newImage();
    const opening = open({ path: socket, export: 'e', 'open-timeout': 30 });
    running.push(await startServer('qemu-nbd', ['-t', '-e', '2', '-k', socket, '-f', 'raw', '-x', 'e', image], socket));
    await (await opening).close();
  });

  test('a descriptor that is no socket is refused as qemu-img does (N-6)', async () => {
    const theirs = 'driver=nbd,server.type=fd,server.str=9999';
    const message = "File descriptor '9999' is not a socket";
    const { stderr } = run('qemu-img', ['info', '--image-opts', theirs], folder);
    expect(stderr).toBe(`qemu-img: Could not open '${theirs}': ${message}\n`);
    const opening = open({ server: { type: 'fd', str: '9999' } });
    await expect(opening).rejects.toMatchObject({ code: 'EBADF', message });
  });

  test('TCP', async () => {
    const image = newImage();
    const { serve, open: openDisk } = await import('../../src/node/index.ts');
    const disk = await openDisk(image, { format: 'raw', writable: true });
    await using served = await serve(disk, { name: 'e' });
    const remote = await open(served.uri);
    await exercise(remote);
    await remote.close();
    await disk.close();
  });
});

const noNbdkit = missing('nbdkit');
describe.skipIf(noNbdkit !== '')(`nbdkit${noNbdkit}`, () => {
  const SERVERS: Readonly<Record<string, readonly string[]>> = {
    plain: ['memory', String(SIZE)],
    'without structured replies': ['--no-sr', 'memory', String(SIZE)],
    'without fixed newstyle': ['--mask-handshake=0', 'memory', String(SIZE)],
    'with blocks of 4096 to 65536 bytes': [
      '--filter=blocksize-policy',
      'memory',
      String(SIZE),
      'blocksize-minimum=4096',
      'blocksize-preferred=65536',
      'blocksize-maximum=65536',
      'blocksize-error-policy=error',
    ],
    'answering out of order': ['--filter=delay', 'memory', String(SIZE), 'rdelay=1ms', 'wdelay=2ms'],
    'without zero writes': ['--filter=nozero', 'memory', String(SIZE)],
  };
  test.each(Object.entries(SERVERS))('%s', async (_name, args) => {
    const socket = await nbdkit(...args);
    await using disk = await open(`nbd+unix:///?socket=${socket}`);
    expect(disk.length).toBe(SIZE);
    await disk.write(0, content);
    await exercise(disk);
  });

  test('limits of blocksize-policy (N-131)', async () => {
    const socket = await nbdkit(...(SERVERS['with blocks of 4096 to 65536 bytes'] ?? []));
    await using disk = await open({ path: socket });
    expect(disk.node.limits).toMatchObject({
      requestAlign: 4096,
      transferMax: 65536,
      zeroMax: 65536,
      preferred: 65536,
    });
  });

  test('the oldstyle handshake is not spoken (N-13)', async () => {
    const socket = await nbdkit('-o', 'memory', '1M');
    await expect(open({ path: socket })).rejects.toThrow('Server speaks only the oldstyle NBD handshake');
  });

  test('errors keep their numbers and fail only their request (N-68)', async () => {
    const socket = await nbdkit('--filter=error', 'memory', '1M', 'error-pread=ENOMEM', 'error-pread-rate=100%');
    await using disk = await open({ path: socket });
    const target = new Uint8Array(512).fill(7);
    await expect(disk.read(0, target)).rejects.toMatchObject({ code: 'ENOMEM' });
    expect(target).toEqual(new Uint8Array(512));
    await disk.write(0, target);
  });

  test('writes and zeroes that must be durable: the server is told, and need not be asked to flush (N-40)', async () => {
    const socket = await nbdkit('--filter=log', 'memory', '1M', `logfile=${join(folder, 'fua.log')}`);
    await using disk = await open({ path: socket });
    await disk.write(4096, new Uint8Array(512).fill(1), { fua: true });
    await disk.writeZeroes(8192, 4096, { fua: true });
    await disk.write(0, new Uint8Array(512).fill(1));
    const log = readFileSync(join(folder, 'fua.log'), 'utf8');
    expect(log.match(/(Write|Zero|Flush) id=\d+ offset=\S+ count=\S+ .*fua=\d|Flush id/g)).toEqual([
      expect.stringMatching(/^Write .* offset=0x1000 .* fua=1$/),
      expect.stringMatching(/^Zero .* offset=0x2000 .* fua=1$/),
      expect.stringMatching(/^Write .* offset=0x0 .* fua=0$/),
    ]);
  });

  test('holes (N-133)', async () => {
    const socket = await nbdkit('data', 'size=1M', 'data=@0x80000 1*65536');
    await using disk = await open({ path: socket }, false);
    expect(await extentsOf(disk)).toEqual([
      [0, 524_288, true],
      [524_288, 65_536, false],
      [589_824, 458_752, true],
    ]);
  });
});

const noTls = missing('qemu-nbd', 'nbdkit', 'psktool', 'certtool');
describe.skipIf(noTls !== '')(`TLS${noTls}`, () => {
  let psk: string;
  let pki: string;
  let foreign: string;
  beforeAll(async () => {
    psk = makePsk(folder);
    pki = makeCertificates(folder, 'pki');
    foreign = makeCertificates(folder, 'foreign');
    tlsCredentials(host).set('psk', async () =>
      clientTls(await loadPsk(psk, { endpoint: 'client', username: 'alice' })),
    );
    tlsCredentials(host).set('x509', async () => clientTls(await loadX509(pki, { endpoint: 'client' })));
    tlsCredentials(host).set('foreign', async () => clientTls(await loadX509(foreign, { endpoint: 'client' })));
    tlsCredentials(host).set('trusting', async () =>
      clientTls(await loadX509(foreign, { endpoint: 'client', verifyPeer: false })),
    );
  });

  test('shared keys with qemu-nbd (N-101, N-102)', async () => {
    const { socket } = await qemuNbd('--object', `tls-creds-psk,id=t,endpoint=server,dir=${psk}`, '--tls-creds', 't');
    const disk = await open({ path: socket, export: 'e', 'tls-creds': 'psk' });
    await exercise(disk);
    await disk.close();
    await expect(open({ path: socket, export: 'e' })).rejects.toMatchObject({
      message: 'TLS negotiation required before option 7 (go)',
      hint: 'Did you forget a valid tls-creds?\nserver reported: Option 0x7 not permitted before TLS',
    });
  });

  test('shared keys with nbdkit, by a URI (N-4)', async () => {
    const socket = await nbdkit('--tls=require', `--tls-psk=${psk}/keys.psk`, 'memory', String(SIZE));
    const uri = `nbds+unix://alice@?socket=${socket}&tls-psk-file=${psk}/keys.psk`;
    await using disk = await open(uri);
    expect(disk.filename).toBe(uri);
    await disk.write(0, content);
    await exercise(disk);
    await expect(open(`nbds+unix://bob@/?socket=${socket}&tls-psk-file=${psk}/keys.psk`)).rejects.toThrow(
      `Username bob not found in PSK file ${psk}/keys.psk`,
    );
    const strict = new Graph({ host: nodeHost(), drivers: DRIVERS });
    await expect(strict.open(uri, {})).rejects.toMatchObject({ code: 'EACCES' });
  });

  const x509 = () => ['--object', `tls-creds-x509,id=t,endpoint=server,dir=${pki}`, '--tls-creds', 't'];

  test('certificates with qemu-nbd (N-101, N-106)', async () => {
    const { socket } = await qemuNbd(...x509());
    const disk = await open({ path: socket, export: 'e', 'tls-creds': 'x509', 'tls-hostname': 'localhost' });
    await exercise(disk);
    await disk.close();
    await expect(open({ path: socket, export: 'e', 'tls-creds': 'x509' })).rejects.toThrow(
      /^No hostname for certificate validation$/,
    );
    await expect(open({ path: socket, export: 'e', 'tls-creds': 'x509', 'tls-hostname': 'other' })).rejects.toThrow(
      /^Certificate does not match the hostname other$/,
    );
    await expect(
      open({ path: socket, export: 'e', 'tls-creds': 'foreign', 'tls-hostname': 'localhost' }),
    ).rejects.toMatchObject({ code: 'EACCES' });
    // It trusts anyone, but the server does not.
    await expect(open({ path: socket, export: 'e', 'tls-creds': 'trusting' })).rejects.toBeDefined();
  });

  test('certificates with nbdkit, by a URI (N-4)', async () => {
    const socket = await nbdkit('--tls=require', `--tls-certificates=${pki}`, 'memory', String(SIZE));
    const uri = `nbds+unix:///?socket=${socket}&tls-certificates=${pki}&tls-hostname=localhost`;
    await using disk = await open(uri);
    await disk.write(0, content);
    await exercise(disk);
    const loose = await open(`nbds+unix:///?socket=${socket}&tls-certificates=${foreign}&tls-verify-peer=0`);
    await loose.close();
  });

  test('never plain text once TLS was asked for (N-106)', async () => {
    const { socket } = await qemuNbd();
    await expect(open({ path: socket, export: 'e', 'tls-creds': 'psk' })).rejects.toThrow(
      'Denied by server for option 5 (starttls)\nserver reported: TLS not configured',
    );
    const old = await nbdkit('--mask-handshake=0', 'memory', '1M');
    await expect(open({ path: old, 'tls-creds': 'psk' })).rejects.toThrow(/does not know TLS/);
  });

  test('lost and found again with TLS (N-138)', async () => {
    const { socket, image } = await qemuNbd(...x509());
    const options = { 'tls-creds': 'x509', 'tls-hostname': 'localhost', 'reconnect-delay': 30 };
    await using disk = await open({ path: socket, export: 'e', ...options });
    const [server] = running.splice(0);
    if (server !== undefined) await stopServer(server, 'SIGKILL');
    rmSync(socket, { force: true });
    const reading = disk.read(3 * MIB, new Uint8Array(4096));
    const copy = join(folder, 'copy.img');
    copyFileSync(image, copy);
    const again = ['-t', '-e', '8', '-k', socket, '-f', 'raw', '-x', 'e', ...x509(), copy];
    running.push(await startServer('qemu-nbd', again, socket));
    await reading;
  });
});
