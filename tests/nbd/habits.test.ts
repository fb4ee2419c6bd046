/** How the server handles bytes: what came together is answered together, little is copied, little is held (N-74, N-151 to N-153). */
import { describe, expect, test } from 'vitest';
import { Command, Option } from '../../src/nbd/protocol.ts';
import { encodeRequest, optionFrame } from '../../src/nbd/wire.ts';
import { type RawClient, type ServedOptions, served, settled } from '../support/nbd.ts';

const MIB = 1 << 20;
const { read, write, flush } = Command;

/** A client in transmission, and what the server writes to it from then on. */
async function watched(options: ServedOptions = {}, style: 'simple' | 'structured' = 'simple') {
  const setting = await served(options);
  const client = await setting.client().connect(style);
  const writes: (readonly Uint8Array[])[] = [];
  const { stream } = client;
  const original = stream.write.bind(stream);
  stream.write = (pieces, done) => {
    writes.push(pieces);
    original(pieces, done);
  };
  return { ...setting, client, writes };
}

function request(command: number, offset: number, length: number, cookieLow = 1): Uint8Array {
  return encodeRequest({ command, flags: 0, cookieHigh: 0, cookieLow, offset, length }, false);
}

/** Gives the server bytes as one piece, now. */
function deliver(client: RawClient, ...frames: readonly Uint8Array[]): Uint8Array {
  const bytes = Uint8Array.from(Buffer.concat(frames));
  client.stream.deliver(bytes);
  return bytes;
}

describe('N-151: answers', () => {
  test('to one piece of input are one piece, headers and data behind each other, before the input event is over', async () => {
    const { client, writes, disk } = await watched();
    await disk.write(0, new Uint8Array(MIB).fill(3));
    deliver(client, ...Array.from({ length: 32 }, (_, index) => request(read, index * 4096, 4096, index)));
    expect(writes.map((pieces) => pieces.map(({ length }) => length))).toEqual([[32 * (16 + 4096)]]);
    for (let cookie = 0; cookie < 32; cookie++) {
      expect(await client.reply(4096)).toMatchObject({ cookie, error: 0, payload: new Uint8Array(4096).fill(3) });
    }
  });

  test('with much data are not put together with their headers, and lie in buffers that are used again', async () => {
    const { client, writes } = await watched();
    for (let each = 0; each < 6; each++) {
      deliver(client, request(read, 0, 256 * 1024));
      await client.reply(256 * 1024);
      await settled();
    }
    expect(writes.map((pieces) => pieces.map(({ length }) => length))).toEqual(Array(6).fill([16, 256 * 1024]));
    expect(new Set(writes.flat().map(({ buffer }) => buffer)).size).toBe(2);
  });

  test('with much data are read side by side, but one alone is read at once', async () => {
    const { client, disk } = await watched();
    const asked: string[] = [];
    const [original, originalNow] = [disk.read.bind(disk), disk.tryReadNow.bind(disk)];
    disk.read = ((offset: number, target: Uint8Array) => {
      asked.push(`later ${offset}`);
      return original(offset, target);
    }) as typeof disk.read;
    disk.tryReadNow = (offset, target) => {
      asked.push(`now ${offset}`);
      return originalNow(offset, target);
    };
    const length = 128 * 1024;
    deliver(client, request(read, 0, length));
    deliver(client, request(read, 1, length), request(read, 2, length));
    await settled();
    deliver(client, request(read, 3, length - 1), request(read, 4, length - 1));
    expect(asked).toEqual(['now 0', 'later 1', 'later 2', 'now 3', 'now 4']);
  });

  test('are read at once where nothing needs waiting for', async () => {
    const { client, disk, writes } = await watched();
    disk.read = (() => {
      throw new TypeError('not asked');
    }) as typeof disk.read;
    deliver(client, request(read, 0, 512));
    expect(writes).toHaveLength(1);
  });
});

test('N-151: where the stream looks for more, answers wait until it has looked', async () => {
  const { client, writes } = await watched();
  const answered = () => writes.map((pieces) => pieces.map(({ length }) => length));
  client.stream.offer(request(read, 0, 512), true);
  client.stream.offer(request(read, 0, 1024), true);
  expect(answered()).toEqual([]);
  client.stream.rest();
  expect(answered()).toEqual([[16 + 512 + 16 + 1024]]);
  client.stream.rest();
  client.stream.offer(request(read, 0, 1), false);
  expect(answered().slice(1)).toEqual([[17]]);
  // However long it looks: much is not held.
  for (let each = 0; each < 40; each++) client.stream.offer(request(read, 0, 32_768), true);
  expect(
    answered()
      .slice(2)
      .flat()
      .reduce((sum, length) => sum + length, 0),
  ).toBeGreaterThan(MIB);
});

describe('N-152: payloads', () => {
  test('that came in one piece are handed down where they are', async () => {
    const { client, disk } = await watched();
    const sources: Uint8Array[] = [];
    const original = disk.tryWriteNow.bind(disk);
    disk.tryWriteNow = (offset, source) => {
      sources.push(source);
      return original(offset, source);
    };
    const input = deliver(
      client,
      request(write, 0, 5),
      Uint8Array.of(1, 2, 3, 4, 5),
      request(write, 5, 1),
      Uint8Array.of(6),
    );
    expect(sources.map(({ buffer, byteOffset }) => [buffer === input.buffer, byteOffset])).toEqual([
      [true, 28],
      [true, 28 + 5 + 28],
    ]);
    expect([...(await disk.read(0, 6))]).toEqual([1, 2, 3, 4, 5, 6]);
  });

  test('that came in many are copied once, each to its place, in a buffer that is used again', async () => {
    const { client, disk } = await watched();
    const sources: Uint8Array[] = [];
    disk.tryWriteNow = (_offset, source) => {
      sources.push(source);
      return true;
    };
    const data = new Uint8Array(100_000).map((_, index) => index % 251);
    for (let each = 0; each < 2; each++) {
      deliver(client, request(write, 0, data.length), data.subarray(0, 10));
      for (let at = 10; at < data.length; at += 33_333) deliver(client, data.subarray(at, at + 33_333));
      expect(Buffer.compare(sources.at(-1) ?? data.subarray(1), data)).toBe(0);
    }
    expect(sources[0]?.buffer).toBe(sources[1]?.buffer);
  });

  test('a request whose payload is still in the input keeps it from being written over', async () => {
    const { client, disk } = await watched();
    let open = () => {};
    const passed = new Promise<void>((resolve) => {
      open = resolve;
    });
    const original = disk.write.bind(disk);
    disk.tryWriteNow = () => false;
    disk.write = async (offset, source, flags) => {
      await passed;
      return original(offset, source, flags);
    };
    // A stream that may use the memory again is told so by what it gets back.
    const told = client.stream.offer(Uint8Array.from(Buffer.concat([request(write, 0, 3), Uint8Array.of(1, 2, 3)])));
    expect(told).not.toBe(true);
    expect(client.stream.offer(request(read, 100, 1))).toBe(true);
    expect(client.stream.offer(request(read, 100, 1).slice(0, 20))).not.toBe(true);
    open();
    await settled();
    expect([...(await disk.read(0, 3))]).toEqual([1, 2, 3]);
  });
});

describe('N-153: what ends later', () => {
  test('is sent together where it ended together, and waits for nothing else', async () => {
    const { client, disk, writes } = await watched();
    let open = () => {};
    const passed = new Promise<void>((resolve) => {
      open = resolve;
    });
    disk.flush = () => passed;
    deliver(client, request(flush, 0, 0, 1), request(flush, 0, 0, 2), request(read, 0, 1, 3));
    expect(writes.map(([piece]) => piece?.length)).toEqual([17]);
    open();
    for (let turn = 0; turn < 10; turn++) await Promise.resolve();
    expect(writes.slice(1).map((pieces) => pieces.map(({ length }) => length))).toEqual([[32]]);
  });
});

describe('N-74: what a client costs that takes no answers', () => {
  /** Bytes of memory that what was written holds. */
  const held = (writes: readonly (readonly Uint8Array[])[]) => {
    const buffers = new Set(writes.flat().map(({ buffer }) => buffer));
    return [...buffers].reduce((sum, { byteLength }) => sum + byteLength, 0);
  };

  test.each([
    ['short answers that end one by one', {}, (index: number) => request(flush, 0, 0, index)],
    ['errors', {}, (index: number) => request(99, 0, 0, index)],
    ['short reads that take time', { slow: true }, (index: number) => request(read, index, 700, index)],
  ])('%s', async (_what, { slow = false }: { slow?: boolean }, make) => {
    const { client, disk, writes } = await watched({}, 'structured');
    if (slow) disk.tryReadNow = () => false;
    client.stalled = true;
    for (let index = 0; index < 1000; index++) {
      deliver(client, make(index));
      if (index % 50 === 49) await settled();
    }
    await settled();
    const bytes = writes.flat().reduce((sum, { length }) => sum + length, 0);
    expect(bytes).toBeGreaterThanOrEqual(16_000);
    expect(held(writes)).toBeLessThan(bytes + 1.1 * MIB);
  });

  test('options', async () => {
    const { client } = await served();
    const one = client();
    await one.greeting();
    const before = one.receivedBytes;
    one.stalled = true;
    for (let each = 0; each < 20; each++) one.send(...Array(100).fill(optionFrame(Option.list, new Uint8Array(0))));
    await settled();
    expect(one.stream.paused).toBe(true);
    // Half a KiB for each answer.
    expect(one.receivedBytes - before).toBeLessThan(600 * 24);
    one.unstall();
    for (let each = 0; each < 2000; each++) expect((await one.optionReplies(Option.list)).at(-1)?.type).toBe(1);
    expect(one.stream.paused).toBe(false);
  });
});
