/** The client's side of the handshake by the bytes (N-10, N-13, N-130, N-134, N-135, N-136, N-139). */
import { describe, expect, test } from 'vitest';
import type { ByteStream } from '../../src/core/byte-stream.ts';
import { NbdClient } from '../../src/nbd/client/client.ts';
import { HandshakeFlag, Option, ReplyType } from '../../src/nbd/protocol.ts';
import { optionReply } from '../../src/nbd/wire.ts';
import {
  blockSizeInfo,
  bytes,
  clientOptions,
  exportInfo,
  FakeServer,
  faked,
  hostWith,
  Loopback,
} from '../support/nbd-client.ts';

const hex = (data: Uint8Array) => Buffer.from(data).toString('hex');
const text = (message: string) => new TextEncoder().encode(message);

interface Opening {
  readonly server: FakeServer;
  readonly opening: Promise<NbdClient>;
}

function open(options: Partial<Parameters<typeof NbdClient.open>[0]> = {}): Opening {
  const server = new FakeServer();
  const host = hostWith(async () => server.clientEnd);
  const handshake = { export: 'disk', contexts: ['base:allocation'] };
  const opening = NbdClient.open(clientOptions(host, { handshake, ...options }));
  opening.catch(() => {});
  return { server, opening };
}

/** Answers options with errors up to `last`, and returns its data. */
async function upTo({ server }: Opening, last: number): Promise<Uint8Array> {
  await server.greet();
  for (;;) {
    const { option, data } = await server.option();
    if (option === last) return data;
    server.reply(option, ReplyType.errUnsup);
  }
}

describe('frames (N-10), order (N-130)', () => {
  test('with extended headers, contexts and block sizes', async () => {
    const { server, opening } = open();
    const flags = server.greet();
    expect(await flags).toBe(3);
    const first = await server.take(16);
    expect(hex(first)).toBe('49484156454f5054' + '0000000b' + '00000000');
    server.reply(Option.extendedHeaders, ReplyType.ack);
    const second = await server.take(16 + 31);
    expect(hex(second)).toBe(
      '49484156454f5054' +
        '0000000a' +
        '0000001f' +
        '00000004' +
        '6469736b' +
        '00000001' +
        '0000000f' +
        hex(text('base:allocation')),
    );
    server.reply(
      Option.setMetaContext,
      ReplyType.metaContext,
      bytes(4, (view) => view.setUint32(0, 5), text('base:allocation')),
    );
    server.reply(Option.setMetaContext, ReplyType.ack);
    const third = await server.take(16 + 12);
    expect(hex(third)).toBe('49484156454f5054' + '00000007' + '0000000c' + '00000004' + '6469736b' + '0001' + '0003');
    server.reply(Option.go, ReplyType.info, exportInfo(4096, 0x1 | 0x100));
    server.reply(Option.go, ReplyType.info, blockSizeInfo(512, 4096, 65536));
    server.reply(
      Option.go,
      ReplyType.info,
      bytes(2, (view) => view.setUint16(0, 2), text('about it')),
    );
    // Unknown kinds are ignored (N-135).
    server.reply(
      Option.go,
      ReplyType.info,
      bytes(2, (view) => view.setUint16(0, 77), text('?')),
    );
    server.reply(Option.go, ReplyType.ack);
    const client = await opening;
    expect(client.agreement).toEqual({
      size: 4096,
      flags: 0x101,
      structured: true,
      extended: true,
      contexts: new Map([['base:allocation', 5]]),
      blockSize: { minimum: 512, preferred: 4096, maximum: 65536 },
      description: 'about it',
    });
    const closing = client.close();
    // Extended requests have 32 bytes; this one is the goodbye (N-139).
    expect(hex(await server.take(32))).toBe(`21e41c71${'0000'}${'0002'}${'00'.repeat(24)}`);
    server.stream.destroy();
    await closing;
  });

  test('without extended headers structured replies; without these no contexts', async () => {
    const { server, opening } = open();
    await server.greet();
    const seen: number[] = [];
    for (;;) {
      const { option } = await server.option();
      seen.push(option);
      if (option === Option.go) break;
      server.reply(option, ReplyType.errUnsup);
    }
    expect(seen).toEqual([Option.extendedHeaders, Option.structuredReply, Option.go]);
    server.reply(Option.go, ReplyType.info, exportInfo(1000, 0));
    server.reply(Option.go, ReplyType.ack);
    const client = await opening;
    expect(client.agreement).toMatchObject({ structured: false, extended: false, contexts: new Map() });
    await client.close();
  });

  test('GO that is not known: EXPORT_NAME, with and without its zeroes', async () => {
    for (const flags of [HandshakeFlag.fixedNewstyle, HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes]) {
      const { server, opening } = open();
      expect(await server.greet(flags)).toBe(flags);
      for (;;) {
        const { option, data } = await server.option();
        if (option !== Option.exportName) server.reply(option, ReplyType.errUnsup);
        else {
          expect(hex(data)).toBe(hex(text('disk')));
          break;
        }
      }
      const zeroes = new Uint8Array(flags === HandshakeFlag.fixedNewstyle ? 124 : 0);
      server.send(exportInfo(8192, 0x3).subarray(2), zeroes);
      expect((await opening).facts).toMatchObject({ size: 8192, readOnly: true });
      await (await opening).close();
    }
  });

  test('never EXPORT_NAME after extended headers', async () => {
    const { server, opening } = open({ handshake: { export: '', contexts: [] } });
    await server.greet();
    await server.option();
    server.reply(Option.extendedHeaders, ReplyType.ack);
    await server.option();
    server.reply(Option.go, ReplyType.errUnsup);
    await expect(opening).rejects.toThrow(/^The server took extended headers, but does not know GO$/);
  });

  test('a server without the fixed handshake is asked for the export by name alone', async () => {
    const { server, opening } = open();
    expect(await server.greet(0)).toBe(0);
    expect((await server.option()).option).toBe(Option.exportName);
    server.send(exportInfo(512, 1).subarray(2), new Uint8Array(124));
    expect((await opening).facts.size).toBe(512);
    await (await opening).close();
  });

  test('HAS_FLAGS unset: no feature (N-135)', async () => {
    const { client } = await faked({ flags: 0x0ffe });
    expect(client.agreement.flags).toBe(0);
    expect(client.facts).toMatchObject({ readOnly: false, canFlush: false, canTrim: false, manyConnections: false });
    await client.close();
  });
});

describe('what is no NBD server, or not one for us (N-13)', () => {
  const GREETINGS = {
    'HTTP/1.1 400 Bad Request': 'Bad initial magic received: 0x485454502f312e31',
    'NBDMAGIC\u0000\u0000B\u0002\u0081\u0086\u0012S........': 'Server speaks only the oldstyle NBD handshake',
    'NBDMAGIC12345678..': 'Bad server magic received: 0x3132333435363738',
  };
  test.each(Object.entries(GREETINGS))('%j', async (greeting, says) => {
    const { server, opening } = open();
    server.send(Uint8Array.from(greeting, (char) => char.charCodeAt(0)));
    await expect(opening).rejects.toMatchObject({ code: 'EINVAL', message: says });
    await server.whenClosed();
    // Not a byte to a stranger.
    expect(server.input.length).toBe(0);
  });
});

describe('refusals (N-106, N-130)', () => {
  test('an unknown export, with what the server says, and a goodbye (N-139)', async () => {
    const asked = open();
    await upTo(asked, Option.go);
    asked.server.reply(Option.go, ReplyType.errUnknown, text("export 'disk' not present"));
    await expect(asked.opening).rejects.toMatchObject({
      code: 'ENOENT',
      message: "Requested export not available\nserver reported: export 'disk' not present",
    });
    expect((await asked.server.option()).option).toBe(Option.abort);
  });

  test('TLS that is required', async () => {
    const asked = open();
    await upTo(asked, Option.go);
    asked.server.reply(Option.go, ReplyType.errTlsReqd, text('Option 0x7 not permitted before TLS'));
    await expect(asked.opening).rejects.toMatchObject({
      message: 'TLS negotiation required before option 7 (go)',
      hint: 'Did you forget a valid tls-creds?\nserver reported: Option 0x7 not permitted before TLS',
    });
  });

  test('TLS that is refused: never plain text then (N-106)', async () => {
    const asked = open({ startTls: async (stream) => stream });
    await asked.server.greet();
    expect((await asked.server.option()).option).toBe(Option.starttls);
    asked.server.reply(Option.starttls, ReplyType.errPolicy, text('TLS not configured'));
    await expect(asked.opening).rejects.toThrow(
      'Denied by server for option 5 (starttls)\nserver reported: TLS not configured',
    );
    expect((await asked.server.option()).option).toBe(Option.abort);
  });

  test('plain text behind the acknowledgement of STARTTLS is injected (N-103)', async () => {
    const asked = open({ startTls: async (stream) => stream });
    await asked.server.greet();
    await asked.server.option();
    const ack = optionReply(Option.starttls, ReplyType.ack, new Uint8Array(0));
    asked.server.send(new Uint8Array([...ack, 0]));
    await expect(asked.opening).rejects.toThrow(/^The server sent plain text after starttls$/);
    await asked.server.whenClosed();
  });

  test('a server that leaves with its last word is not waited for', async () => {
    const asked = open();
    await upTo(asked, Option.go);
    asked.server.reply(Option.go, ReplyType.info, exportInfo(4096, 1));
    // The end comes in the same turn as the acknowledgement, before anyone else listens.
    const ack = optionReply(Option.go, ReplyType.ack, new Uint8Array(0));
    asked.server.stream.write([ack], () => {});
    asked.server.stream.end();
    const client = await asked.opening;
    await expect(client.read(0, new Uint8Array(4))).rejects.toMatchObject({ code: 'EIO' });
    await client.close();
  });

  test('a server that leaves in the middle', async () => {
    const asked = open();
    await asked.server.greet();
    asked.server.stream.destroy();
    await expect(asked.opening).rejects.toMatchObject({
      code: 'ECONNRESET',
      message: 'The server ended the connection during the handshake',
    });
  });
});

describe('a hostile server is left without a word (N-134)', () => {
  const GO: Readonly<Record<string, [Uint8Array, string]>> = {
    'a size of 2^53': [exportInfo(2n ** 53n, 1), 'The export is larger than 2^53 bytes'],
    'a size of 2^64 - 1': [exportInfo(2n ** 64n - 1n, 1), 'The export is larger than 2^53 bytes'],
    'a minimum of 0': [blockSizeInfo(0, 4096, 65536), 'server advertised minimum block size 0'],
    'a minimum that is no power of two': [blockSizeInfo(513, 4096, 65536), 'server advertised minimum block size 513'],
    'a minimum above 64 KiB': [blockSizeInfo(131072, 131072, 2 ** 25), 'server advertised minimum block size 131072'],
    'a preferred size that is no power of two': [
      blockSizeInfo(512, 4097, 65536),
      'server advertised preferred block size 4097',
    ],
    'a preferred size below the minimum': [
      blockSizeInfo(4096, 512, 65536),
      'server advertised preferred block size 512',
    ],
    'a maximum below the preferred': [blockSizeInfo(512, 4096, 2048), 'server advertised maximum block size 2048'],
    'a short EXPORT': [exportInfo(1, 1).subarray(0, 11), 'The information about the export has the wrong length'],
    'a long BLOCK_SIZE': [
      new Uint8Array([...blockSizeInfo(1, 1, 1), 0]),
      'The information about block sizes has the wrong length',
    ],
    'an empty INFO': [new Uint8Array(1), 'Unexpected reply to go'],
  };
  test.each(Object.entries(GO))('%s', async (_name, [info, says]) => {
    const asked = open();
    await upTo(asked, Option.go);
    asked.server.reply(Option.go, ReplyType.info, info);
    await expect(asked.opening).rejects.toMatchObject({ code: 'EINVAL', message: says });
    await asked.server.whenClosed();
    expect(asked.server.input.length).toBe(0);
  });

  test('EXPORT missing before ACK', async () => {
    const asked = open();
    await upTo(asked, Option.go);
    asked.server.reply(Option.go, ReplyType.ack);
    await expect(asked.opening).rejects.toThrow(/^The server did not tell the size of the export$/);
  });

  const REPLIES: Readonly<Record<string, [Uint8Array, string]>> = {
    'a wrong magic': [new Uint8Array(20), 'Unexpected option reply magic'],
    'a reply to another option': [
      optionReply(Option.list, ReplyType.ack, new Uint8Array(0)),
      'The server answered option 3, not 11',
    ],
    'an acknowledgement with data': [
      optionReply(Option.extendedHeaders, ReplyType.ack, new Uint8Array(1)),
      'The acknowledgement of option 11 holds data',
    ],
    'a reply of more than 8300 bytes, of which nothing is waited for': [
      optionReply(Option.extendedHeaders, ReplyType.errUnsup, new Uint8Array(8301)).subarray(0, 20),
      'A reply of 8301 bytes to option 11 is too long',
    ],
  };
  test.each(Object.entries(REPLIES))('%s', async (_name, [reply, says]) => {
    const asked = open();
    await asked.server.greet();
    await asked.server.option();
    asked.server.send(reply);
    await expect(asked.opening).rejects.toThrow(says);
    await asked.server.whenClosed();
  });

  test('more than 65536 replies to one option', async () => {
    const asked = open();
    await upTo(asked, Option.go);
    const info = optionReply(
      Option.go,
      ReplyType.info,
      bytes(2, (view) => view.setUint16(0, 77)),
    );
    const many = new Uint8Array(info.length * 65537);
    for (let at = 0; at < many.length; at += info.length) many.set(info, at);
    asked.server.send(many);
    await expect(asked.opening).rejects.toThrow(/^The server sent more than 65536 replies to option 7$/);
  });

  const CONTEXTS: Readonly<Record<string, [(readonly [number, string])[], string]>> = {
    'a context that was not asked for': [
      [[1, 'qemu:dirty-bitmap:x']],
      "The server chose the context 'qemu:dirty-bitmap:x'",
    ],
    'a context twice': [
      [
        [1, 'base:allocation'],
        [2, 'base:allocation'],
      ],
      "The server chose the context 'base:allocation' twice, or gave its number to two",
    ],
  };
  test.each(Object.entries(CONTEXTS))('%s', async (_name, [chosen, says]) => {
    const asked = open();
    await asked.server.greet();
    await asked.server.option();
    asked.server.reply(Option.extendedHeaders, ReplyType.ack);
    await asked.server.option();
    for (const [id, name] of chosen) {
      asked.server.reply(
        Option.setMetaContext,
        ReplyType.metaContext,
        bytes(4, (view) => view.setUint32(0, id), text(name)),
      );
    }
    await expect(asked.opening).rejects.toThrow(says);
  });
});

describe('opening can be cancelled at any step (N-136)', () => {
  const reason = new TypeError('enough');

  test('before it begins, and while connecting', async () => {
    await expect(open({ signal: AbortSignal.abort(reason) }).opening).rejects.toBe(reason);
    const stop = new AbortController();
    const host = hostWith(
      (_address, { signal } = {}) =>
        new Promise((_resolve, reject) => signal?.addEventListener('abort', () => reject(signal.reason))),
    );
    const opening = NbdClient.open(clientOptions(host, { signal: stop.signal }));
    stop.abort(reason);
    await expect(opening).rejects.toBe(reason);
  });

  test.each([0, 1, 2, 3])('after %i answers to options, with a goodbye (N-139)', async (answers) => {
    const stop = new AbortController();
    const { server, opening } = open({ signal: stop.signal, handshake: { export: '', contexts: ['a:b'] } });
    await server.greet();
    for (let answer = 0; answer < answers; answer++) {
      const { option } = await server.option();
      server.reply(option, option === Option.extendedHeaders ? ReplyType.errUnsup : ReplyType.ack);
    }
    const last = await server.option();
    expect(last.option).toBe(
      [Option.extendedHeaders, Option.structuredReply, Option.setMetaContext, Option.go][answers],
    );
    stop.abort(reason);
    await expect(opening).rejects.toBe(reason);
    expect((await server.option()).option).toBe(Option.abort);
    await server.whenClosed();
  });

  test('while TLS begins', async () => {
    const stop = new AbortController();
    const startTls = () => new Promise<never>(() => {});
    const never = open({ signal: stop.signal, startTls: (stream) => Promise.race([startTls(), gone(stream)]) });
    await never.server.greet();
    await never.server.option();
    never.server.reply(Option.starttls, ReplyType.ack);
    await new Promise((resolve) => setImmediate(resolve));
    stop.abort(reason);
    await expect(never.opening).rejects.toBe(reason);
    await never.server.whenClosed();
  });
});

/** As an encryption does when its stream is lost. */
function gone(stream: ByteStream): Promise<never> {
  return new Promise((_resolve, reject) => {
    stream.listen({ data() {}, end() {}, close: () => reject(new TypeError('lost')) });
  });
}

describe('against our own server', () => {
  const WAYS = {
    extended: {},
    structured: { noExtendedHeaders: true },
    simple: { simpleReplies: true },
  };
  test.each(Object.entries(WAYS))('%s', async (way, handshake) => {
    const loop = await Loopback.start();
    const client = await loop.client({}, { ...handshake, contexts: ['base:allocation'] });
    expect(client.agreement).toMatchObject({
      size: 1 << 20,
      structured: way !== 'simple',
      extended: way === 'extended',
      blockSize: { minimum: 1, preferred: 4096, maximum: 32 * 1024 * 1024 },
    });
    expect([...client.agreement.contexts.keys()]).toEqual(way === 'simple' ? [] : ['base:allocation']);
    const data = Uint8Array.from({ length: 200_000 }, (_, index) => index % 251);
    await client.write(1000, data);
    const back = new Uint8Array(300_000);
    await client.read(0, back);
    expect(Buffer.compare(back.subarray(1000, 201_000), data)).toBe(0);
    expect(back.subarray(0, 1000).every((byte) => byte === 0)).toBe(true);
    await client.writeZeroes(1000, 100_000);
    await client.trim(101_000, 1000);
    await client.flush();
    await client.read(0, back);
    expect(back.subarray(0, 101_000).every((byte) => byte === 0)).toBe(true);
    await expect(client.read((1 << 20) - 1, new Uint8Array(2))).rejects.toMatchObject({ code: 'EINVAL' });
    await client.close();
    await loop.server.close();
  });
});
