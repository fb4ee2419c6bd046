/** Sockets of servers and clients: what TCP is told (N-12), and the short way around the event loop (N-151). */
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect as connectSocketPlain, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import type { ByteStream } from '../../core/byte-stream.ts';
import { loadKoffi } from '../koffi.ts';
import { connectSocket } from './connect.ts';
import { listen } from './listen.ts';
import { socketStream } from './socket-stream.ts';

const open: { destroy(): void }[] = [];
afterEach(() => {
  for (const each of open.splice(0)) each.destroy();
});

const SOL_SOCKET = 1;
const SO_KEEPALIVE = 9;
const SO_SNDBUF = 7;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;

/** What the system says of a socket. */
function optionOf(fd: number, level: number, name: number): number {
  const get = loadKoffi().load(null).func('int getsockopt(int fd, int level, int name, void *value, void *length)');
  const [value, length] = [new Int32Array(1), Uint32Array.of(4)];
  expect(get(fd, level, name, value, length)).toBe(0);
  return value[0] ?? -1;
}

const fdOf = (socket: unknown) => (socket as { _handle: { fd: number } })._handle.fd;
const toldOf = (fd: number) => ({
  noDelay: optionOf(fd, IPPROTO_TCP, TCP_NODELAY),
  keepAlive: optionOf(fd, SOL_SOCKET, SO_KEEPALIVE),
});
const ALL = { noDelay: 1, keepAlive: 1 };

/** Listens in the abstract namespace, under a name of so many bytes and no more. */
function listenAbstract(name: string): number {
  const library = loadKoffi().load(null);
  const make = library.func('int socket(int domain, int type, int protocol)');
  const bind = library.func('int bind(int fd, void *address, uint length)');
  const fd = Number(make(1, 1, 0));
  const address = Buffer.concat([Buffer.from(Uint16Array.of(1).buffer), Buffer.from(name)]);
  expect(bind(fd, address, address.length)).toBe(0);
  expect(library.func('int listen(int fd, int backlog)')(fd, 1)).toBe(0);
  return fd;
}

test.runIf(process.platform === 'linux')('N-3: abstract names are those of other programs, not filled up', async () => {
  const name = `\0diskwright-${process.pid}-${Math.floor(performance.now())}`;
  await expect(connectSocket({ type: 'unix', path: name })).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  const filled = name + '\0'.repeat(108 - name.length);
  for (const path of [name, filled]) {
    const server = createServer((socket) => socket.end('hello'));
    await once(server.listen({ fd: listenAbstract(path) }), 'listening');
    const stream = await connectSocket({ type: 'unix', path });
    expect(await new Promise((resolve) => stream.listen({ data: resolve, end() {}, close() {} }))).toEqual(
      Buffer.from('hello'),
    );
    stream.destroy();
    server.close();
    await once(server, 'close');
  }
});

test('N-6: of a name that is too long for a socket no beginning is taken', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'diskwright-'));
  const path = `${folder}/`.padEnd(108, 's');
  try {
    const server = createServer(() => {});
    open.push({ destroy: () => void server.close() });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    open.push(await connectSocket({ type: 'unix', path }));
    await expect(connectSocket({ type: 'unix', path: `${path}t` })).rejects.toMatchObject({
      code: 'ENAMETOOLONG',
      message: 'File name too long',
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

describe.skipIf(process.platform !== 'linux')('N-12: TCP without delay, and kept alive', () => {
  /** Sockets of this process, by descriptor, that have a peer. */
  async function acceptedFd(stream: ByteStream): Promise<number> {
    // The stream's own descriptor: it is used by what sends at once.
    const sockets = process as unknown as { _getActiveHandles(): unknown[] };
    const found = sockets._getActiveHandles().filter((each) => {
      const { remotePort, localPort } = each as Socket;
      return remotePort !== undefined && stream.peer.endsWith(`:${remotePort}`) && localPort !== remotePort;
    });
    expect(found).toHaveLength(1);
    return fdOf(found[0]);
  }

  test('by the server', async () => {
    const accepted = new Promise<ByteStream>((resolve) => {
      void listen({ kind: 'tcp', host: '127.0.0.1', port: 0 }, resolve).then((listening) => {
        const { port } = new URL(listening.uri('', false));
        open.push(connectSocketPlain(Number(port), '127.0.0.1'), { destroy: () => void listening.close() });
      });
    });
    const stream = await accepted;
    open.push(stream);
    expect(toldOf(await acceptedFd(stream))).toEqual(ALL);
  });

  test('by the client, on a connection of its own and on one that it is given', async () => {
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    open.push({ destroy: () => void server.close() });
    const address = server.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    const peers: Socket[] = [];
    server.on('connection', (socket) => {
      peers.push(socket);
      open.push(socket);
    });
    const before = new Set(handles());
    open.push(await connectSocket({ type: 'inet', host: '127.0.0.1', port }));
    const own = handles().find((each) => !before.has(each) && (each as Socket).remotePort === port);
    expect(toldOf(fdOf(own))).toEqual(ALL);

    const plain = connectSocketPlain({ host: '127.0.0.1', port, noDelay: false });
    await once(plain, 'connect');
    const fd = loadKoffi().load(null).func('int dup(int fd)')(fdOf(plain)) as number;
    expect(toldOf(fd)).toEqual({ noDelay: 0, keepAlive: 0 });
    open.push(plain, await connectSocket({ type: 'fd', fd }));
    expect(toldOf(fd)).toEqual(ALL);
  });

  const handles = () => (process as unknown as { _getActiveHandles(): unknown[] })._getActiveHandles();
});

describe.skipIf(process.platform !== 'linux')('the short way (N-151)', () => {
  /** A stream, and the other side's socket. */
  async function pair() {
    const server = createServer({ allowHalfOpen: true });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    const client = connectSocketPlain({ port, host: '127.0.0.1', noDelay: true });
    const [socket] = (await once(server, 'connection')) as [Socket];
    server.close();
    open.push(client, socket);
    return { stream: socketStream(socket, 'peer'), client, socket };
  }

  test('nothing goes it before it is asked for', async () => {
    const { stream } = await pair();
    expect(stream.writeNow?.([Uint8Array.of(1)])).toBe(0);
  });

  test('a unix socket holds several large answers, as far as the system lets it', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'diskwright-sockets-'));
    const server = createServer().listen(join(folder, 's'));
    await once(server, 'listening');
    const client = connectSocketPlain(join(folder, 's'));
    const [socket] = (await once(server, 'connection')) as [Socket];
    server.close();
    open.push(client, socket, { destroy: () => rmSync(folder, { recursive: true, force: true }) });
    const before = optionOf(fdOf(socket), SOL_SOCKET, SO_SNDBUF);
    const stream = socketStream(socket, 'unix');
    stream.hasten?.();
    const allowed = Number(readFileSync('/proc/sys/net/core/wmem_max', 'utf8'));
    const after = optionOf(fdOf(socket), SOL_SOCKET, SO_SNDBUF);
    // The system counts what it keeps itself too, and so doubles it.
    expect(after).toBe(2 * Math.min(2 * 1024 * 1024, allowed));
    expect(after).toBeGreaterThan(before);
  });

  test('sends what the system takes, pieces in order, and nothing while other bytes wait', async () => {
    const { stream, client } = await pair();
    stream.listen({ data() {}, end() {}, close() {} });
    stream.hasten?.();
    const pieces = Array.from({ length: 100 }, (_, index) => new Uint8Array(10).fill(index));
    // As many pieces as one call takes.
    expect(stream.writeNow?.(pieces)).toBe(640);
    expect(stream.writeNow?.([Uint8Array.of(99).subarray(0, 1)])).toBe(1);
    client.pause();
    const large = new Uint8Array(64 << 20).fill(7);
    const taken = stream.writeNow?.([large]) ?? 0;
    expect(taken).toBeGreaterThan(0);
    expect(taken).toBeLessThan(large.length);
    const written = new Promise<void>((resolve) => stream.write([large.subarray(taken)], resolve));
    expect(stream.writeNow?.([Uint8Array.of(1)])).toBe(0);
    let received = 0;
    let wrong = 0;
    client.on('data', (bytes: Uint8Array) => {
      for (const byte of bytes) {
        const expected = received < 640 ? Math.floor(received / 10) : received === 640 ? 99 : 7;
        if (byte !== expected) wrong++;
        received++;
      }
    });
    client.resume();
    await written;
    stream.end();
    await once(client, 'end');
    expect([received, wrong]).toEqual([641 + large.length, 0]);
  });

  test('bytes that are still needed are not written over, in whatever pieces they come', async () => {
    const { stream, client } = await pair();
    const kept: Uint8Array[] = [];
    const ended = new Promise<void>((resolve) => {
      let keep = false;
      stream.listen({
        data(bytes) {
          keep = !keep;
          kept.push(keep ? bytes : bytes.slice());
          return !keep;
        },
        end: resolve,
        close() {},
      });
    });
    stream.hasten?.();
    const sent = new Uint8Array(3 << 20).map((_, index) => index % 251);
    for (let at = 0; at < sent.length; at += 10_007) client.write(sent.subarray(at, at + 10_007));
    client.end();
    await ended;
    const received = Buffer.concat(kept);
    expect(received.equals(sent)).toBe(true);
  });

  test('where more is looked for, it is told when there is none, before the event loop turns', async () => {
    const { stream, client } = await pair();
    const told: string[] = [];
    let held = 0;
    let heldOver = 0;
    const ended = new Promise<void>((resolve) => {
      stream.listen({
        data(_bytes, more = false) {
          told.push(more ? 'more' : 'data');
          if (more) held++;
          setImmediate(() => {
            if (held > 0) heldOver++;
          });
          // Another piece is there by the time it is looked for.
          if (told.length < 20) client.write(new Uint8Array(100));
          else client.end();
          return true;
        },
        rest() {
          told.push('rest');
          held = 0;
        },
        end: resolve,
        close() {},
      });
    });
    stream.hasten?.();
    client.write(new Uint8Array(100));
    await ended;
    expect([heldOver, held]).toEqual([0, 0]);
    expect(told[0]).toBe('data');
    expect(told).toContain('more');
    expect(told.filter((each) => each === 'more').length).toBeGreaterThanOrEqual(
      told.filter((each) => each === 'rest').length,
    );
  });

  test('a stream that is paused gets nothing, and all of it afterwards', async () => {
    const { stream, client, socket } = await pair();
    let received = 0;
    let pausedAt = -1;
    stream.listen({
      data(bytes) {
        expect(pausedAt).toBe(-1);
        received += bytes.length;
        if (received >= 1000 && received < 2000) {
          pausedAt = received;
          stream.pause();
          setImmediate(() => {
            pausedAt = -1;
            stream.resume();
          });
        }
        return true;
      },
      end() {},
      close() {},
    });
    stream.hasten?.();
    for (let each = 0; each < 300; each++) client.write(new Uint8Array(100));
    client.end();
    await once(socket, 'end');
    expect(received).toBe(30_000);
  });

  test('ends and destroyed sockets: nothing is sent', async () => {
    const { stream, client, socket } = await pair();
    stream.listen({ data() {}, end() {}, close() {} });
    stream.hasten?.();
    stream.end();
    expect(stream.writeNow?.([Uint8Array.of(1)])).toBe(0);
    client.end();
    await once(socket, 'close');
    expect(stream.writeNow?.([Uint8Array.of(1)])).toBe(0);
  });
});
