/** Servers lost and found again (N-138). */
import { describe, expect, test } from 'vitest';
import { ChunkType, Command, CommandFlag } from '../../src/nbd/protocol.ts';
import { settled } from '../support/nbd.ts';
import { type FakeExport, Loopback } from '../support/nbd-client.ts';
import { Farm, zeroes } from '../support/nbd-farm.ts';

const MIB = 1 << 20;

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

  test('a server that each time comes back and goes at a request: that fails when the delay is over', async () => {
    const farm = new Farm();
    const client = await farm.client({ reconnectDelayMs: 3000 });
    const { clock } = farm.host;
    let served = 0;
    let failedAt = 0;
    const reading = client.read(0, new Uint8Array(4)).catch((error: unknown) => {
      failedAt = clock.now();
      return error;
    });
    for (; failedAt === 0; await clock.sleep(50)) {
      const server = farm.servers[served];
      if (server === undefined) continue;
      await server.request();
      served++;
      server.stream.destroy();
    }
    expect(await reading).toMatchObject({ code: 'EIO' });
    expect([failedAt, served]).toEqual([3000, 12]);
    // One that stays is used as ever.
    while (farm.servers[served] === undefined) await clock.sleep(50);
    const again = client.read(0, new Uint8Array(4));
    farm.at(served).chunk(await farm.at(served).request(), ChunkType.offsetHole, zeroes(0, 4));
    await again;
    await client.close();
  });

  test('requests made for extended headers go to a server without them, and the other way round', async () => {
    const plain = { size: 8 * 2 ** 30, contexts: [[1, 'base:allocation']] } as const;
    const extended = { ...plain, extended: true } as const;
    for (const [before, after] of [
      [extended, plain],
      [plain, extended],
    ] as const) {
      const farm = new Farm(before);
      const client = await farm.client({
        reconnectDelayMs: 3000,
        handshake: { export: '', contexts: ['base:allocation'] },
      });
      farm.next = after;
      farm.at(0).stream.destroy();
      const writing = client.write(0, Uint8Array.of(1, 2));
      await farm.host.clock.sleep(1000);
      const write = await farm.at(1).request();
      expect(write.flags).toBe(after === extended ? CommandFlag.payloadLength : 0);
      expect(await farm.at(1).take(2)).toEqual(Uint8Array.of(1, 2));
      if (after === extended) farm.at(1).chunk(write, ChunkType.none, new Uint8Array(0));
      else farm.at(1).simple(write);
      await writing;
      const asking = client.blockStatus(0, 2 ** 33);
      const status = await farm.at(1).request();
      expect(status.length).toBe(after === extended ? 2 ** 33 : 2 ** 32 - 65536);
      farm.at(1).stream.destroy();
      await client.close();
      await asking.catch(() => {});
    }
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
    [{ flags: 0x25 }, { flags: 5 }, 'it no longer trims'],
    [{ flags: 0x45 }, { flags: 5 }, 'it no longer writes zeroes'],
    [{ flags: 0x845 }, { flags: 0x45 }, 'it no longer offers fast zeroes'],
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

  test('where nobody flushes, as with cache=unsafe, closing fails', async () => {
    const lost = 'The NBD server went away with writes that were not flushed: they may be lost';
    for (const back of [true, false]) {
      const loop = await Loopback.start();
      const disk = await loop.graph.open(
        { driver: 'nbd', path: '/s', 'reconnect-delay': 5 },
        { writable: true, cache: 'unsafe' },
      );
      await disk.write(0, new Uint8Array(512).fill(1));
      await disk.flush();
      loop.down = !back;
      loop.kill();
      if (back) await disk.read(0, new Uint8Array(512));
      else await settled();
      await expect(disk.close()).rejects.toMatchObject({ code: 'EIO', message: lost });
    }
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
