/** The server as a whole: exports, limits on clients, ends (N-30, N-70, N-71, N-75, N-80 to N-82, N-105, N-111). */
import { describe, expect, test } from 'vitest';
import { viewOf } from '../../src/bytes/big-endian.ts';
import { Command, Option, ReplyType } from '../../src/nbd/protocol.ts';
import { authorizeByRules, parseRules } from '../../src/nbd/server/authorize.ts';
import { clientFlags, encodeRequest, optionFrame } from '../../src/nbd/wire.ts';
import { nameAndInfos, type RawClient, type ServedOptions, served, settled } from '../support/nbd.ts';

const MIB = 1 << 20;

/** What INFO tells: size, flags, block sizes. */
async function facts(options: ServedOptions = {}, how: 'plain' | 'structured' = 'structured', asksSizes = false) {
  const { client } = await served(options);
  const one = client();
  await one.greeting();
  if (how === 'structured') await one.structuredReplies();
  const replies = await one.option(6, nameAndInfos('', asksSizes ? [3] : []));
  const info = (kind: number) => {
    const found = replies.find(({ type, data }) => type === 3 && viewOf(data).getUint16(0) === kind);
    return viewOf(found?.data ?? new Uint8Array(14));
  };
  const sizes = info(3);
  return {
    size: Number(info(0).getBigUint64(2)),
    flags: info(0).getUint16(10),
    blocks: [sizes.getUint32(2), sizes.getUint32(6), sizes.getUint32(10)],
  };
}

function gate(): { readonly open: () => void; readonly passed: Promise<void> } {
  let open = () => {};
  const passed = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, passed };
}

describe('transmission flags (N-30, N-75)', () => {
  test.each<[string, ServedOptions, number]>([
    ['writable, one client', { maxConnections: 1 }, 0xced],
    ['writable, shared', { maxConnections: 0 }, 0xded],
    ['read-only, one client', { maxConnections: 1, writable: false }, 0x48f],
    ['read-only, shared', { export: { readOnly: true } }, 0x58f],
    ['rotational', { maxConnections: 1, export: { rotational: true } }, 0xcfd],
  ])('%s', async (_what, options, flags) => {
    expect((await facts(options)).flags).toBe(flags);
    expect((await facts(options, 'plain')).flags).toBe(flags & ~0x80);
  });
});

describe('sizes (N-70, N-71)', () => {
  const aligned = (align: number, size: number) => ({
    tree: { driver: 'blkdebug', align, image: { driver: 'null-co', size } },
  });

  test.each<[string, ServedOptions, boolean, number[]]>([
    ['not asked: minimum 1', aligned(4096, MIB), false, [1, 4096, 33554432]],
    ['asked: the request alignment', aligned(4096, MIB), true, [4096, 4096, 33554432]],
    ['at most 64 KiB', aligned(1 << 20, MIB), true, [65536, 65536, 33554432]],
  ])('%s', async (_what, options, asks, blocks) => {
    expect((await facts(options, 'structured', asks)).blocks).toEqual(blocks);
  });

  test('a power of two that divides the size', async () => {
    const { blocks, size } = await facts({ ...aligned(4096, MIB), export: { size: MIB - 512 } }, 'structured', true);
    expect([blocks[0], size]).toEqual([512, MIB - 512]);
  });

  test('unaligned requests are served all the same', async () => {
    const { client, disk } = await served({
      tree: { driver: 'blkdebug', align: 4096, image: { driver: 'memory', size: MIB } },
    });
    const one = await client().connect('structured', [], [3]);
    one.write(4095, Uint8Array.of(1, 2));
    expect((await one.reply()).error).toBe(0);
    expect([...(await disk.read(4094, 4))]).toEqual([0, 1, 2, 0]);
  });

  test('the size is in bytes, not in sectors', async () => {
    expect((await facts({ tree: { driver: 'raw', file: { driver: 'memory', size: 1000 } } })).size).toBe(1000);
    const { client } = await served({ tree: { driver: 'raw', file: { driver: 'memory', size: 1000 } } });
    const one = await client().connect('structured');
    await expect(one.read(999, 2)).rejects.toThrow('operation past EOF; From: 999, Len: 2, Size: 1000');
  });

  test('a window of the disk', async () => {
    const { client, disk, server } = await served({ export: { offset: 4096, size: 8192 } });
    const one = await client().connect();
    one.write(0, Uint8Array.of(7));
    await one.reply();
    expect((await disk.read(4096, 1))[0]).toBe(7);
    await expect(one.read(8192, 1)).rejects.toThrow('past EOF');
    for (const wrong of [{ offset: MIB + 1 }, { offset: -1 }, { size: MIB + 1 }, { offset: MIB, size: 1 }]) {
      expect(() => server.addExport(disk, { name: 'w', ...wrong })).toThrow(/Export/);
    }
  });
});

describe('leaving (N-43, N-80)', () => {
  test.each(['DISC', 'the end of its half'])(
    '%s: all that came before is answered, then the server closes',
    async (how) => {
      const { client, disk, log } = await served();
      const one = await client().connect();
      const { open, passed } = gate();
      disk.flush = () => passed;
      for (let cookie = 0; cookie < 8; cookie++) one.request(Command.flush, { cookie });
      if (how === 'DISC') one.request(Command.disconnect, {});
      else one.end();
      // Bytes after DISC are ignored.
      if (how === 'DISC') one.send(new Uint8Array(100).fill(0xee));
      await settled();
      expect(one.closed).toBe('no');
      open();
      const cookies = new Set<number>();
      while (cookies.size < 8) cookies.add((await one.reply()).cookie);
      await settled();
      expect([one.closed, one.input.length, log]).toEqual(['end', 0, []]);
    },
  );

  test('in the middle of a write: nothing is written, nobody complains', async () => {
    const { client, disk, log, server } = await served();
    const one = await client().connect();
    one.request(Command.write, { length: 1000 });
    one.send(new Uint8Array(500).fill(1));
    one.end();
    await settled();
    expect([one.closed, log]).toEqual(['end', []]);
    one.stream.fail();
    await settled();
    expect(await disk.read(0, 1000)).toEqual(new Uint8Array(1000));
    expect(server.stats().connections).toBe(0);
  });

  test('a client that vanished: replies are dropped quietly, the server serves on', async () => {
    const { client, disk, server } = await served();
    const one = await client().connect();
    const { open, passed } = gate();
    disk.flush = () => passed;
    one.request(Command.flush, {});
    await settled();
    one.stream.fail();
    await settled();
    open();
    await settled();
    expect(server.stats().connections).toBe(0);
    expect(await (await client().connect()).read(0, 2)).toEqual(new Uint8Array(2));
  });

  test('a client that never closes its half is cut off a moment later', async () => {
    const { client, clock } = await served();
    const one = await client().connect();
    one.request(Command.disconnect, {});
    await settled();
    expect(one.closed).toBe('end');
    await clock.pass(1000);
    expect(one.closed).toBe('cut');
  });

  test('idle for too long', async () => {
    const { client, clock, disk } = await served({ idleTimeoutMs: 1000 });
    const one = await client().connect();
    await clock.pass(999);
    await one.read(0, 1);
    await clock.pass(999);
    expect(one.closed).toBe('no');
    // A request under way is no idleness.
    const { open, passed } = gate();
    disk.flush = () => passed;
    one.request(Command.flush, {});
    await settled();
    await clock.pass(1500);
    expect(one.closed).toBe('no');
    open();
    await settled();
    await clock.pass(3000);
    expect(one.closed).toBe('cut');
  });
});

test('unused is who was used, when nobody is there any more, those included who have chosen nothing yet (N-112)', async () => {
  const { client, server } = await served({ maxConnections: 3 });
  let unused = 0;
  server.onUnused = () => unused++;
  const leave = async (each: RawClient) => {
    each.stream.fail();
    await settled();
  };
  await leave(client());
  expect(unused).toBe(0);
  const [user, haggling] = [await client().connect(), client()];
  await leave(user);
  expect(unused).toBe(0);
  await haggling.connect();
  await leave(haggling);
  expect(unused).toBe(1);
  await leave(client());
  expect(unused).toBe(1);
  const [again, listing] = [await client().connect(), client()];
  await leave(again);
  await leave(listing);
  expect(unused).toBe(2);
});

describe('clients at once (N-111)', () => {
  test('further ones wait ungreeted and are served later, their clock starting then', async () => {
    const { client, clock, server } = await served({ maxConnections: 1 });
    const first = await client().connect();
    const second = client();
    await settled();
    expect([second.receivedBytes, server.stats().waiting]).toEqual([0, 1]);
    await clock.pass(60_000);
    first.request(Command.disconnect, {});
    await settled();
    first.stream.fail();
    await second.connect();
    expect(await second.read(0, 1)).toEqual(new Uint8Array(1));
  });

  test('one that gives up while it waits leaves the queue', async () => {
    const { client, server } = await served({ maxConnections: 1 });
    await client().connect();
    const second = client();
    second.stream.fail();
    await settled();
    expect(server.stats().waiting).toBe(0);
  });

  test('one that ends its half while it waits makes room, unless it has said something before', async () => {
    const { client, server } = await served({ maxConnections: 1 });
    const first = await client().connect();
    const [silent, early] = [client(), client()];
    early.send(clientFlags(3), optionFrame(Option.go, nameAndInfos('', [])));
    early.send(
      encodeRequest({ command: Command.read, flags: 0, cookieHigh: 0, cookieLow: 7, offset: 0, length: 8 }, false),
    );
    for (const each of [silent, early]) each.end();
    await settled();
    expect([silent.closed, early.closed, early.receivedBytes, server.stats().waiting]).toEqual(['cut', 'no', 0, 1]);
    first.stream.fail();
    await settled();
    await early.take(18);
    expect((await early.optionReplies(Option.go)).at(-1)?.type).toBe(ReplyType.ack);
    expect([(await early.take(16 + 8)).length, early.closed]).toEqual([24, 'end']);
  });

  test('of what one says while it waits little is kept', async () => {
    const { client } = await served({ maxConnections: 1 });
    const first = await client().connect();
    const eager = client();
    const list = optionFrame(Option.list, new Uint8Array(0));
    eager.send(clientFlags(3));
    for (let sent = 0; sent < 8192; sent += list.length) eager.send(list);
    await settled();
    expect(eager.stream.paused).toBe(true);
    first.stream.fail();
    await eager.take(18);
    for (let sent = 0; sent < 8192; sent += list.length) await eager.optionReplies(Option.list);
    expect(eager.stream.paused).toBe(false);
  });

  test('at most 128 are held back', async () => {
    const { client, server } = await served({ maxConnections: 1 });
    client();
    const held = Array.from({ length: 129 }, () => client());
    await settled();
    expect([server.stats().waiting, held[127]?.closed, held[128]?.closed]).toEqual([128, 'no', 'cut']);
  });

  test('200 clients at once', async () => {
    const { client, server } = await served({ maxConnections: 0 });
    const all = await Promise.all(Array.from({ length: 200 }, () => client().connect()));
    await Promise.all(
      all.map(async (one, index) => {
        one.write(index * 4096, new Uint8Array(4096).fill(index + 1));
        await one.reply();
        expect((await one.read(index * 4096, 4096)).every((byte) => byte === ((index + 1) & 255))).toBe(true);
      }),
    );
    expect(server.stats()).toMatchObject({ connections: 200, connectionsEver: 200, requests: 400, errors: 0 });
  });
});

describe('stopping (N-81)', () => {
  test('what is under way is answered, later requests are refused, then the disk is flushed', async () => {
    const { client, disk, server } = await served();
    const one = await client().connect();
    const { open, passed } = gate();
    const original = disk.flush.bind(disk);
    let flushes = 0;
    disk.flush = async () => {
      flushes++;
      await passed;
      await original();
    };
    one.request(Command.flush, { cookie: 1 });
    await settled();
    const closing = server.close();
    one.request(Command.read, { cookie: 2, length: 1 });
    expect(await one.reply()).toMatchObject({ cookie: 2, error: 108 });
    open();
    expect(await one.reply()).toMatchObject({ cookie: 1, error: 0 });
    await settled();
    one.stream.fail();
    await closing;
    expect(flushes).toBe(2);
  });

  test('a request that takes longer than the grace is cut off', async () => {
    const { client, disk, server, clock } = await served({ graceMs: 300 });
    const one = await client().connect();
    const { passed } = gate();
    const original = disk.flush.bind(disk);
    disk.flush = () => passed;
    one.request(Command.flush, {});
    await settled();
    const closing = server.close();
    await settled();
    disk.flush = original;
    await clock.pass(299);
    expect(one.closed).toBe('no');
    await clock.pass(1);
    expect(one.closed).toBe('cut');
    await closing;
  });

  test('a second, hard stop ends at once', async () => {
    const { client, disk, server } = await served();
    const one = await client().connect();
    const original = disk.flush.bind(disk);
    disk.flush = () => gate().passed;
    one.request(Command.flush, {});
    await settled();
    const closing = server.close();
    await settled();
    disk.flush = original;
    void server.close({ hard: true });
    await closing;
    expect(one.closed).toBe('cut');
  });

  test('no new clients, no new exports', async () => {
    const { client, disk, server } = await served();
    await server.close();
    const late = client();
    expect(late.closed).toBe('cut');
    expect(() => server.addExport(disk, { name: 'x' })).toThrow('NBD server not running');
    await expect(server.removeExport('')).rejects.toThrow('NBD server not running');
  });
});

describe('exports (N-82)', () => {
  test('names and ids are unique, and a read-only disk is not exported as writable', async () => {
    const { disk, server, graph } = await served({ export: { name: 'a', id: 'i' } });
    expect(() => server.addExport(disk, { name: 'a', id: 'j' })).toThrow("NBD server already has export named 'a'");
    expect(() => server.addExport(disk, { name: 'b', id: 'i' })).toThrow("Block export id 'i' is already in use");
    const other = await graph.open({ driver: 'null-co', size: 512 });
    const text = 'Cannot export read-only node as writable';
    expect(() => server.addExport(other, { name: 'r', readOnly: false })).toThrow(text);
    expect(() => server.addExport(other, { name: 'x'.repeat(4097) })).toThrow(/^export name 'x+' too long$/);
    expect(() => server.addExport(other, { name: 'd', description: 'é'.repeat(2049) })).toThrow(/^export description/);
    await expect(server.removeExport('nope')).rejects.toThrow("Export 'nope' is not found");
  });

  test('removal: refused while in use, or its clients are dropped', async () => {
    const { client, server } = await served();
    const one = await client().connect();
    await expect(server.removeExport('')).rejects.toThrow("export '' still in use");
    await server.removeExport('', { hard: true });
    expect(one.closed).toBe('cut');
    const late = client();
    await late.greeting();
    expect((await late.go('')).at(-1)?.text).toBe("export '' not present");
  });
});

describe('who may connect (N-105)', () => {
  test('a client that is refused an export is cut off', async () => {
    const asked: (string | undefined)[] = [];
    const { client, server, disk } = await served({
      authorize: (_client, name) => {
        asked.push(name);
        return name !== 'secret';
      },
    });
    server.addExport(disk, { name: 'secret' });
    await client().connect();
    const other = client();
    await other.greeting();
    await other.go('secret');
    await settled();
    expect([asked, other.closed]).toEqual([['', 'secret'], 'cut']);
  });

  test('rules: the first that is about the name decides', () => {
    const allowed = authorizeByRules(
      parseRules({
        rules: [
          { match: 'CN=bad', policy: 'deny' },
          { match: 'CN=*', policy: 'allow', format: 'glob' },
          { match: 'x[a-c]?', policy: 'allow', format: 'glob' },
          { match: 'a*', policy: 'allow' },
        ],
      }),
    );
    const names = ['CN=bad', 'CN=good', 'O=CN=good', 'xb1', 'xd1', 'xb', 'a*', 'ab'];
    expect(names.map(allowed)).toEqual([false, true, false, true, false, false, true, false]);
    expect(authorizeByRules({ rules: [], policy: 'allow' })('x')).toBe(true);
    expect(() => parseRules({ rules: [{ match: 'x', policy: 'maybe' }] })).toThrow("does not accept value 'maybe'");
    expect(() => parseRules({ rules: [{ policy: 'allow' }] })).toThrow("without 'match'");
  });
});

test('events and counts', async () => {
  const { client, events, server } = await served();
  const one = await client().connect();
  await one.read(0, 100);
  one.write(0, new Uint8Array(10));
  await one.reply();
  one.request(99, {});
  await one.reply();
  expect(server.stats()).toMatchObject({ requests: 3, errors: 1, bytesRead: 100, bytesWritten: 10 });
  one.stream.fail();
  await settled();
  expect(events.map(({ channel }) => channel)).toEqual([
    'diskwright:nbd:connect',
    'diskwright:nbd:export',
    'diskwright:nbd:disconnect',
  ]);
  expect(events[2]?.message).toMatchObject({ connection: 1, peer: 'memory', export: '', requests: 3, errors: 1 });
  expect(server.stats()).toMatchObject({ connections: 0, connectionsEver: 1, requests: 3, bytesRead: 100 });
});

test('authorization is not bypassed by requests that come early', async () => {
  const { client, disk } = await served({ authorize: () => false });
  const one: RawClient = client();
  await one.greeting();
  await one.go('');
  one.write(0, Uint8Array.of(1));
  await settled();
  expect([one.closed, (await disk.read(0, 1))[0]]).toEqual(['cut', 0]);
});
