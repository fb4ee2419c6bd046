/** Requests under way, several connections, waiting, losing and finding servers (N-132, N-136 to N-138). */
import { describe, expect, test } from 'vitest';
import { NbdClient } from '../../src/nbd/client/client.ts';
import { ChunkType, Command, TransmissionFlag } from '../../src/nbd/protocol.ts';
import { settled } from '../support/nbd.ts';
import {
  bytes,
  clientOptions,
  type FakeExport,
  FakeServer,
  faked,
  hostWith,
  Loopback,
  refuseConnection,
} from '../support/nbd-client.ts';

const MIB = 1 << 20;
const MULTI = TransmissionFlag.hasFlags | TransmissionFlag.canMultiConn | TransmissionFlag.sendFlush;

function zeroes(offset: number, length: number): Uint8Array {
  return bytes(12, (view) => {
    view.setBigUint64(0, BigInt(offset));
    view.setUint32(8, length);
  });
}

/** Fake servers, one for each connection that is made; `up` says whether one can be made. */
class Farm {
  readonly servers: FakeServer[] = [];
  readonly times: number[] = [];
  up = true;
  next: FakeExport;
  readonly host = hostWith(async () => {
    this.times.push(this.host.clock.now());
    if (!this.up) refuseConnection();
    const server = new FakeServer(this.next);
    this.servers.push(server);
    void server.shake().catch(() => {});
    return server.clientEnd;
  });

  constructor(exported: FakeExport = {}) {
    this.next = exported;
  }

  client(options: Parameters<typeof clientOptions>[1] = {}): Promise<NbdClient> {
    return NbdClient.open(clientOptions(this.host, options));
  }

  at(index: number): FakeServer {
    const server = this.servers[index];
    if (server === undefined) throw new TypeError(`no connection ${index}`);
    return server;
  }
}

describe('under way at once (N-132)', () => {
  test('64 requests on a connection; the next is sent when one is answered', async () => {
    const { server, client } = await faked();
    const reads = Array.from({ length: 70 }, (_, index) => client.read(index * 16, new Uint8Array(16)));
    await settled();
    expect(server.input.length).toBe(64 * 28);
    const first = await server.request();
    server.chunk(first, ChunkType.offsetHole, zeroes(first.offset, 16));
    await settled();
    expect(server.input.length).toBe(64 * 28);
    for (let answered = 1; answered < 70; answered++) {
      const request = await server.request();
      server.chunk(request, ChunkType.offsetHole, zeroes(request.offset, 16));
    }
    await Promise.all(reads);
    await client.close();
  });

  test('64 MiB of data', async () => {
    const { server, client } = await faked({ size: 1 << 30 });
    const target = new Uint8Array(32 * MIB);
    const reads = [0, 1, 2].map((index) => client.read(index * 32 * MIB, target));
    await settled();
    expect(server.input.length).toBe(2 * 28);
    for (let answered = 0; answered < 3; answered++) {
      const request = await server.request();
      server.chunk(request, ChunkType.offsetHole, zeroes(request.offset, 32 * MIB));
      await settled();
    }
    await Promise.all(reads);
    await client.close();
  });

  test.each([
    [100, 4],
    [2, 2],
    [1, 1],
  ])('of a server that serves %i clients, %i connections as they get busy', async (maxConnections, used) => {
    const loop = await Loopback.start(undefined, { maxConnections });
    const client = await loop.client();
    for (let round = 0; round < 8; round++) {
      await Promise.all(Array.from({ length: 64 }, (_, index) => client.read(index * 512, new Uint8Array(512))));
      await settled();
    }
    expect(client.connectionCount).toBe(used);
    expect(loop.server.stats().connections).toBe(used);
    await client.close();
    await settled();
    expect(loop.server.stats()).toMatchObject({ connections: 0, waiting: 0 });
  });

  test.each([0, MULTI])(
    'one connection is enough for little work, and the only one without permission: flags %i',
    async (flags) => {
      const farm = new Farm({ flags });
      const client = await farm.client();
      const count = flags === 0 ? 60 : 8;
      const reads = Promise.all(Array.from({ length: count }, () => client.read(0, new Uint8Array(1))));
      await settled();
      await answerAll(farm.at(0));
      await reads;
      await settled();
      expect(farm.servers).toHaveLength(1);
      await client.close();
    },
  );

  test('a flush goes to one connection, when the writes that it covers have been answered', async () => {
    const farm = new Farm({ flags: MULTI });
    const client = await farm.client();
    const writing = client.write(0, new Uint8Array(4));
    const write = await farm.at(0).request();
    await farm.at(0).take(4);
    farm.at(0).simple(write);
    await writing;
    const flushing = client.flush();
    const flush = await farm.at(0).request();
    expect(flush).toMatchObject({ command: Command.flush, offset: 0, length: 0 });
    farm.at(0).simple(flush);
    await flushing;
    await client.close();
  });
});

/** Answers the reads that have come. */
async function answerAll(server: FakeServer): Promise<void> {
  while (server.input.length >= 28) {
    const request = await server.request();
    if (request.command !== Command.read) continue;
    server.chunk(request, ChunkType.offsetHole, zeroes(request.offset, request.length));
  }
}

describe('cancelling (N-136)', () => {
  test('releases the caller at once; the buffer is filled when the answer comes, and the connection goes on', async () => {
    const { server, client } = await faked();
    const stop = new AbortController();
    const target = new Uint8Array(8).fill(0x11);
    const reading = client.read(0, target, { signal: stop.signal });
    const request = await server.request();
    stop.abort(new TypeError('enough'));
    await expect(reading).rejects.toThrow('enough');
    server.chunk(
      request,
      ChunkType.offsetData,
      bytes(8, () => {}, new Uint8Array(8).fill(0x22)),
    );
    await settled();
    expect(target).toEqual(new Uint8Array(8).fill(0x22));
    const again = client.read(8, target);
    const next = await server.request();
    server.chunk(next, ChunkType.offsetHole, zeroes(8, 8));
    await again;
    await client.close();
  });

  test('what was cancelled before is not sent', async () => {
    const { server, client } = await faked();
    await expect(client.flush({ signal: AbortSignal.abort(new TypeError('no')) })).rejects.toThrow('no');
    await settled();
    expect(server.input.length).toBe(0);
    await client.close();
  });
});

describe('open-timeout (N-137)', () => {
  test('0: once', async () => {
    const farm = new Farm();
    farm.up = false;
    await expect(farm.client()).rejects.toMatchObject({ code: 'ECONNREFUSED', message: 'Connection refused' });
    expect(farm.times).toEqual([0]);
  });

  test('tries after 250 ms, 500 ms and then each second, until the server is there', async () => {
    const farm = new Farm();
    farm.up = false;
    void farm.host.clock.sleep(4000).then(() => {
      farm.up = true;
    });
    const client = await farm.client({ openTimeoutMs: 10_000 });
    expect(farm.times).toEqual([0, 250, 750, 1750, 2750, 3750, 4750]);
    await client.close();
  });

  test('until the time is over', async () => {
    const farm = new Farm();
    farm.up = false;
    await expect(farm.client({ openTimeoutMs: 3000 })).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    expect(farm.times).toEqual([0, 250, 750, 1750, 2750]);
    expect(farm.host.clock.now()).toBeLessThanOrEqual(3000);
  });

  test('a server that is silent does not hold it up', async () => {
    let asked = 0;
    const host = hostWith(async () => {
      asked++;
      return new FakeServer().clientEnd;
    });
    const opening = NbdClient.open(clientOptions(host, { openTimeoutMs: 2000 }));
    await expect(opening).rejects.toMatchObject({
      code: 'ETIMEDOUT',
      message: 'The NBD server did not answer in time',
    });
    expect([asked, host.clock.now()]).toEqual([1, 2000]);
  });

  test('what will not pass is not tried again', async () => {
    const loop = await Loopback.start();
    const opening = loop.client({ openTimeoutMs: 10_000 }, { export: 'other' });
    await expect(opening).rejects.toThrow(/^Requested export not available/);
    expect(loop.streams).toHaveLength(1);
    expect(loop.host.clock.now()).toBe(0);
  });
});

describe('reconnect-delay (N-138)', () => {
  test('0: what is under way fails at once; reads work again when the server is back', async () => {
    const loop = await Loopback.start();
    const client = await loop.client();
    loop.down = true;
    loop.kill();
    const text = 'The server ended the connection|The connection to the (NBD )?server is lost';
    await expect(client.read(0, new Uint8Array(4))).rejects.toThrow(new RegExp(text));
    await expect(client.read(0, new Uint8Array(4))).rejects.toMatchObject({
      code: 'EIO',
      message: 'The connection to the NBD server is lost',
    });
    expect(loop.host.clock.now()).toBe(0);
    loop.down = false;
    await loop.host.clock.sleep(1500);
    await client.read(0, new Uint8Array(4));
    await client.close();
  });

  test('requests wait, and are sent again', async () => {
    const farm = new Farm();
    const client = await farm.client({ reconnectDelayMs: 3000 });
    const target = new Uint8Array(4).fill(9);
    const reading = client.read(16, target);
    const writing = client.write(0, Uint8Array.of(1, 2, 3, 4));
    await farm.at(0).request();
    farm.up = false;
    farm.at(0).stream.destroy();
    const later = client.read(64, new Uint8Array(4));
    await farm.host.clock.sleep(1500);
    farm.up = true;
    // It was back after 1.5 s, and is found a second later at most.
    await farm.host.clock.sleep(1000);
    const server = farm.at(1);
    for (let answered = 0; answered < 3; answered++) {
      const request = await server.request();
      if (request.command === Command.write) {
        expect(await server.take(4)).toEqual(Uint8Array.of(1, 2, 3, 4));
        server.simple(request);
      } else server.chunk(request, ChunkType.offsetHole, zeroes(request.offset, 4));
    }
    await Promise.all([reading, writing, later]);
    expect(target).toEqual(new Uint8Array(4));
    await client.close();
  });

  test('for no longer than that; then all fail until the server is back', async () => {
    const loop = await Loopback.start();
    const client = await loop.client({ reconnectDelayMs: 3000 });
    const target = new Uint8Array(4).fill(9);
    loop.down = true;
    loop.kill();
    const { clock } = loop.host;
    await expect(client.read(0, target)).rejects.toMatchObject({ code: 'EIO' });
    expect(clock.now()).toBe(3000);
    expect(target).toEqual(new Uint8Array(4));
    await expect(client.read(0, target)).rejects.toMatchObject({ code: 'EIO' });
    expect(clock.now()).toBe(3000);
    loop.down = false;
    await clock.sleep(1000);
    await client.read(0, target);
    await client.close();
  });

  test('tries are 1 s apart at most, and never in a hot loop', async () => {
    const farm = new Farm();
    const client = await farm.client({ reconnectDelayMs: 3000 });
    await farm.host.clock.sleep(5000);
    farm.up = false;
    farm.at(0).stream.destroy();
    await farm.host.clock.sleep(4000);
    expect(farm.times.map((time) => time - 5000)).toEqual([-5000, 0, 250, 750, 1750, 2750, 3750]);
    await client.close();
    const tries = farm.times.length;
    await farm.host.clock.sleep(5000);
    expect(farm.times).toHaveLength(tries);
  });

  test('a server that lets the client in and then cuts it off is not asked all the time', async () => {
    const farm = new Farm();
    const client = await farm.client({ reconnectDelayMs: 1000 });
    const cutAll = setInterval(() => {
      for (const server of farm.servers) server.stream.destroy();
    }, 0);
    await farm.host.clock.sleep(10_000);
    clearInterval(cutAll);
    expect(farm.times.length).toBeLessThan(60);
    await client.close();
  });

  const CHANGES: readonly (readonly [FakeExport, FakeExport, string])[] = [
    [{ size: 4096 }, { size: 8192 }, 'the size is 8192, it was 4096'],
    [{ flags: 1 }, { flags: 3 }, 'it is read-only now'],
    [{ flags: 3 }, { flags: 1 }, 'it is no longer read-only'],
    [
      { blockSize: [512, 4096, 65536] },
      { blockSize: [4096, 4096, 65536] },
      'the minimum block size is 4096, it was 512',
    ],
    [{ blockSize: [1, 4096, 65536] }, { blockSize: [1, 4096, 32768] }, 'the maximum block size is 32768, it was 65536'],
    [{ flags: 5 }, { flags: 1 }, 'it no longer flushes'],
    [{ flags: 13 }, { flags: 5 }, 'it no longer offers FUA'],
    [{ contexts: [[1, 'base:allocation']] }, { contexts: [] }, "it no longer has the context 'base:allocation'"],
  ];
  test.each(CHANGES)('%j that comes back as %j: %s', async (before, after, change) => {
    const farm = new Farm(before);
    const contexts = before.contexts === undefined ? [] : ['base:allocation'];
    const client = await farm.client({ reconnectDelayMs: 5000, handshake: { export: '', contexts } });
    farm.next = after;
    const waiting = client.read(0, new Uint8Array(4096));
    farm.at(0).stream.destroy();
    const error = { code: 'EIO', message: `NBD server changed: ${change}` };
    await expect(waiting).rejects.toMatchObject(error);
    // Final: also when the old one comes back.
    farm.next = before;
    await farm.host.clock.sleep(5000);
    await expect(client.read(0, new Uint8Array(4096))).rejects.toMatchObject(error);
    expect(farm.servers).toHaveLength(2);
    await client.close();
  });

  test('writes that were answered and not flushed: the first flush after it fails', async () => {
    const loop = await Loopback.start();
    const client = await loop.client({ reconnectDelayMs: 5000 });
    await client.write(0, new Uint8Array(4));
    await client.flush();
    loop.kill();
    await client.read(0, new Uint8Array(4));
    // What was flushed is not lost.
    await client.flush();
    await client.write(0, new Uint8Array(4), { fua: true });
    loop.kill();
    await client.read(0, new Uint8Array(4));
    await client.flush();
    await client.writeZeroes(0, 4096);
    loop.kill();
    await client.read(0, new Uint8Array(4));
    await expect(client.flush()).rejects.toMatchObject({
      code: 'EIO',
      message: 'The NBD server went away with writes that were not flushed: they may be lost',
    });
    await client.flush();
    await client.close();
  });

  test('a flush under way at the loss is not told to have worked', async () => {
    const farm = new Farm();
    const client = await farm.client({ reconnectDelayMs: 5000 });
    const writing = client.write(0, new Uint8Array(4));
    farm.at(0).simple(await farm.at(0).request());
    await writing;
    const flushing = client.flush();
    await settled();
    farm.at(0).stream.destroy();
    await expect(flushing).rejects.toMatchObject({ code: 'EIO' });
    await client.close();
  });

  test('what breaks the protocol is not sent again', async () => {
    const farm = new Farm();
    const client = await farm.client({ reconnectDelayMs: 5000 });
    const reading = client.read(0, new Uint8Array(4));
    await farm.at(0).request();
    farm.at(0).send(new Uint8Array(20));
    await expect(reading).rejects.toThrow(/^Unexpected reply magic 0x00000000$/);
    await client.close();
  });

  test('a server that shuts down: its refusals are sent again', async () => {
    const farm = new Farm();
    const client = await farm.client({ reconnectDelayMs: 5000 });
    const writing = client.write(0, new Uint8Array(4));
    const refused = await farm.at(0).request();
    farm.at(0).simple(refused, 108);
    await farm.host.clock.sleep(300);
    farm.at(1).simple(await farm.at(1).request());
    await writing;
    await client.close();
  });

  test('waiting requests fail when they are to end, and at closing', async () => {
    const loop = await Loopback.start();
    for (const end of ['giveUp', 'close'] as const) {
      loop.down = false;
      const client = await loop.client({ reconnectDelayMs: 5000 });
      loop.down = true;
      loop.kill();
      const reading = expect(client.read(0, new Uint8Array(4))).rejects.toMatchObject({
        code: end === 'close' ? 'ECANCELED' : 'EIO',
      });
      await settled();
      await client[end]();
      await reading;
      await client.close();
    }
  });

  test('a disk goes on where it was when its server is killed in the middle of writing', async () => {
    const loop = await Loopback.start({ driver: 'memory', size: 4 * MIB });
    const disk = await loop.open({ 'reconnect-delay': 10 });
    const content = Uint8Array.from({ length: 4 * MIB }, (_, index) => (index >> 8) % 253);
    const pieces = Array.from({ length: 64 }, (_, index) => index * 65536);
    let kills = 0;
    const writing = pieces.map((offset) => disk.write(offset, content.subarray(offset, offset + 65536)));
    for (; kills < 3; kills++) {
      await settled();
      loop.kill();
      await loop.host.clock.sleep(400);
    }
    await Promise.all(writing);
    const back = new Uint8Array(4 * MIB);
    await disk.read(0, back);
    expect(Buffer.compare(back, content)).toBe(0);
    await disk.close().catch(() => {});
    expect(kills).toBe(3);
  });
});
