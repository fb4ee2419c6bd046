/** What a client makes of servers that break the protocol in transmission (N-134, N-68), byte by byte. */
import { describe, expect, test } from 'vitest';
import { ChunkType, Command } from '../../src/nbd/protocol.ts';
import type { Request } from '../../src/nbd/wire.ts';
import { bytes, type FakeExport, type FakeServer, faked } from '../support/nbd-client.ts';

const LENGTH = 4096;
const CONTEXTS = [[7, 'base:allocation']] as const;

function content(offset: number, length: number): Uint8Array {
  return bytes(8, (view) => view.setBigUint64(0, BigInt(offset)), new Uint8Array(length).fill(0xab));
}

function hole(offset: number, length: number): Uint8Array {
  return bytes(12, (view) => {
    view.setBigUint64(0, BigInt(offset));
    view.setUint32(8, length);
  });
}

function errorChunk(error: number, text: string, textLength = text.length, offset?: number): Uint8Array {
  const tail = offset === undefined ? new Uint8Array(0) : bytes(8, (view) => view.setBigUint64(0, BigInt(offset)));
  const message = new TextEncoder().encode(text);
  const head = bytes(6, (view) => {
    view.setUint32(0, error);
    view.setUint16(4, textLength);
  });
  return new Uint8Array([...head, ...message, ...tail]);
}

function extents(id: number, ...runs: readonly (readonly [number, number])[]): Uint8Array {
  return bytes(4 + 8 * runs.length, (view) => {
    view.setUint32(0, id);
    runs.forEach(([length, flags], index) => {
      view.setUint32(4 + 8 * index, length);
      view.setUint32(8 + 8 * index, flags);
    });
  });
}

interface Attack {
  readonly export?: FakeExport;
  /** What is asked for; default: a read of 4096 bytes at 4096. */
  readonly ask?: 'read' | 'read in one piece' | 'write' | 'status' | 'one extent';
  readonly says: string;
  readonly attack: (server: FakeServer, request: Request) => void;
}

const { offsetData, offsetHole, none, blockStatus, error, errorOffset } = ChunkType;

const ATTACKS: Readonly<Record<string, Attack>> = {
  'a wrong magic': {
    says: 'Unexpected reply magic 0x12345678',
    attack: (server) => server.send(bytes(20, (view) => view.setUint32(0, 0x12345678))),
  },
  'a simple reply to a structured read': {
    says: 'The server sent a simple reply to a read',
    attack: (server, request) => server.simple(request, 0, new Uint8Array(LENGTH)),
  },
  'an extended chunk that was not agreed on': {
    says: 'Unexpected reply magic 0x6e8a278c',
    attack: (server) => server.send(bytes(32, (view) => view.setUint32(0, 0x6e8a278c))),
  },
  'an unknown cookie': {
    says: 'The server answered a request that was not sent',
    attack: (server, request) => server.chunk({ ...request, cookieLow: request.cookieLow + 100 }, none),
  },
  'a cookie whose upper half is not ours': {
    says: 'The server answered a request that was not sent',
    attack: (server, request) => server.chunk({ ...request, cookieHigh: 1 }, none),
  },
  'status for a read': {
    says: 'The server sent a chunk of type 5, which does not fit the request',
    attack: (server, request) => server.chunk(request, blockStatus, extents(7, [LENGTH, 0])),
  },
  'content for a write': {
    ask: 'write',
    says: 'The server sent a chunk of content, but not for a read',
    attack: (server, request) => server.chunk(request, offsetData, content(LENGTH, 8)),
  },
  'an unknown type without the high bit': {
    says: 'The server sent a chunk of the unknown type 99',
    attack: (server, request) => server.chunk(request, 99),
  },
  'a payload above the maximum and 8': {
    says: 'The server sent a chunk of 33554441 bytes, which is more than it may hold',
    attack: (server, request) => server.chunk(request, offsetData, new Uint8Array(0), true, 32 * 1024 * 1024 + 9),
  },
  'an empty content chunk': {
    says: 'The server sent a chunk of content of 8 bytes',
    attack: (server, request) => server.chunk(request, offsetData, content(LENGTH, 0)),
  },
  'content before what was asked for': {
    says: 'The server sent content outside of what was asked for',
    attack: (server, request) => server.chunk(request, offsetData, content(LENGTH - 1, 10)),
  },
  'content past what was asked for': {
    says: 'The server sent content outside of what was asked for',
    attack: (server, request) => server.chunk(request, offsetData, content(2 * LENGTH - 1, 2)),
  },
  'content at an offset past 2^53': {
    says: 'The server sent content outside of what was asked for',
    attack: (server, request) =>
      server.chunk(
        request,
        offsetData,
        bytes(9, (view) => view.setBigUint64(0, 0xffffffffffffff00n)),
      ),
  },
  'an empty hole': {
    says: 'The server sent content outside of what was asked for',
    attack: (server, request) => server.chunk(request, offsetHole, hole(LENGTH, 0)),
  },
  'a hole past what was asked for': {
    says: 'The server sent content outside of what was asked for',
    attack: (server, request) => server.chunk(request, offsetHole, hole(LENGTH, 2 * LENGTH)),
  },
  'a hole of a wrong size': {
    says: 'The server sent a chunk of content of 11 bytes',
    attack: (server, request) => server.chunk(request, offsetHole, new Uint8Array(11)),
  },
  'overlapping content': {
    says: 'The server sent the same content twice, or in splinters',
    attack(server, request) {
      server.chunk(request, offsetData, content(LENGTH, 100), false);
      server.chunk(request, offsetHole, hole(LENGTH + 99, 10), false);
    },
  },
  'an incomplete read': {
    says: 'The server answered a read incompletely',
    attack: (server, request) => server.chunk(request, offsetData, content(LENGTH, LENGTH - 1)),
  },
  'no content at all': {
    says: 'The server answered a read incompletely',
    attack: (server, request) => server.chunk(request, none),
  },
  'an empty chunk that is not the last': {
    says: 'The server sent a chunk without content that is not the last, or has content',
    attack: (server, request) => server.chunk(request, none, new Uint8Array(0), false),
  },
  'an empty chunk that is not empty': {
    says: 'The server sent a chunk without content that is not the last, or has content',
    attack: (server, request) => server.chunk(request, none, new Uint8Array(1)),
  },
  'several content chunks despite DF': {
    ask: 'read in one piece',
    says: 'The server sent a chunk too many for a read in one piece',
    attack(server, request) {
      server.chunk(request, offsetData, content(LENGTH, 100), false);
      server.chunk(request, offsetData, content(LENGTH + 100, LENGTH - 100));
    },
  },
  'error 0': {
    says: 'The server sent an error chunk without an error',
    attack: (server, request) => server.chunk(request, error, errorChunk(0, '')),
  },
  'an error chunk without room for an error': {
    says: 'The server sent a chunk of an error of 5 bytes',
    attack: (server, request) => server.chunk(request, error, new Uint8Array(5)),
  },
  'an error message longer than its chunk': {
    says: 'The server sent an error message that is not as long as its chunk',
    attack: (server, request) => server.chunk(request, error, errorChunk(5, 'oh', 3)),
  },
  'an error message of more than 4096 bytes': {
    says: 'The server sent a chunk of an error of 4111 bytes',
    attack: (server, request) => server.chunk(request, error, new Uint8Array(0), true, 4096 + 15),
  },
  'an error elsewhere': {
    says: 'The server told an error elsewhere',
    attack: (server, request) => server.chunk(request, errorOffset, errorChunk(5, '', 0, 3 * LENGTH)),
  },
  'status of an unknown context': {
    ask: 'status',
    says: 'The server sent status of the unknown context 8',
    attack: (server, request) => server.chunk(request, blockStatus, extents(8, [LENGTH, 0])),
  },
  'status of a context twice': {
    ask: 'status',
    says: 'The server sent status of context 7 twice',
    attack(server, request) {
      server.chunk(request, blockStatus, extents(7, [LENGTH, 0]), false);
      server.chunk(request, blockStatus, extents(7, [LENGTH, 0]));
    },
  },
  'a missing context': {
    ask: 'status',
    says: 'The server left a context out of a status reply',
    attack: (server, request) => server.chunk(request, none),
  },
  'a simple reply in place of status': {
    ask: 'status',
    says: 'The server answered a status request without status',
    attack: (server, request) => server.simple(request),
  },
  'an extent without length': {
    ask: 'status',
    says: 'The server sent an extent without length',
    attack: (server, request) => server.chunk(request, blockStatus, extents(7, [0, 0])),
  },
  'no extents': {
    ask: 'status',
    says: 'The server sent a status chunk of a wrong length',
    attack: (server, request) => server.chunk(request, blockStatus, extents(7)),
  },
  'status past the end of the export': {
    ask: 'status',
    says: 'The server sent status past the end of the export',
    attack: (server, request) => server.chunk(request, blockStatus, extents(7, [LENGTH, 0], [1 << 20, 0])),
  },
  'more than 2^20 extents': {
    ask: 'status',
    says: `The server sent a chunk of status of ${4 + 8 * (2 ** 20 + 1)} bytes`,
    attack: (server, request) => server.chunk(request, blockStatus, new Uint8Array(0), true, 4 + 8 * (2 ** 20 + 1)),
  },
  'two extents where one was asked for': {
    ask: 'one extent',
    says: 'The server sent a chunk of status of 20 bytes',
    attack: (server, request) => server.chunk(request, blockStatus, extents(7, [1, 0], [1, 1])),
  },
  'one extent that is longer than asked': {
    ask: 'one extent',
    says: 'The server sent a longer extent than was asked for',
    attack: (server, request) => server.chunk(request, blockStatus, extents(7, [LENGTH + 1, 0])),
  },
  'extended: an offset that is not told back': {
    export: { extended: true },
    says: 'The server did not tell back the offset of the request',
    attack: (server, request) => server.chunk({ ...request, offset: 0 }, none),
  },
  'extended: a chunk of the plain kind': {
    export: { extended: true },
    says: 'Unexpected reply magic 0x668e33ef',
    attack: (server) => server.send(bytes(32, (view) => view.setUint32(0, 0x668e33ef))),
  },
  'extended: a payload of 2^64 - 1 bytes': {
    export: { extended: true },
    says: 'The server sent a chunk of Infinity bytes, which is more than it may hold',
    attack: (server, request) => {
      const head = bytes(32, (view) => {
        view.setUint32(0, 0x6e8a278c);
        view.setUint16(6, offsetData);
        view.setUint32(12, request.cookieLow);
        view.setBigUint64(16, BigInt(request.offset));
        view.setBigUint64(24, 0xffffffffffffffffn);
      });
      server.send(head);
    },
  },
  'extended: wrongly counted extents': {
    export: { extended: true },
    ask: 'status',
    says: 'The server counted extents wrongly',
    attack: (server, request) => server.chunk(request, ChunkType.blockStatusExt, new Uint8Array(24)),
  },
};

describe('a server that breaks the protocol is left, and what is under way fails (N-134)', () => {
  test.each(Object.entries(ATTACKS))('%s', async (_name, { export: own = {}, ask = 'read', says, attack }) => {
    const { server, client } = await faked({ contexts: CONTEXTS, ...own });
    const target = new Uint8Array(LENGTH).fill(0x55);
    const ways = {
      read: () => client.read(LENGTH, target),
      'read in one piece': () => client.read(LENGTH, target, { df: true }),
      write: () => client.write(LENGTH, new Uint8Array(LENGTH)),
      status: () => client.blockStatus(LENGTH, LENGTH),
      'one extent': () => client.blockStatus(LENGTH, LENGTH, { one: true }),
    };
    const outcome = expect(ways[ask]()).rejects.toMatchObject({ code: 'EIO', message: says });
    const other = expect(client.write(0, new Uint8Array(16))).rejects.toMatchObject({ code: 'EIO', message: says });
    attack(server, await server.request());
    await outcome;
    await other;
    await server.whenClosed();
    // Never what was in memory before.
    if (ask.startsWith('read')) expect(target).toEqual(new Uint8Array(LENGTH));
    await client.close();
  });

  test('a second answer to one request', async () => {
    const { server, client } = await faked();
    const first = client.read(0, new Uint8Array(16));
    const request = await server.request();
    server.chunk(request, offsetHole, hole(0, 16));
    await first;
    const second = expect(client.read(0, new Uint8Array(16))).rejects.toMatchObject({
      message: 'The server answered a request that was not sent',
    });
    await server.request();
    server.chunk(request, offsetHole, hole(0, 16));
    await second;
    await client.close();
  });

  test('an error type that is not known fails only that request', async () => {
    const { server, client } = await faked();
    const target = new Uint8Array(16).fill(1);
    const failed = expect(client.read(0, target)).rejects.toMatchObject({ code: 'ENOSPC' });
    server.chunk(await server.request(), 0xc001, errorChunk(28, 'and more that nobody understands', 3));
    await failed;
    expect(target).toEqual(new Uint8Array(16));
    const next = client.read(16, target);
    server.chunk(
      await server.request(),
      offsetData,
      bytes(24, (view) => view.setBigUint64(0, 16n)),
    );
    await next;
    await client.close();
  });

  test('reply flags that are not known are ignored (N-135)', async () => {
    const { server, client } = await faked();
    const reading = client.read(0, new Uint8Array(16));
    const { cookieLow } = await server.request();
    const head = bytes(20, (view) => {
      view.setUint32(0, 0x668e33ef);
      view.setUint16(4, 0xfff1);
      view.setUint16(6, offsetHole);
      view.setUint32(12, cookieLow);
      view.setUint32(16, 12);
    });
    server.send(head, hole(0, 16));
    await reading;
    await client.close();
  });
});

describe('errors of requests (N-68)', () => {
  const CODES = [
    [1, 'EPERM', 'Operation not permitted'],
    [5, 'EIO', 'Input/output error'],
    [12, 'ENOMEM', 'Cannot allocate memory'],
    [22, 'EINVAL', 'Invalid argument'],
    [28, 'ENOSPC', 'No space left on device'],
    [75, 'EOVERFLOW', 'Value too large for defined data type'],
    [95, 'ENOTSUP', 'Operation not supported'],
    [77777, 'EINVAL', 'Invalid argument'],
  ] as const;

  test.each(CODES)('number %i is %s', async (number, code, text) => {
    const { server, client } = await faked();
    const plain = expect(client.write(0, new Uint8Array(4))).rejects.toMatchObject({ code, message: text });
    const write = await server.request();
    await server.take(4);
    server.simple(write, number);
    await plain;
    const told = `${text} (server reported: the disk? is on fire)`;
    const structured = expect(client.read(0, new Uint8Array(4))).rejects.toMatchObject({ code, message: told });
    const request = await server.request();
    // What would upset a terminal is taken out; the first of several errors counts.
    server.chunk(request, errorOffset, errorChunk(number, 'the disk\u0007 is on fire', undefined, 1), false);
    server.chunk(request, error, errorChunk(28, 'and again'));
    await structured;
    await client.close();
  });

  test('a read that fails halfway leaves zeroes (N-134)', async () => {
    const { server, client } = await faked();
    const target = new Uint8Array(LENGTH).fill(0x55);
    const reading = expect(client.read(0, target)).rejects.toMatchObject({ code: 'EIO' });
    const request = await server.request();
    server.chunk(request, offsetData, content(0, 1024), false);
    server.chunk(request, errorOffset, errorChunk(5, '', 0, 1024));
    await reading;
    expect(target).toEqual(new Uint8Array(LENGTH));
    await client.close();
  });

  test('ESHUTDOWN: what is under way is finished, then the client says goodbye (N-68)', async () => {
    const { server, client } = await faked();
    const first = client.read(0, new Uint8Array(16));
    const refused = expect(client.read(16, new Uint8Array(16))).rejects.toMatchObject({ code: 'EIO' });
    const [one, two] = [await server.request(), await server.request()];
    server.chunk(two, error, errorChunk(108, 'going away'));
    await refused;
    await expect(client.read(0, new Uint8Array(16))).rejects.toMatchObject({ code: 'EIO' });
    server.chunk(one, offsetHole, hole(0, 16));
    await first;
    expect(await server.request()).toMatchObject({ command: Command.disconnect });
    await client.close();
  });
});
