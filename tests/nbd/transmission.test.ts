/** The server's side of transmission (N-40 to N-55, N-66, N-67, N-72 to N-74), by the bytes. */
import { describe, expect, test } from 'vitest';
import { viewOf } from '../../src/bytes/big-endian.ts';
import { BlockError, type ErrorCode } from '../../src/core/errors.ts';
import { Command, wireError } from '../../src/nbd/protocol.ts';
import { readLength } from '../../src/nbd/wire.ts';
import { type RawClient, type ServedOptions, served, settled } from '../support/nbd.ts';

const MIB = 1 << 20;
const { read, write, flush, trim, cache, writeZeroes, blockStatus } = Command;
const FUA = 1;
const NO_HOLE = 2;
const DF = 4;
const REQ_ONE = 8;
const FAST_ZERO = 16;
const PAYLOAD_LEN = 32;
/** By number, as qemu-nbd's messages have them. */
const NAMES = ['read', 'write', 'disconnect', 'flush', 'trim', 'cache', 'write zeroes', 'block status'];

type Style = 'simple' | 'structured' | 'extended';
const STYLES: readonly Style[] = ['simple', 'structured', 'extended'];

async function transmitting(
  style: Style = 'structured',
  options: ServedOptions = {},
  contexts: readonly string[] = [],
) {
  const setting = await served(options);
  const client = await setting.client().connect(style, contexts);
  return { ...setting, client };
}

/** A request's error and text, the connection being alive afterwards. */
async function refusal(
  client: RawClient,
  command: number,
  fields: { flags?: number; offset?: number; length?: number },
  payload?: Uint8Array,
): Promise<[number, string]> {
  client.request(command, { ...fields, cookie: 77 }, payload);
  const { error, text, cookie, done } = await client.reply();
  expect([cookie, done]).toEqual([77, true]);
  expect(await client.read(0, 4)).toEqual(new Uint8Array(4));
  return [error, text];
}

/** Fails at [3000, 3004). */
const FAULTY = {
  driver: 'blkdebug',
  'inject-error': [{ event: 'none', iotype: 'read', errno: 5, sector: 6 }],
  image: { driver: 'memory', size: MIB },
};

describe.each(STYLES)('commands, %s replies', (style) => {
  test('what is written is read (N-41, N-42)', async () => {
    const { client } = await transmitting(style);
    client.write(1000, Uint8Array.of(1, 2, 3));
    expect(await client.reply()).toMatchObject({ error: 0, done: true });
    expect([...(await client.read(999, 5))]).toEqual([0, 1, 2, 3, 0]);
  });

  test('a write in many pieces', async () => {
    const { client } = await transmitting(style);
    const data = new Uint8Array(200_000).map((_, index) => index * 7);
    client.request(write, { offset: 5, length: data.length, flags: style === 'extended' ? PAYLOAD_LEN : 0 });
    for (let at = 0; at < data.length; at += 33_333) client.send(data.subarray(at, at + 33_333));
    expect((await client.reply()).error).toBe(0);
    expect(await client.read(5, data.length)).toEqual(data);
  });

  test('zeroes, trims, cache, flush, FUA on all (N-40, N-44 to N-47)', async () => {
    const { client, disk } = await transmitting(style);
    await disk.write(0, new Uint8Array(65536).fill(1));
    for (const [command, flags] of [
      [writeZeroes, NO_HOLE | FUA],
      [trim, FUA],
      [cache, FUA],
      [flush, FUA],
    ] as const) {
      client.request(command, { flags, offset: 4096, length: 8192 });
      expect(await client.reply()).toMatchObject({ error: 0, done: true });
    }
    expect((await client.read(4096, 8192)).every((byte) => byte === 0)).toBe(true);
    expect((await client.read(0, 4096)).every((byte) => byte === 1)).toBe(true);
  });

  test('flush: offset and length are ignored (N-44)', async () => {
    const { client } = await transmitting(style);
    client.request(flush, { offset: 2 ** 40, length: 12345 });
    expect((await client.reply()).error).toBe(0);
  });

  test('length 0: success without work, for block status EINVAL (N-49)', async () => {
    const { client } = await transmitting(style);
    for (const command of [read, write, trim, cache, writeZeroes]) {
      client.request(command, { length: 0, flags: style === 'extended' && command === write ? PAYLOAD_LEN : 0 });
      const reply = await client.reply();
      expect(reply.error).toBe(0);
      const chunk = style === 'extended' || (style === 'structured' && command === read);
      expect(reply.kind).toBe(chunk ? (style === 'extended' ? 'extended' : 'chunk') : 'simple');
      expect([reply.type, reply.payload.length]).toEqual([0, 0]);
    }
    expect((await refusal(client, blockStatus, { length: 0 }))[0]).toBe(22);
  });

  test('unknown commands and resize: EINVAL, no payload assumed (N-48)', async () => {
    const { client } = await transmitting(style);
    for (const command of [8, 9, 65535]) expect((await refusal(client, command, { length: 100 }))[0]).toBe(22);
  });

  test('flags where they do not belong: EINVAL (N-40)', async () => {
    const { client } = await transmitting(style);
    const wrong: [number, number][] = [
      [read, NO_HOLE],
      [read, FAST_ZERO],
      [trim, DF],
      [cache, NO_HOLE],
      [flush, REQ_ONE],
      [writeZeroes, DF],
      [writeZeroes, REQ_ONE],
      [trim, 1 << 15],
    ];
    for (const [command, flags] of wrong) {
      expect(await refusal(client, command, { flags, length: 512 })).toEqual([
        22,
        style === 'simple' ? '' : `unsupported flags for command ${NAMES[command]} (got 0x${flags.toString(16)})`,
      ]);
    }
    const df = await refusal(client, style === 'simple' ? read : trim, { flags: DF, length: 512 });
    expect(df[0]).toBe(22);
  });

  test('a write with wrong flags is consumed (N-42)', async () => {
    const { client } = await transmitting(style);
    const flags = DF | (style === 'extended' ? PAYLOAD_LEN : 0);
    expect((await refusal(client, write, { flags, length: 5 }, new Uint8Array(5).fill(9)))[0]).toBe(22);
    expect(await client.read(0, 5)).toEqual(new Uint8Array(5));
  });

  test('a read-only export: EPERM, and the payload is consumed (N-42)', async () => {
    const { client } = await transmitting(style, { export: { readOnly: true } });
    const text = style === 'simple' ? '' : 'Export is read-only';
    const flags = style === 'extended' ? PAYLOAD_LEN : 0;
    expect(await refusal(client, write, { length: 3, flags }, new Uint8Array(3))).toEqual([1, text]);
    for (const command of [trim, writeZeroes]) expect(await refusal(client, command, { length: 3 })).toEqual([1, text]);
  });

  test('beyond the end (N-67)', async () => {
    const { client } = await transmitting(style);
    const text = (offset: number | bigint, length: number) =>
      style === 'simple' ? '' : `operation past EOF; From: ${offset}, Len: ${length}, Size: ${MIB}`;
    for (const command of [read, trim, cache]) {
      expect(await refusal(client, command, { offset: MIB, length: 1 })).toEqual([22, text(MIB, 1)]);
    }
    expect(await refusal(client, writeZeroes, { offset: MIB - 1, length: 2 })).toEqual([28, text(MIB - 1, 2)]);
    const flags = style === 'extended' ? PAYLOAD_LEN : 0;
    expect(await refusal(client, write, { offset: MIB, length: 3, flags }, new Uint8Array(3))).toEqual([
      28,
      text(MIB, 3),
    ]);
    // An offset past the safe integers is past any export, and the sum does not overflow (N-11).
    expect((await refusal(client, read, { offset: 2 ** 53 - 512, length: 512 }))[0]).toBe(22);
  });

  test('offsets of 2^53 and more are errors that name them (N-11)', async () => {
    const { client } = await transmitting(style);
    client.request(read, { offset: 2 ** 53, length: 512, cookie: 5 });
    const { error, text } = await client.reply();
    expect(error).toBe(22);
    if (style !== 'simple') expect(text).toContain('From: 9007199254740992,');
  });

  test('reads and writes that are too long (N-72)', async () => {
    const { client } = await transmitting(style, { tree: { driver: 'null-co', size: 2 ** 40, 'read-zeroes': true } });
    const length = 32 * MIB + 1;
    const text = style === 'simple' ? '' : `len (${length} ) is larger than max len (33554432)`;
    expect(await refusal(client, read, { length })).toEqual([style === 'simple' ? 22 : 75, text]);
    const flags = style === 'extended' ? PAYLOAD_LEN : 0;
    expect(await refusal(client, write, { length, flags }, new Uint8Array(length))).toEqual([22, text]);
    client.request(write, { length: 64 * MIB + 1, flags });
    await settled();
    expect(client.closed).toBe('cut');
  });

  test('zeroes and trims have any length (N-45, N-47)', async () => {
    const { client } = await transmitting(style, { tree: { driver: 'null-co', size: 2 ** 40 } });
    for (const command of [writeZeroes, trim, cache]) {
      client.request(command, { length: 66_846_720 });
      expect((await client.reply()).error).toBe(0);
      if (style !== 'extended') continue;
      client.request(command, { length: 2 ** 36 });
      expect((await client.reply()).error).toBe(0);
    }
  });

  test('CACHE reads and drops up to the maximum payload, and beyond does nothing (N-46)', async () => {
    const { client, disk } = await transmitting(style, { tree: { driver: 'null-co', size: 2 ** 40 } });
    const reads: [number, number][] = [];
    const original = disk.read.bind(disk);
    disk.read = ((offset: number, target: Uint8Array) => {
      reads.push([offset, target.length]);
      return original(offset, target);
    }) as typeof disk.read;
    client.request(cache, { offset: 512, length: 2 * MIB + 512 });
    expect(await client.reply()).toMatchObject({ error: 0, done: true });
    expect(reads).toEqual([
      [512, MIB],
      [512 + MIB, MIB],
      [512 + 2 * MIB, 512],
    ]);
    reads.length = 0;
    client.request(cache, { length: 32 * MIB + 1 });
    expect(await client.reply()).toMatchObject({ error: 0, done: true });
    expect(reads).toEqual([]);
  });

  test('a wrong magic ends the connection (N-72)', async () => {
    const { client } = await transmitting(style);
    client.send(new Uint8Array(32).fill(1));
    await settled();
    expect(client.closed).toBe('cut');
  });

  test('equal cookies in flight are both answered, as they came (N-11)', async () => {
    const { client } = await transmitting(style);
    for (let each = 0; each < 2; each++) client.request(flush, { cookie: 0xffffffff });
    expect((await client.reply()).cookie).toBe(0xffffffff);
    expect((await client.reply()).cookie).toBe(0xffffffff);
  });
});

describe('how replies look (N-50, N-51, N-52)', () => {
  test('simple: a header, and data after it when it succeeded', async () => {
    const { client } = await transmitting('simple');
    client.request(read, { length: 2, cookie: 7 });
    expect(Buffer.from(await client.take(18)).toString('hex')).toBe(`67446698${'00000000'}00c0ffee00000007${'0000'}`);
  });

  test('simple: a read that fails carries no data', async () => {
    const { client } = await transmitting('simple', { tree: FAULTY });
    client.request(read, { offset: 3072, length: 512 });
    expect(await client.reply(512)).toMatchObject({ kind: 'simple', error: 5 });
    expect(await client.read(0, 4)).toEqual(new Uint8Array(4));
  });

  test('structured: reads and errors in chunks, other successes simple', async () => {
    const { client } = await transmitting('structured');
    client.request(read, { offset: 3, length: 2, cookie: 7 });
    expect(Buffer.from(await client.take(30)).toString('hex')).toBe(
      '668e33ef00010001' + '00c0ffee00000007' + '0000000a' + '0000000000000003' + '0000',
    );
    client.request(flush, {});
    expect(await client.reply()).toMatchObject({ kind: 'simple', error: 0 });
    client.request(99, {});
    expect(await client.reply()).toMatchObject({ kind: 'chunk', type: 0x8001, error: 22 });
  });

  test('extended: all in extended chunks with the offset told back, success without content', async () => {
    const { client } = await transmitting('extended');
    client.request(flush, { offset: 0x1234, cookie: 7 });
    expect(Buffer.from(await client.take(32)).toString('hex')).toBe(
      '6e8a278c00010000' + '00c0ffee00000007' + '0000000000001234' + '0000000000000000',
    );
    client.request(99, { offset: 2 ** 53 });
    const head = viewOf(await client.take(32));
    expect(head.getBigUint64(16)).toBe(2n ** 53n);
  });
});

describe('payloads under extended headers (N-55)', () => {
  test('lengths of 2^53 and more are errors that name them (N-11)', async () => {
    const { client } = await transmitting('extended');
    const length = 2 ** 60;
    const past = `operation past EOF; From: 5, Len: 1152921504606846976, Size: ${MIB}`;
    expect(await refusal(client, trim, { offset: 5, length })).toEqual([22, past]);
    expect(await refusal(client, writeZeroes, { offset: 5, length })).toEqual([28, past]);
    const tooLong = 'len (1152921504606846976 ) is larger than max len (33554432)';
    expect(await refusal(client, read, { length })).toEqual([75, tooLong]);
  });

  test('a write without the flag: EINVAL, and the payload is consumed', async () => {
    const { client } = await transmitting('extended');
    expect((await refusal(client, write, { length: 100 }, new Uint8Array(100)))[0]).toBe(22);
  });

  test('another command with it: consumed up to the maximum payload, then EINVAL; longer: close', async () => {
    const { client } = await transmitting('extended');
    for (const command of [read, trim, writeZeroes, flush, cache, 99]) {
      const [error] = await refusal(client, command, { length: 1000, flags: PAYLOAD_LEN }, new Uint8Array(1000));
      expect([command, error]).toEqual([command, 22]);
    }
    client.request(trim, { length: 32 * MIB + 1, flags: PAYLOAD_LEN });
    await settled();
    expect(client.closed).toBe('cut');
  });
});

describe('holes in reads (N-53)', () => {
  const sparse = async (style: Style = 'structured', tree: ServedOptions['tree'] = undefined) => {
    const setting = await transmitting(style, tree === undefined ? {} : { tree });
    await setting.disk.write(65536, new Uint8Array(65536).fill(3));
    return setting;
  };
  const shape = async (client: RawClient, offset: number, length: number, flags = 0) => {
    client.request(read, { offset, length, flags });
    return (await client.chunks()).map(({ type, payload }) => {
      const view = viewOf(payload);
      return [type, readLength(view, 0), type === 2 ? view.getUint32(8) : payload.length - 8];
    });
  };

  test('are told without their zeroes, in whole sectors, covering the request', async () => {
    const { client } = await sparse();
    expect(await shape(client, 0, 262_144)).toEqual([
      [2, 0, 65536],
      [1, 65536, 65536],
      [2, 131_072, 131_072],
    ]);
    const data = await client.read(512, 200_000);
    expect([data[65023], data[65024], data[65024 + 65535], data[65024 + 65536]]).toEqual([0, 3, 3, 0]);
  });

  test('not with DF, not below 64 KiB', async () => {
    const { client } = await sparse();
    expect(await shape(client, 0, 262_144, DF)).toEqual([[1, 0, 262_144]]);
    expect(await shape(client, 0, 65_535)).toEqual([[1, 0, 65_535]]);
  });

  test('not where a filter may fail or change reads', async () => {
    const { client } = await sparse('structured', FAULTY);
    client.request(read, { length: 65536 });
    const chunks = await client.chunks();
    expect(chunks.at(-1)).toMatchObject({ type: 0x8002, error: 5 });
  });
});

describe('a failing read (N-54)', () => {
  test.each<Style>(['structured', 'extended'])(
    '%s: what is readable, then the error at its place; the client stays',
    async (style) => {
      const { client, disk } = await transmitting(style, { tree: FAULTY });
      await disk.write(0, new Uint8Array(MIB).fill(5));
      client.request(read, { offset: 512, length: 8192 });
      const [data, failure, ...more] = await client.chunks();
      expect(more).toEqual([]);
      expect(data).toMatchObject({ type: 1, done: false });
      expect(data?.payload.subarray(8)).toEqual(new Uint8Array(3072 - 512).fill(5));
      expect(failure).toMatchObject({ type: 0x8002, error: 5, done: true, text: 'Input/output error' });
      const body = failure?.payload ?? new Uint8Array();
      expect(readLength(viewOf(body), body.length - 8)).toBe(3072);
      expect(await client.read(8192, 4)).toEqual(new Uint8Array(4).fill(5));
    },
  );

  test('an error that is there once is told, at the start', async () => {
    const rule = { event: 'none', iotype: 'read', errno: 28, once: true };
    const { client } = await transmitting('structured', { tree: { ...FAULTY, 'inject-error': [rule] } });
    client.request(read, { offset: 512, length: 8192 });
    expect(await client.chunks()).toMatchObject([{ type: 0x8002, error: 28 }]);
    expect(await client.read(0, 8192)).toEqual(new Uint8Array(8192));
  });
});

describe('errors on the wire (N-66)', () => {
  test.each<[ErrorCode, number]>([
    ['EPERM', 1],
    ['EROFS', 1],
    ['EACCES', 1],
    ['EIO', 5],
    ['ENOMEM', 12],
    ['EINVAL', 22],
    ['ENOSPC', 28],
    ['EFBIG', 28],
    ['EDQUOT', 28],
    ['EOVERFLOW', 75],
    ['ENOTSUP', 22],
    ['EBUSY', 5],
  ])('%s is %i', async (code, number) => {
    const { client, disk } = await transmitting();
    disk.write = async () => {
      throw new BlockError(code, `it was ${code}`);
    };
    disk.tryWriteNow = () => false;
    client.write(0, new Uint8Array(4));
    expect(await client.reply()).toMatchObject({ error: number, text: `it was ${code}` });
    expect(wireError('ENOTSUP', true)).toBe(95);
  });

  test('a fast zero that is not fast: ENOTSUP, and nothing changed (N-47)', async () => {
    const { client, disk } = await transmitting();
    disk.writeZeroes = async (_offset, _length, { noFallback = false, unmap = false } = {}) => {
      if (noFallback) throw new BlockError('ENOTSUP', `unmap ${unmap}`);
    };
    client.request(writeZeroes, { length: 512, flags: FAST_ZERO | NO_HOLE });
    expect(await client.reply()).toMatchObject({ error: 95, text: 'unmap false' });
    client.request(writeZeroes, { length: 512, flags: FAST_ZERO });
    expect(await client.reply()).toMatchObject({ error: 95, text: 'unmap true' });
    client.request(writeZeroes, { length: 512 });
    expect((await client.reply()).error).toBe(0);
  });
});
