/** Driver nbd as the engine uses it: names, options, limits, status (N-4 to N-6, N-131, N-133), and other streams than sockets. */
import { MessageChannel } from 'node:worker_threads';
import { describe, expect, test } from 'vitest';
import { BlockError, errorText } from '../../src/core/errors.ts';
import { Graph } from '../../src/core/graph.ts';
import type { Host } from '../../src/core/host.ts';
import { openNode } from '../../src/core/open.ts';
import { holdStatus } from '../../src/core/status.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { map } from '../../src/jobs/map.ts';
import { tlsCredentials } from '../../src/nbd/client/credentials.ts';
import { type PortLike, portStream } from '../../src/nbd/port-stream.ts';
import { ChunkType, Command, CommandFlag, TransmissionFlag } from '../../src/nbd/protocol.ts';
import { settled } from '../support/nbd.ts';
import { bytes, type FakeExport, FakeServer, hostWith, Loopback } from '../support/nbd-client.ts';

const MIB = 1 << 20;
const { hasFlags, readOnly, sendTrim, sendWriteZeroes, sendFastZero } = TransmissionFlag;
const WRITABLE = hasFlags | sendTrim | sendWriteZeroes;
const BASE = [[1, 'base:allocation']] as const;

async function diskOf(exported: FakeExport, options = {}, how: { writable?: boolean } = { writable: true }) {
  const server = new FakeServer(exported);
  const host = hostWith(async () => server.clientEnd);
  const graph = new Graph({ host, drivers: DRIVERS });
  const opening = graph.open({ driver: 'nbd', path: '/s', ...options }, how);
  opening.catch(() => {});
  await server.shake();
  return { disk: await opening, server, host, graph };
}

/** Opening fails with the error. */
async function refusal(options: object, host: Host = hostWith(async () => new FakeServer().clientEnd)) {
  const graph = new Graph({ host, drivers: DRIVERS });
  return graph.open({ driver: 'nbd', ...options }, {}).then(
    () => undefined,
    (error: unknown) => error,
  );
}

describe('names (N-1, N-5)', () => {
  const NAMES = [
    ['nbd+unix:///e?socket=/s', 'nbd+unix:///e?socket=/s'],
    ['nbd:unix:/s:exportname=e', 'nbd+unix:///e?socket=/s'],
    ['NBD+UNIX:///e?socket=/s', 'nbd+unix:///e?socket=/s'],
    ['nbd://host/e', 'nbd://host:10809/e'],
    ['nbd://user@host/e', 'nbd://host:10809/e'],
    ['nbd:host:1:exportname=e', 'nbd://host:1/e'],
    ['json:{"driver":"nbd","server":{"type":"unix","path":"/s"},"export":"e"}', 'nbd+unix:///e?socket=/s'],
  ] as const;
  test.each(NAMES)('%s is shown as %s', async (name, shown) => {
    const loop = await Loopback.start(undefined, { export: { name: 'e' } });
    const disk = await loop.graph.open(name, name.startsWith('json:') ? {} : { format: 'raw' });
    expect(disk.filename).toBe(shown);
    await disk.close();
  });

  test('above a node that needs options, as these', async () => {
    const loop = await Loopback.start();
    const disk = await loop.graph.open({ driver: 'raw', offset: 512, file: { driver: 'nbd', path: '/s', export: '' } });
    expect(disk.filename).toBe(
      'json:{"offset": 512, "driver": "raw", "file": {"driver": "nbd", "path": "/s", "export": ""}}',
    );
    await disk.close();
  });

  test('a format is probed', async () => {
    const loop = await Loopback.start();
    const disk = await loop.graph.open('nbd+unix:///?socket=/s');
    expect(disk.node.driver.name).toBe('raw');
    await disk.close();
  });

  test('a prefix that nobody has', async () => {
    const loop = await Loopback.start();
    await expect(loop.graph.open('nbd+foo://h/', { format: 'raw' })).rejects.toThrow(/^Unknown protocol 'nbd\+foo'$/);
  });
});

describe('options and errors (N-6)', () => {
  test('a server that is not there', async () => {
    const host = hostWith(async () => {
      throw new BlockError('ENOENT', errorText('ENOENT'));
    });
    expect(await refusal({ path: '/none' }, host)).toMatchObject({
      code: 'ENOENT',
      message: "Failed to connect to '/none': No such file or directory",
    });
    expect(await refusal({ host: 'h', port: '7' }, host)).toMatchObject({
      message: "Failed to connect to 'h:7': No such file or directory",
    });
  });

  test('a host without network', async () => {
    const { connect: _connect, ...rest } = hostWith(async () => new FakeServer().clientEnd);
    expect(await refusal({ path: '/s' }, rest)).toMatchObject({ code: 'ENOTSUP' });
  });

  const BAD: readonly (readonly [object, string])[] = [
    [{ path: '/s', 'tls-creds': 'q' }, "No TLS credentials with id 'q'"],
    [{ path: '/s', tls: true }, 'This host has no TLS'],
    [{ path: '/s', 'tls-psk-file': 'k' }, 'Options for TLS need tls=on'],
    [{ path: '/s', export: 'a\0b' }, 'The name of an export holds a NUL'],
    [{ path: '/s', 'open-timeout': 'x' }, "Parameter 'open-timeout' expects a number"],
  ];
  test.each(BAD)('%j', async (options, message) => {
    expect(await refusal(options)).toMatchObject({ message });
  });

  test('credentials by id are asked for the host, or tls-hostname', async () => {
    const asked: unknown[] = [];
    const loop = await Loopback.start();
    tlsCredentials(loop.host).set('c', async () => ({
      kind: 'x509',
      async start(_stream, hostname) {
        asked.push(hostname);
        throw new BlockError('EACCES', 'not today');
      },
    }));
    const fake = async (options: object) => {
      const server = new FakeServer();
      const host = { ...loop.host, connect: async () => server.clientEnd };
      tlsCredentials(host).set('c', tlsCredentials(loop.host).get('c') as never);
      const opening = refusal({ ...options, 'tls-creds': 'c' }, host);
      await server.greet();
      await server.option();
      server.reply(5, 1);
      expect(await opening).toMatchObject({ message: 'not today' });
    };
    await fake({ host: 'disks.example' });
    await fake({ path: '/s' });
    await fake({ path: '/s', 'tls-hostname': 'other' });
    expect(asked).toEqual(['disks.example', undefined, 'other']);
  });

  test('files with keys that a name found inside an image names are never read (N-4, N-160)', async () => {
    const loads: unknown[] = [];
    const loop = await Loopback.start();
    const host: Host = { ...loop.host, clientTls: async (request) => Promise.reject(loads.push(request)) };
    const policy = { allow: () => true, probe: true, depthMax: 9 };
    const graph = new Graph({ host, drivers: DRIVERS, openPolicy: policy });
    const opening = openNode(graph, {
      filename: 'nbds://h/?tls-psk-file=/etc/keys',
      tree: {},
      options: { format: 'raw' },
      namedBy: 'image',
    });
    await expect(opening).rejects.toMatchObject({ code: 'EACCES', message: 'An image may not name files with keys' });
    expect(loads).toEqual([]);
    // By default, images lead to no server at all.
    const strict = openNode(new Graph({ host, drivers: DRIVERS }), {
      filename: 'nbd://h/',
      tree: {},
      options: { format: 'raw' },
      namedBy: 'image',
    });
    await expect(strict).rejects.toMatchObject({ code: 'EACCES' });
  });

  test('an export that is read-only', async () => {
    const loop = await Loopback.start(undefined, { export: { readOnly: true } });
    await expect(loop.open()).rejects.toMatchObject({
      code: 'EACCES',
      message: 'Could not open image: Permission denied',
    });
    const tree = { driver: 'nbd', path: '/s', 'auto-read-only': true };
    const node = await openNode(loop.graph, { filename: undefined, tree, options: { writable: true } });
    expect(node.writable).toBe(false);
    await loop.graph.unpin(node);
  });

  test('its size is its size', async () => {
    const loop = await Loopback.start();
    await using disk = await loop.open();
    await expect(disk.resize(2 * MIB, { exact: true })).rejects.toThrow(/^Cannot resize NBD nodes$/);
    await expect(disk.resize(2 * MIB)).rejects.toThrow(/^Cannot grow NBD nodes$/);
    await disk.resize(512, { shrink: true });
    expect(disk.length).toBe(MIB);
  });
});

describe('limits (N-131)', () => {
  test('of what the server advertises', async () => {
    const { disk } = await diskOf({ size: 10 * MIB, blockSize: [4096, 65536, 100_000], flags: WRITABLE });
    expect(disk.node.limits).toMatchObject({
      requestAlign: 4096,
      zeroAlign: 4096,
      transferMax: 98_304,
      zeroMax: 98_304,
      discardMax: 2 ** 30,
      preferred: 65536,
    });
    await disk.close();
  });

  test('of a server that advertises none, and of one that has none', async () => {
    const { disk } = await diskOf({ flags: WRITABLE });
    expect(disk.node.limits).toMatchObject({ requestAlign: 1, transferMax: 32 * MIB, zeroMax: 32 * MIB });
    await disk.close();
    const other = await diskOf({ flags: WRITABLE, blockSize: [1, 4096, 0xffffffff] });
    expect(other.disk.node.limits).toMatchObject({ requestAlign: 1, transferMax: 32 * MIB, zeroMax: 32 * MIB });
    await other.disk.close();
  });

  test('a size that is no multiple of the minimum is rounded down, with a warning', async () => {
    const { disk, host } = await diskOf({ size: 10_000, blockSize: [4096, 4096, 65536] });
    expect(disk.length).toBe(8192);
    expect(host.sim.warnings).toEqual(["warning: the last 1808 bytes of '/s' cannot be read: its blocks are longer"]);
    await disk.close();
  });

  test('a long trim that the server does not take is split, and that is remembered', async () => {
    const { disk, server } = await diskOf({ size: 2 ** 30, blockSize: [1, 4096, 65536], flags: WRITABLE });
    const first = disk.discard(0, 150_000);
    const long = await server.request();
    expect(long).toMatchObject({ command: Command.trim, offset: 0, length: 150_000 });
    server.simple(long, 22);
    for (const [offset, length] of [
      [0, 65536],
      [65536, 65536],
      [131_072, 18_928],
    ]) {
      const request = await server.request();
      expect(request).toMatchObject({ command: Command.trim, offset, length });
      server.simple(request);
    }
    await first;
    const second = disk.discard(0, 131_072);
    for (const offset of [0, 65536]) {
      const request = await server.request();
      expect(request).toMatchObject({ offset, length: 65536 });
      server.simple(request);
    }
    await second;
    await disk.close();
  });

  test('zero writes say whether storage may go, and whether they must be fast', async () => {
    const { disk, server } = await diskOf({ flags: WRITABLE | sendFastZero });
    const cases = [
      [{}, CommandFlag.noHole],
      [{ unmap: true }, 0],
      [{ noFallback: true }, CommandFlag.noHole | CommandFlag.fastZero],
    ] as const;
    for (const [how, flags] of cases) {
      const writing = disk.writeZeroes(0, 512, how);
      const request = await server.request();
      expect(request).toMatchObject({ command: Command.writeZeroes, flags, length: 512 });
      server.simple(request);
      await writing;
    }
    await disk.close();
    const slow = await diskOf({ flags: WRITABLE });
    await expect(slow.disk.writeZeroes(0, 512, { noFallback: true })).rejects.toMatchObject({ code: 'ENOTSUP' });
    await settled();
    expect(slow.server.input.length).toBe(0);
    await slow.disk.close();
  });

  test('what the server does not offer is not asked for (N-135)', async () => {
    const { disk, server } = await diskOf({ flags: hasFlags });
    await disk.discard(0, 512);
    await disk.flush();
    const zeroing = disk.writeZeroes(0, 16);
    const request = await server.request();
    expect(request).toMatchObject({ command: Command.write, length: 16 });
    server.simple(request);
    await zeroing;
    await disk.close();
  });

  test('strictness: refused before it is sent, unless told to send it', async () => {
    const loop = await Loopback.start({ driver: 'blkdebug', align: 4096, image: { driver: 'memory', size: MIB } });
    const client = await loop.client();
    const requests = () => loop.server.stats().requests;
    const refusals: readonly (readonly [() => Promise<unknown>, string, string])[] = [
      [
        () => client.read(MIB - 4096, new Uint8Array(8192)),
        'EINVAL',
        'The request ends at byte 1052672, the export at 1048576',
      ],
      [() => client.read(1, new Uint8Array(4096)), 'EINVAL', 'The request is not aligned to 4096 bytes'],
      [() => client.read(0, new Uint8Array(0)), 'EINVAL', 'The request is empty or no range'],
      [() => client.read(-4096, new Uint8Array(4096)), 'EINVAL', 'The request is empty or no range'],
    ];
    const before = requests();
    for (const [ask, code, message] of refusals) await expect(ask()).rejects.toMatchObject({ code, message });
    expect(requests()).toBe(before);
    await client.close();
    const loose = await loop.client({ strict: false });
    await expect(loose.read(MIB - 4096, new Uint8Array(8192))).rejects.toMatchObject({
      code: 'EINVAL',
      message: expect.stringContaining('operation past EOF; From: 1044480, Len: 8192, Size: 1048576'),
    });
    await loose.read(1, new Uint8Array(4096));
    await loose.close();
    const ro = await Loopback.start(undefined, { export: { readOnly: true } });
    const reader = await ro.client();
    await expect(reader.write(0, new Uint8Array(1))).rejects.toMatchObject({
      code: 'EPERM',
      message: 'The export is read-only',
    });
    await expect(reader.trim(0, 1)).rejects.toMatchObject({ code: 'EPERM' });
    await reader.close();
    const sloppy = await ro.client({ strict: false });
    await expect(sloppy.write(0, new Uint8Array(1))).rejects.toMatchObject({
      code: 'EPERM',
      message: 'Operation not permitted (server reported: Export is read-only)',
    });
    await sloppy.close();
  });
});

describe('status (N-133)', () => {
  const runs = (...list: readonly (readonly [number, number])[]) =>
    bytes(4 + 8 * list.length, (view) => {
      view.setUint32(0, 1);
      list.forEach(([length, flags], index) => {
        view.setUint32(4 + 8 * index, length);
        view.setUint32(8 + 8 * index, flags);
      });
    });

  test('what the flags mean', async () => {
    const { disk, server } = await diskOf({ contexts: BASE });
    const expected = [
      [0, { data: true, zero: false, allocated: true, at: { filename: 'nbd+unix://?socket=/s', offset: 0 } }],
      [1, { data: false, zero: false, allocated: false }],
      [2, { data: true, zero: true, allocated: true, at: { filename: 'nbd+unix://?socket=/s', offset: 0 } }],
      [3, { data: false, zero: true, allocated: true, at: { filename: 'nbd+unix://?socket=/s', offset: 0 } }],
    ] as const;
    for (const [flags, status] of expected) {
      const asking = disk.status(0, 4096);
      const request = await server.request();
      expect(request).toMatchObject({
        command: Command.blockStatus,
        flags: CommandFlag.reqOne,
        offset: 0,
        length: 4096,
      });
      server.chunk(request, ChunkType.blockStatus, runs([4096, flags]));
      expect(await asking).toEqual({ length: 4096, depth: 0, ...status });
    }
    await disk.close();
  });

  test('a job asks wide and once; outside of one nothing is kept', async () => {
    const { disk, server } = await diskOf({ size: MIB, contexts: BASE });
    const found: (readonly [number, boolean])[] = [];
    const mapping = (async () => {
      for await (const batch of map(disk)) for (const { length, zero } of batch) found.push([length, zero]);
    })();
    const wide = await server.request();
    expect(wide).toMatchObject({ flags: 0, offset: 0, length: MIB });
    server.chunk(wide, ChunkType.blockStatus, runs([65536, 3], [65536, 0], [4096, 3]));
    const rest = await server.request();
    expect(rest).toMatchObject({ flags: 0, offset: 135_168, length: MIB - 135_168 });
    // The last may reach past what was asked for, not past the end.
    server.chunk(rest, ChunkType.blockStatus, runs([MIB - 135_168, 0]));
    await mapping;
    expect(found).toEqual([
      [65536, true],
      [65536, false],
      [4096, true],
      [MIB - 135_168, false],
    ]);
    const after = disk.status(0, 512);
    const request = await server.request();
    server.chunk(request, ChunkType.blockStatus, runs([512, 0]));
    expect(await after).toMatchObject({ zero: false });
    await disk.close();
  });

  test('own writes drop what they touch', async () => {
    const loop = await Loopback.start();
    const disk = await loop.open();
    const release = holdStatus(disk.node);
    expect(await disk.status(0, MIB)).toMatchObject({ zero: true, length: MIB });
    expect(disk.tryStatusNow(0, MIB)).toMatchObject({ zero: true, length: MIB });
    await disk.write(0, new Uint8Array(65536).fill(1));
    expect(disk.tryStatusNow(0, MIB)).toBeUndefined();
    expect(await disk.status(0, MIB)).toMatchObject({ zero: false, length: 65536 });
    await disk.discard(0, 65536);
    expect(disk.tryStatusNow(0, 65536)).toBeUndefined();
    release();
    expect(disk.tryStatusNow(0, MIB)).toBeUndefined();
    await disk.close();
  });

  test('answers of a server with larger blocks than what is asked', async () => {
    const { disk, server } = await diskOf({ size: MIB, blockSize: [4096, 4096, MIB], contexts: BASE });
    const asking = disk.status(5000, 1000);
    const request = await server.request();
    expect(request).toMatchObject({ offset: 4096, length: 4096 });
    server.chunk(request, ChunkType.blockStatus, runs([4096, 3]));
    expect(await asking).toMatchObject({ length: 1000, zero: true });
    await disk.close();
  });

  test('another context in place of the base one shows where it is set, and never as zeroes (N-6)', async () => {
    for (const option of ['x-dirty-bitmap', 'meta-context']) {
      const name = 'qemu:dirty-bitmap:b';
      const { disk, server } = await diskOf({ contexts: [[1, name]] }, { [option]: name });
      const asking = disk.status(0, 512);
      server.chunk(await server.request(), ChunkType.blockStatus, runs([512, 3]));
      expect(await asking).toMatchObject({ zero: false, data: false, allocated: false });
      const clean = disk.status(0, 512);
      server.chunk(await server.request(), ChunkType.blockStatus, runs([512, 0]));
      expect(await clean).toMatchObject({ zero: false, data: true });
      await disk.close();
      await expect(diskOf({}, { [option]: name })).rejects.toThrow(`The server has no context '${name}'`);
    }
  });

  test('without contexts all is data', async () => {
    const { disk } = await diskOf({ structured: false });
    expect(await disk.status(100, 5000)).toMatchObject({ length: 5000, data: true, zero: false, at: { offset: 100 } });
    await disk.close();
  });
});

test('a disk over a MessageChannel, without a socket anywhere', async () => {
  const loop = await Loopback.start({ driver: 'memory', size: 4 * MIB }, { handshakeTimeoutMs: 0 });
  const host = hostWith(async () => {
    const { port1, port2 } = new MessageChannel();
    loop.server.accept(portStream(port2 as unknown as PortLike));
    return portStream(port1 as unknown as PortLike);
  });
  const graph = new Graph({ host, drivers: DRIVERS });
  const disk = await graph.open({ driver: 'nbd', path: 'worker' }, { writable: true });
  const data = Uint8Array.from({ length: 3 * MIB }, (_, index) => index % 241);
  await disk.write(12_345, data);
  await disk.flush();
  const back = new Uint8Array(data.length);
  await disk.read(12_345, back);
  expect(Buffer.compare(back, data)).toBe(0);
  await disk.close();
  await loop.server.close();
});

test('a read-only flag alone is no feature', async () => {
  const { disk } = await diskOf({ flags: hasFlags | readOnly }, {}, { writable: false });
  expect(disk.writable).toBe(false);
  await disk.close();
});
