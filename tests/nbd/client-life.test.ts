/** Requests under way, several connections, giving up, waiting for servers (N-132, N-136, N-137). */
import { describe, expect, test } from 'vitest';
import { Graph } from '../../src/core/graph.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { NbdClient } from '../../src/nbd/client/client.ts';
import { ChunkType, Command, TransmissionFlag } from '../../src/nbd/protocol.ts';
import { settled } from '../support/nbd.ts';
import {
  bytes,
  clientOptions,
  FakeServer,
  faked,
  hostWith,
  Loopback,
  refuseConnection,
} from '../support/nbd-client.ts';
import { Farm, zeroes } from '../support/nbd-farm.ts';

const MIB = 1 << 20;
const MULTI = TransmissionFlag.hasFlags | TransmissionFlag.canMultiConn | TransmissionFlag.sendFlush;

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

describe('a program that is to end (N-136)', () => {
  test('waits 5 s for a server that says nothing; then its requests fail, and it can close', async () => {
    const stop = new AbortController();
    const { server, client, host } = await faked({}, { interrupted: stop.signal, reconnectDelayMs: 60_000 });
    const early = client.read(0, new Uint8Array(8));
    const request = await server.request();
    await host.clock.sleep(60_000);
    stop.abort();
    const late = client.read(8, new Uint8Array(8)).catch((error: unknown) => error);
    await host.clock.sleep(3000);
    // It is slow, and not dead.
    server.chunk(request, ChunkType.offsetHole, zeroes(0, 8));
    await early;
    await client.close();
    expect(await late).toMatchObject({ code: 'EIO', message: 'The NBD server does not answer' });
    expect(host.clock.now()).toBe(60_000 + 2 * 5000);
  });

  test('a node is told of it by its host, while it is opened too', async () => {
    const stop = new AbortController();
    const servers = [new FakeServer(), new FakeServer()] as const;
    let made = 0;
    const host = {
      ...hostWith(async () => servers[made++]?.clientEnd ?? refuseConnection()),
      interrupted: stop.signal,
    };
    const graph = new Graph({ host, drivers: DRIVERS });
    const opening = graph.open({ driver: 'nbd', path: '/s' }, {});
    await servers[0].shake();
    const disk = await opening;
    const reading = disk.read(0, new Uint8Array(512)).catch((error: unknown) => error);
    const mute = graph.open({ driver: 'nbd', path: '/s' }, {}).catch((error: unknown) => error);
    await settled();
    stop.abort(new TypeError('enough'));
    expect(await mute).toBe(stop.signal.reason);
    await disk.close().catch(() => {});
    expect(await reading).toMatchObject({ code: 'EIO' });
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
