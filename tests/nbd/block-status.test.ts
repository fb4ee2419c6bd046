/** Block status over NBD (N-60 to N-64). */
import { describe, expect, test } from 'vitest';
import { bitmaps } from '../../src/bitmaps/bitmaps.ts';
import { viewOf } from '../../src/bytes/big-endian.ts';
import { Command } from '../../src/nbd/protocol.ts';
import { type RawClient, type ServedOptions, served, uint32 } from '../support/nbd.ts';

const MIB = 1 << 20;
const PAGE = 65536;
const REQ_ONE = 8;
const ALLOCATION = 'base:allocation';
const DEPTH = 'qemu:allocation-depth';

async function asked(
  contexts: readonly string[],
  options: ServedOptions & { style?: 'structured' | 'extended'; infos?: number[] } = {},
) {
  const { style = 'structured', infos = [], ...rest } = options;
  const setting = await served(rest);
  const connect = async () => setting.client().connect(style, contexts, infos);
  return { ...setting, connect };
}

async function refused(
  client: RawClient,
  fields: { length: number; flags?: number; offset?: number },
  payload?: Uint8Array,
) {
  client.request(Command.blockStatus, fields, payload);
  return (await client.reply()).error;
}

test('data, holes, and what is told past the request (N-60, N-61, N-63)', async () => {
  const { disk, connect } = await asked([ALLOCATION]);
  await disk.write(PAGE, new Uint8Array(PAGE).fill(1));
  const client = await connect();
  expect(await client.status(0, MIB)).toEqual(
    new Map([
      [
        1,
        [
          [PAGE, 3],
          [PAGE, 0],
          [MIB - 2 * PAGE, 3],
        ],
      ],
    ]),
  );
  // The last extent reaches past the request, to the end at most.
  expect(await client.status(2 * PAGE, 512)).toEqual(new Map([[1, [[MIB - 2 * PAGE, 3]]]]));
});

test('REQ_ONE: one extent, not longer than asked (N-63)', async () => {
  const { disk, connect } = await asked([ALLOCATION]);
  await disk.write(PAGE, new Uint8Array(PAGE).fill(1));
  const client = await connect();
  expect(await client.status(0, MIB, REQ_ONE)).toEqual(new Map([[1, [[PAGE, 3]]]]));
  expect(await client.status(100, 512, REQ_ONE)).toEqual(new Map([[1, [[512, 3]]]]));
});

test('adjacent extents of equal state are merged (N-63)', async () => {
  const { disk, connect } = await asked([ALLOCATION]);
  for (const page of [0, 1, 2]) await disk.write(page * PAGE, new Uint8Array(PAGE).fill(1));
  disk.tryStatusNow = (offset, length) => {
    const left = PAGE - (offset % PAGE);
    return { length: Math.min(left, length), allocated: true, data: true, zero: offset >= 3 * PAGE, depth: 0 };
  };
  expect((await (await connect()).status(0, MIB)).get(1)).toEqual([
    [3 * PAGE, 0],
    [MIB - 3 * PAGE, 3],
  ]);
});

test('at most 2^17 extents in a chunk (N-63)', async () => {
  const { disk, connect } = await asked([ALLOCATION], { tree: { driver: 'null-co', size: 2 ** 30 } });
  disk.tryStatusNow = (offset) => {
    const zero = Math.floor(offset / 512) % 2 === 0;
    return { length: 512 - (offset % 512), allocated: true, data: !zero, zero, depth: 0 };
  };
  const extents = (await (await connect()).status(0, 2 ** 30)).get(1);
  expect(extents?.length).toBe(2 ** 17);
});

test('walking stops after 100 ms, with one extent at least (N-63)', async () => {
  const { disk, clock, connect } = await asked([ALLOCATION], { tree: { driver: 'null-co', size: 2 ** 30 } });
  const client = await connect();
  disk.tryStatusNow = (offset) => {
    void clock.pass(60);
    const zero = Math.floor(offset / 512) % 2 === 0;
    return { length: 512, allocated: true, data: !zero, zero, depth: 0 };
  };
  expect((await client.status(0, MIB)).get(1)?.length).toBe(2);
});

test('lengths fit into 32 bits, in whole blocks; not so under extended headers (N-63)', async () => {
  for (const [style, lengths] of [
    ['structured', [[2 ** 32 - 65536, 0]]],
    ['extended', [[2 ** 40, 0]]],
  ] as const) {
    const { connect } = await asked([ALLOCATION], { style, tree: { driver: 'null-co', size: 2 ** 40 } });
    expect((await (await connect()).status(0, 2 ** 32 - 1)).get(1)).toEqual(lengths);
  }
});

test('extents are whole minimum blocks but at the end (N-63, N-70)', async () => {
  const tree = { driver: 'blkdebug', align: 4096, image: { driver: 'memory', size: MIB } };
  const { disk, connect } = await asked([ALLOCATION], { tree, infos: [3] });
  disk.tryStatusNow = (offset, length) => {
    const zero = offset < 5000 || offset >= 9000;
    const end = offset < 5000 ? 5000 : offset < 9000 ? 9000 : MIB;
    return { length: Math.min(end - offset, length), allocated: true, data: !zero, zero, depth: 0 };
  };
  // A block of which a part is data is data.
  expect((await (await connect()).status(0, MIB)).get(1)).toEqual([
    [4096, 3],
    [8192, 0],
    [MIB - 12288, 3],
  ]);
});

test('several contexts: one chunk each, which may differ in number (N-60, N-62)', async () => {
  const { disk, connect } = await asked([ALLOCATION, DEPTH], { export: { allocationDepth: true } });
  await disk.write(0, new Uint8Array(PAGE).fill(1));
  expect(await (await connect()).status(0, MIB)).toEqual(
    new Map([
      [
        1,
        [
          [PAGE, 0],
          [MIB - PAGE, 3],
        ],
      ],
      [2, [[MIB, 1]]],
    ]),
  );
});

test('without a chosen context: EINVAL (N-60)', async () => {
  const { connect } = await asked([]);
  expect(await refused(await connect(), { length: 512 })).toBe(22);
});

describe('dirty bitmaps (N-62)', () => {
  const CONTEXT = 'qemu:dirty-bitmap:b0';

  test('bit 0 where it is dirty; busy as long as it is exported', async () => {
    const { server, disk, client } = await served({ export: { name: 'plain' } });
    await bitmaps(disk).add('b0', { granularity: PAGE });
    server.addExport(disk, { name: '', bitmaps: ['b0'] });
    await disk.write(2 * PAGE + 5, Uint8Array.of(1));
    const one = await client().connect('structured', [CONTEXT]);
    expect((await one.status(0, MIB)).get(1)).toEqual([
      [2 * PAGE, 0],
      [PAGE, 1],
      [MIB - 3 * PAGE, 0],
    ]);
    expect((await one.status(2 * PAGE + 100, 50, REQ_ONE)).get(1)).toEqual([[50, 1]]);
    one.write(0, Uint8Array.of(1));
    await one.reply();
    expect((await one.status(0, 1)).get(1)).toEqual([[PAGE, 1]]);
    await expect(bitmaps(disk).remove('b0')).rejects.toMatchObject({ code: 'EBUSY' });
    await server.removeExport('', { hard: true });
    await bitmaps(disk).remove('b0');
  });

  test('an unknown name', async () => {
    const { server, disk } = await served();
    expect(() => server.addExport(disk, { name: 'x', bitmaps: ['b1'] })).toThrow("Bitmap 'b1' is not found");
  });
});

describe('the payload form (N-64)', () => {
  const PAYLOAD_LEN = 32;
  const payload = (length: number, ...ids: number[]) =>
    Uint8Array.from(
      Buffer.concat([uint32(Math.floor(length / 2 ** 32)), uint32(length % 2 ** 32), ...ids.map(uint32)]),
    );
  const setUp = async () => {
    const { connect, disk } = await asked([ALLOCATION, DEPTH], {
      style: 'extended',
      export: { allocationDepth: true },
    });
    await disk.write(0, new Uint8Array(PAGE).fill(1));
    return connect();
  };
  const send = (client: RawClient, data: Uint8Array, offset = 0) =>
    client.request(Command.blockStatus, { offset, length: data.length, flags: PAYLOAD_LEN }, data);

  test('answers for the ids in it only', async () => {
    const client = await setUp();
    send(client, payload(MIB, 2));
    const [chunk, ...more] = await client.chunks();
    expect(more).toEqual([]);
    expect(viewOf(chunk?.payload ?? new Uint8Array()).getUint32(0)).toBe(2);
  });

  test('unknown or repeated ids, odd lengths, past the end: EINVAL, and the connection lives', async () => {
    const client = await setUp();
    for (const data of [
      payload(MIB, 3),
      payload(MIB, 1, 1),
      payload(MIB),
      payload(0, 1),
      payload(MIB + 1, 1),
      payload(MIB, 1).subarray(0, 11),
    ]) {
      send(client, data);
      expect((await client.reply()).error).toBe(22);
    }
    expect((await client.status(0, MIB)).size).toBe(2);
  });

  test('is offered only with contexts under extended headers (N-30)', async () => {
    const { client } = await served();
    const one = client();
    await one.greeting();
    await one.extendedHeaders();
    const flags = async () => {
      const replies = await one.option(6, Uint8Array.from(Buffer.concat([uint32(0), new Uint8Array(2)])));
      const basics = replies.find(({ type, data }) => type === 3 && viewOf(data).getUint16(0) === 0);
      return viewOf(basics?.data ?? new Uint8Array(12)).getUint16(10);
    };
    expect((await flags()) & (1 << 12)).toBe(0);
    await one.option(10, Uint8Array.from(Buffer.concat([uint32(0), uint32(1), uint32(15), Buffer.from(ALLOCATION)])));
    expect((await flags()) & (1 << 12)).not.toBe(0);
  });
});
