/** The server's side of the handshake (N-10, N-20 to N-27, N-103), by the bytes. */
import { describe, expect, test } from 'vitest';
import { viewOf } from '../../src/bytes/big-endian.ts';
import { Option, ReplyType } from '../../src/nbd/protocol.ts';
import { clientFlags, optionFrame } from '../../src/nbd/wire.ts';
import { metaQuery, nameAndInfos, type RawClient, served, settled, uint32 } from '../support/nbd.ts';

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const UNKNOWN = 77;

async function haggling(options: Parameters<typeof served>[0] = {}) {
  const setting = await served(options);
  const client = setting.client();
  await client.greeting();
  return { ...setting, client };
}

/** The connection still parses options. */
async function expectAlive(client: RawClient): Promise<void> {
  expect((await client.option(Option.list)).at(-1)?.type).toBe(ReplyType.ack);
}

async function expectClosed(client: RawClient): Promise<void> {
  await settled();
  expect(client.closed).not.toBe('no');
}

describe('greeting and flags', () => {
  test('18 bytes with both flags (N-10, N-20)', async () => {
    const { client } = await served();
    expect(hex(await client().take(18))).toBe('4e42444d41474943' + '49484156454f5054' + '0003');
  });

  test('unknown client flags: close (N-20)', async () => {
    const { client, log } = await served();
    const one = client();
    await one.take(18);
    one.send(clientFlags(0x80000003));
    await expectClosed(one);
    expect(log).toEqual(['option negotiation failed: Unknown client flags 0x80000003 received']);
  });

  test('a client without FIXED_NEWSTYLE has EXPORT_NAME only (N-20)', async () => {
    const { client } = await served();
    const old = client();
    await old.greeting(0);
    old.send(optionFrame(Option.exportName, new Uint8Array(0)));
    const reply = await old.take(134);
    expect([viewOf(reply).getBigUint64(0), viewOf(reply).getUint16(8)]).toEqual([1n << 20n, 0xd6d]);
    expect(hex(reply.subarray(10))).toBe('00'.repeat(124));
    expect(await old.read(0, 4)).toEqual(new Uint8Array(4));
    const other = client();
    await other.greeting(0);
    other.send(optionFrame(Option.list, new Uint8Array(0)));
    await expectClosed(other);
  });

  test('wrong option magic: close (N-20)', async () => {
    const { client } = await haggling();
    client.send(new Uint8Array(16).fill(0x49));
    await expectClosed(client);
  });

  test('10 s from the greeting to transmission, however busy (N-21)', async () => {
    const { client, clock, log } = await haggling();
    for (let second = 0; second < 9; second++) {
      await clock.pass(1000);
      await expectAlive(client);
    }
    await clock.pass(1000);
    expect(client.closed).toBe('cut');
    expect(log).toEqual(['option negotiation failed: it took too long']);
  });

  test.each([0, 1000])('a handshake timeout of %i ms (N-21)', async (handshakeTimeoutMs) => {
    const { client, clock } = await haggling({ handshakeTimeoutMs });
    await clock.pass(999);
    expect(client.closed).toBe('no');
    await clock.pass(1e9);
    expect(client.closed).toBe(handshakeTimeoutMs === 0 ? 'no' : 'cut');
  });

  test('in transmission there is no such limit (N-21)', async () => {
    const { client, clock } = await served();
    const one = await client().connect();
    await clock.pass(1e9);
    expect(await one.read(0, 1)).toEqual(new Uint8Array(1));
  });
});

describe('lengths of options (N-22)', () => {
  test('an unknown one is skipped up to 32 MiB without being kept, and closes beyond', async () => {
    const { client } = await haggling();
    const length = 32 << 20;
    client.send(optionFrame(UNKNOWN, new Uint8Array(0)).subarray(0, 12), uint32(length));
    for (let sent = 0; sent < length; sent += 1 << 20) client.send(new Uint8Array(1 << 20));
    expect(await client.optionReplies(UNKNOWN)).toMatchObject([
      { type: ReplyType.errUnsup, text: 'Unsupported option 77 (<unknown>)' },
    ]);
    await expectAlive(client);
    client.send(optionFrame(UNKNOWN, new Uint8Array(0)).subarray(0, 12), uint32(length + 1));
    await expectClosed(client);
  });

  test('a known one is kept up to 64 KiB, and is too big beyond', async () => {
    const { client } = await haggling();
    expect((await client.option(Option.go, new Uint8Array(65536))).at(-1)?.type).toBe(ReplyType.errInvalid);
    expect(await client.option(Option.go, new Uint8Array(65537))).toMatchObject([{ type: ReplyType.errTooBig }]);
    await expectAlive(client);
  });

  test.each<[string, Uint8Array]>([
    ['empty', new Uint8Array(0)],
    ['cut in the name', uint32(10)],
    ['cut before the count', nameAndInfos('abc').subarray(0, 8)],
    ['with bytes left over', Buffer.concat([nameAndInfos('abc'), uint32(0)])],
    ['with fewer infos than counted', nameAndInfos('abc', [1, 2]).subarray(0, 11)],
    ['with a name of 4097 bytes', nameAndInfos('x'.repeat(4097))],
    ['with a NUL in the name', nameAndInfos('a\0b')],
    ['with a name that is no UTF-8', nameAndInfos(Uint8Array.of(0xff, 0xfe))],
  ])('GO %s: INVALID, and haggling goes on', async (_what, data) => {
    const { client } = await haggling();
    expect(await client.option(Option.go, data)).toMatchObject([{ type: ReplyType.errInvalid }]);
    await expectAlive(client);
  });

  test('a name of 4096 bytes is a name', async () => {
    const name = 'é'.repeat(2048);
    const { client } = await haggling({ export: { name } });
    expect((await client.go(name)).at(-1)?.type).toBe(ReplyType.ack);
  });
});

describe('options (N-23, N-24)', () => {
  test('EXPORT_NAME: size and flags without zeroes, then transmission', async () => {
    const { client } = await haggling();
    client.send(optionFrame(Option.exportName, new Uint8Array(0)));
    expect(hex(await client.take(10))).toBe(`${'0000000000100000'}0d6d`);
    expect(await client.read(0, 3)).toEqual(new Uint8Array(3));
  });

  test.each(['nope', 'x'.repeat(4097)])('EXPORT_NAME of an unknown or long name: close', async (name) => {
    const { client } = await haggling();
    client.send(optionFrame(Option.exportName, new TextEncoder().encode(name)));
    await expectClosed(client);
  });

  test('EXPORT_NAME after extended headers: close', async () => {
    const { client } = await haggling();
    await client.extendedHeaders();
    client.send(optionFrame(Option.exportName, new Uint8Array(0)));
    await expectClosed(client);
  });

  test('ABORT: ACK, close; also when the client has gone, and whatever its data', async () => {
    for (const gone of [false, true]) {
      const { client, log } = await haggling();
      client.send(optionFrame(Option.abort, Uint8Array.of(1, 2, 3)));
      if (gone) client.end();
      expect(await client.optionReplies(Option.abort)).toMatchObject([{ type: ReplyType.ack }]);
      await expectClosed(client);
      expect(log).toEqual([]);
    }
  });

  test('LIST: names and descriptions', async () => {
    const { client, server, disk } = await haggling({ export: { name: 'a', description: 'first' } });
    server.addExport(disk, { name: 'b' });
    const replies = await client.option(Option.list);
    expect(replies.map(({ type, data }) => [type, hex(data)])).toEqual([
      [ReplyType.server, hex(Buffer.concat([uint32(1), Buffer.from('afirst')]))],
      [ReplyType.server, hex(Buffer.concat([uint32(1), Buffer.from('b')]))],
      [ReplyType.ack, ''],
    ]);
  });

  test.each([Option.list, Option.structuredReply, Option.extendedHeaders])(
    'option %i takes no data',
    async (option) => {
      const { client } = await haggling();
      expect(await client.option(option, Uint8Array.of(1))).toMatchObject([{ type: ReplyType.errInvalid }]);
      await expectAlive(client);
    },
  );

  test('INFO and GO: what is told always, and what is asked for', async () => {
    const { client } = await haggling({ export: { name: 'real', description: 'text', default: true } });
    const kinds = (replies: { data: Uint8Array; type: number }[]) =>
      replies.filter(({ type }) => type === ReplyType.info).map(({ data }) => viewOf(data).getUint16(0));
    const plain = await client.option(Option.info, nameAndInfos(''));
    expect(kinds(plain).sort()).toEqual([0, 2, 3]);
    const asked = await client.option(Option.info, nameAndInfos('', [1, 99, 3]));
    expect(kinds(asked).sort()).toEqual([0, 1, 2, 3]);
    const byKind = new Map(asked.map(({ data }) => [data.length > 1 ? viewOf(data).getUint16(0) : -1, data]));
    expect(hex(byKind.get(0) ?? new Uint8Array())).toBe(`0000${'0000000000100000'}0d6d`);
    expect(new TextDecoder().decode(byKind.get(1)?.subarray(2))).toBe('real');
    expect(new TextDecoder().decode(byKind.get(2)?.subarray(2))).toBe('text');
    expect(hex(byKind.get(3) ?? new Uint8Array())).toBe('0003' + '00000001' + '00001000' + '02000000');
    // The same again, and then requests.
    expect(await client.go('', [1, 99, 3])).toEqual(asked);
    expect(await client.read(0, 2)).toEqual(new Uint8Array(2));
  });

  test('requests that came right behind GO are answered', async () => {
    const { client } = await haggling();
    client.send(optionFrame(Option.go, nameAndInfos('')));
    client.request(0, { length: 5, cookie: 9 });
    await client.optionReplies(Option.go);
    expect(await client.reply(5)).toMatchObject({ cookie: 9, error: 0, payload: new Uint8Array(5) });
  });

  test('an unknown export: UNKNOWN, and haggling goes on', async () => {
    const { client } = await haggling();
    for (const option of [Option.info, Option.go]) {
      const replies = await client.option(option, nameAndInfos('nope'));
      expect(replies).toMatchObject([{ type: ReplyType.errUnknown, text: "export 'nope' not present" }]);
    }
    await expectAlive(client);
  });

  test('structured replies and extended headers, twice and in either order', async () => {
    const { client } = await haggling();
    const type = async (option: number) => (await client.option(option)).map((reply) => [reply.type, reply.text]);
    expect(await type(Option.structuredReply)).toEqual([[ReplyType.ack, '']]);
    expect(await type(Option.structuredReply)).toEqual([[ReplyType.errInvalid, 'structured reply already negotiated']]);
    expect(await type(Option.extendedHeaders)).toEqual([[ReplyType.ack, '']]);
    expect((await type(Option.extendedHeaders))[0]?.[0]).toBe(ReplyType.errInvalid);
    expect((await type(Option.structuredReply))[0]?.[0]).toBe(ReplyType.errExtHeaderReqd);
  });

  test('option 4 is unknown', async () => {
    const { client } = await haggling();
    expect(await client.option(4)).toMatchObject([{ text: 'Unsupported option 4 (<unknown>)' }]);
  });
});

describe('names of exports (N-12, N-25)', () => {
  test('the empty one: the default, else the one named so, else none', async () => {
    const { client, server, disk } = await haggling({ export: { name: 'a' } });
    const nameOf = async () => {
      const replies = await client.option(Option.info, nameAndInfos('', [1]));
      const found = replies.find(({ type, data }) => type === ReplyType.info && viewOf(data).getUint16(0) === 1);
      return found === undefined ? undefined : new TextDecoder().decode(found.data.subarray(2));
    };
    expect(await nameOf()).toBeUndefined();
    server.addExport(disk, { name: '' });
    expect(await nameOf()).toBe('');
    server.addExport(disk, { name: 'c', default: true });
    expect(await nameOf()).toBe('c');
  });

  test('are compared by bytes', async () => {
    const { client } = await haggling({ export: { name: 'é' } });
    expect((await client.go('e\u0301')).at(-1)?.type).toBe(ReplyType.errUnknown);
    expect((await client.go('é')).at(-1)?.type).toBe(ReplyType.ack);
  });
});

describe('meta contexts (N-26)', () => {
  const EXPORT = { allocationDepth: true };
  const names = (replies: { type: number; text: string }[]) =>
    replies.filter(({ type }) => type === ReplyType.metaContext).map(({ text }) => text.slice(4));

  test('LIST: all without a query, by namespace, and before structured replies', async () => {
    const { client } = await haggling({ export: EXPORT });
    const list = async (...queries: string[]) =>
      names(await client.option(Option.listMetaContext, metaQuery('', queries)));
    expect(await list()).toEqual(['base:allocation', 'qemu:allocation-depth']);
    expect(await list('base:')).toEqual(['base:allocation']);
    expect(await list('qemu:')).toEqual(['qemu:allocation-depth']);
    expect(await list('qemu:dirty-bitmap:', 'other:', 'nocolon', 'x'.repeat(5000))).toEqual([]);
  });

  test('SET: exact names only, each once, with ids from 1', async () => {
    const { client } = await haggling({ export: EXPORT });
    await client.structuredReplies();
    const set = await client.option(
      Option.setMetaContext,
      metaQuery('', ['base:', 'qemu:', 'qemu:allocation-depth', 'base:allocation', 'base:allocation']),
    );
    expect(names(set)).toEqual(['base:allocation', 'qemu:allocation-depth']);
    expect(set.slice(0, 2).map(({ data }) => viewOf(data).getUint32(0))).toEqual([1, 2]);
    expect(names(await client.option(Option.setMetaContext, metaQuery('', [])))).toEqual([]);
  });

  test('SET before structured replies: INVALID; unknown export: UNKNOWN; 4097 queries: TOO_BIG', async () => {
    const { client } = await haggling();
    const last = async (data: Uint8Array) => (await client.option(Option.setMetaContext, data)).at(-1)?.type;
    expect(await last(metaQuery('', ['base:allocation']))).toBe(ReplyType.errInvalid);
    await client.structuredReplies();
    expect(await last(metaQuery('nope', []))).toBe(ReplyType.errUnknown);
    expect(await last(metaQuery('', Array(4096).fill('a')))).toBe(ReplyType.ack);
    expect(await last(metaQuery('', Array(4097).fill('a')))).toBe(ReplyType.errTooBig);
    expect(await last(Buffer.concat([metaQuery('', ['a']), uint32(0)]))).toBe(ReplyType.errInvalid);
  });

  test.each<[string, (client: RawClient) => Promise<unknown>, boolean]>([
    ['holds for its export', async () => {}, true],
    ['is forgotten by a SET that fails', (client) => client.option(Option.setMetaContext, Uint8Array.of(1)), false],
    ['is forgotten by an empty SET', (client) => client.option(Option.setMetaContext, metaQuery('', [])), false],
    [
      'does not hold for another name',
      (client) => client.option(Option.setMetaContext, metaQuery('a', ['base:allocation'])),
      false,
    ],
  ])('a choice %s', async (_what, then, holds) => {
    const { client, server, disk } = await haggling();
    server.addExport(disk, { name: 'a' });
    await client.structuredReplies();
    await client.option(Option.setMetaContext, metaQuery('', ['base:allocation']));
    await then(client);
    await client.go('');
    const outcome = client.status(0, 512).then(
      () => true,
      () => false,
    );
    expect(await outcome).toBe(holds);
  });
});

describe('stopping (N-27)', () => {
  test('every option but ABORT gets SHUTDOWN', async () => {
    const { client, server, clock } = await haggling();
    const closing = server.close();
    for (const option of [Option.list, Option.go, UNKNOWN]) {
      expect(await client.option(option)).toMatchObject([{ type: ReplyType.errShutdown }]);
    }
    expect(await client.option(Option.abort)).toMatchObject([{ type: ReplyType.ack }]);
    await clock.pass(1000);
    await closing;
  });
});

describe('TLS in the handshake (N-103)', () => {
  const tls = (required: boolean) => ({
    required,
    start: async (stream: RawClient['stream']) => ({ stream, identity: undefined }),
  });
  const withTls = (required: boolean) => haggling({ tls: tls(required) as never });

  test('off: POLICY', async () => {
    const { client } = await haggling();
    expect(await client.option(Option.starttls)).toMatchObject([
      { type: ReplyType.errPolicy, text: 'TLS not configured' },
    ]);
  });

  test('required: every other option is refused, known or not; ABORT is honoured', async () => {
    const { client } = await withTls(true);
    for (const option of [Option.list, Option.go, Option.structuredReply, UNKNOWN]) {
      expect(await client.option(option)).toMatchObject([
        { type: ReplyType.errTlsReqd, text: `Option 0x${option.toString(16)} not permitted before TLS` },
      ]);
    }
    expect(await client.option(Option.go, new Uint8Array(65537))).toMatchObject([{ type: ReplyType.errTlsReqd }]);
    expect(await client.option(Option.starttls, Uint8Array.of(1))).toMatchObject([{ type: ReplyType.errInvalid }]);
    expect(await client.option(Option.abort)).toMatchObject([{ type: ReplyType.ack }]);
  });

  test('required: EXPORT_NAME closes', async () => {
    const { client } = await withTls(true);
    client.send(optionFrame(Option.exportName, new Uint8Array(0)));
    await expectClosed(client);
  });

  test('after it all that was negotiated is forgotten, and a second STARTTLS is INVALID', async () => {
    const { client } = await withTls(false);
    await client.structuredReplies();
    expect(await client.option(Option.starttls)).toMatchObject([{ type: ReplyType.ack }]);
    await settled();
    expect(await client.option(Option.starttls)).toMatchObject([{ type: ReplyType.errInvalid }]);
    expect(await client.option(Option.structuredReply)).toMatchObject([{ type: ReplyType.ack }]);
  });

  test('plain text behind the option is injection: close', async () => {
    const { client } = await withTls(true);
    client.send(optionFrame(Option.starttls, new Uint8Array(0)), optionFrame(Option.list, new Uint8Array(0)));
    await client.optionReplies(Option.starttls);
    await expectClosed(client);
  });
});
