/** blkverify in a graph: what it catches and where, policies, names (BV rules). */
import { describe, expect, test } from 'vitest';
import { nodeFolder } from '../../core/backing-name.ts';
import { requireReplaceable } from '../../core/chain-change.ts';
import { createImage } from '../../core/create.ts';
import { setBreakpoint } from '../../core/debug.ts';
import { Graph } from '../../core/graph.ts';
import { DRIVERS } from '../../drivers.ts';
import { SimHost } from '../../testing/index.ts';
import { blkdebugOf } from '../blkdebug/control.ts';
import type { MismatchError } from './mismatch.ts';
import { blkverifyOf } from './node.ts';

const SIZE = 4 << 20;

interface World {
  readonly options?: object;
  readonly raw?: object;
  readonly exit?: (message: string) => never;
}

/** A VDI mirrored to a raw file, with faults to be injected above the VDI and below the file. */
async function opened({ options = {}, raw = {}, exit }: World = {}) {
  const sim = new SimHost();
  const host = exit === undefined ? sim : Object.assign(sim, { exit });
  const graph = new Graph({ host, drivers: DRIVERS });
  await createImage(graph, { filename: '/raw', format: 'raw', options: { size: SIZE } });
  await createImage(graph, { filename: '/test.vdi', format: 'vdi', options: { size: SIZE } });
  const disk = await graph.open(
    {
      driver: 'blkverify',
      raw: { driver: 'blkdebug', 'node-name': 'raw-side', image: { driver: 'file', filename: '/raw' }, ...raw },
      test: {
        driver: 'blkdebug',
        'node-name': 'test-side',
        image: { driver: 'vdi', 'node-name': 'vdi', file: { driver: 'file', filename: '/test.vdi' } },
      },
      ...options,
    } as never,
    { writable: true },
  );
  const control = (name: string) => blkdebugOf(graph.lookUp(name));
  return { host, graph, disk, test: control('test-side'), raw: control('raw-side'), verify: blkverifyOf(disk) };
}

const data = (value: number, length = 8192) => new Uint8Array(length).fill(value);
const failure = (work: Promise<unknown>): Promise<MismatchError> =>
  work.then(
    () => Promise.reject(new Error('it succeeded')),
    (error) => error,
  );

describe('names and opening', () => {
  test('BV-1, BV-2, BV-15: a name, whose test image is probed', async () => {
    const { graph, disk } = await opened();
    await disk.close();
    await using named = await graph.open('blkverify:/raw:/test.vdi', { format: 'blkverify' });
    expect(named.filename).toBe('blkverify:/raw:/test.vdi');
    const drivers = graph.nodes().map(({ driver }) => driver.name);
    expect(drivers.sort()).toEqual(['blkverify', 'file', 'file', 'vdi']);
    await expect(graph.open('blkverify:x', { format: 'blkverify' })).rejects.toMatchObject({
      code: 'EINVAL',
      message: 'blkverify requires raw copy and original image path',
    });
    await expect(graph.open('/test.vdi', { format: 'blkverify' })).rejects.toThrow(
      'A block device must be specified for "raw"',
    );
  });

  test("BV-1: the test image's name may have colons", () => {
    const driver = DRIVERS.find(({ name }) => name === 'blkverify');
    expect(driver?.kind === 'filter' && driver.parseFilename?.('blkverify:/raw:blkdebug::/t')).toMatchObject({
      children: { raw: '/raw', test: 'blkdebug::/t' },
    });
    expect(driver?.kind === 'filter' && driver.parseFilename?.('/t')).toMatchObject({ children: { test: '/t' } });
  });

  test('BV-3: when one side does not open, the other is closed', async () => {
    const { graph, disk, host } = await opened();
    await disk.close();
    for (const [raw, test] of [
      ['/raw', '/nope'],
      ['/nope', '/test.vdi'],
    ]) {
      await expect(graph.open(`blkverify:${raw}:${test}`, { format: 'blkverify' })).rejects.toThrow(
        "Could not open '/nope': No such file or directory",
      );
    }
    expect(graph.nodes()).toEqual([]);
    expect(host.openFiles).toEqual([]);
  });

  test("BV-4: the length is the test side's; a shorter raw side is refused, a longer one is not", async () => {
    const host = new SimHost();
    host.put('/short', 512);
    host.put('/long', 2048);
    const graph = new Graph({ host, drivers: DRIVERS });
    const open = (raw: string, test: string) =>
      graph.open({
        driver: 'blkverify',
        raw: { driver: 'file', filename: raw },
        test: { driver: 'file', filename: test },
      });
    await expect(open('/short', '/long')).rejects.toMatchObject({
      code: 'EINVAL',
      message: 'The raw copy is shorter than the image under test: 512 bytes, not 2048',
    });
    await using disk = await open('/long', '/short');
    expect(disk.length).toBe(512);
  });

  test('BV-15: without exact names there is a json: name; there is no common folder', async () => {
    const { disk, graph } = await opened({ raw: { seed: 5 } });
    expect(disk.filename).toMatch(/^json:\{.*"driver": "blkverify"/);
    await disk.close();
    await using named = await graph.open('blkverify:/raw:/test.vdi', { format: 'blkverify' });
    expect(() => nodeFolder(named.node)).toThrow('Cannot generate a base directory for blkverify nodes');
  });
});

test('BV-5, BV-16: both sides get what is written, and reads are counted', async () => {
  const { disk, verify, graph } = await opened();
  await disk.write(4096, data(3));
  expect(await disk.read(4096, 8192)).toEqual(data(3));
  expect(verify.counts()).toEqual({ requests: 2, compared: 8192, mismatches: 0 });
  for (const name of ['raw-side', 'test-side']) {
    const bytes = new Uint8Array(8192);
    await graph.lookUp(name).impl.read(4096, bytes);
    expect(bytes).toEqual(data(3));
  }
  await disk.close();
});

test('BV-5: a request ends when both sides have, and they run at the same time', async () => {
  const { disk, host, test: left, raw: right } = await opened();
  left.add({ event: 'none', action: 'delay', delayMs: 100 });
  right.add({ event: 'none', action: 'delay', delayMs: 40 });
  const start = host.clock.now();
  await disk.write(0, data(1));
  expect(host.clock.now() - start).toBe(100);
  await disk.read(0, 512);
  expect(host.clock.now() - start).toBe(200);
  await disk.close();
});

describe('BV-7: what went wrong is found, where it is', () => {
  test.each([
    ['a flipped byte', { action: 'corrupt', bits: [8 * 100] }, 4096 + 100],
    ['a flipped last bit', { action: 'corrupt', bits: [8 * 8192 - 1] }, 4096 + 8191],
    ['a dropped write', { action: 'drop' }, 4096],
    ['a misdirected write', { action: 'misdirect', target: 1 << 20 }, 4096],
    ['a write misdirected into what is read', { action: 'misdirect', target: 512 }, 512],
    ['a torn write', { action: 'torn', bytes: 512, errno: undefined }, 4096 + 512],
    ['a write one byte short', { action: 'torn', bytes: 8191, errno: undefined }, 4096 + 8191],
  ] as const)('%s', async (_name, fault, at) => {
    for (const side of ['test', 'raw'] as const) {
      const { disk, verify, ...sides } = await opened();
      sides[side].add({ event: 'pwritev', ioTypes: ['write'], once: true, ...fault });
      await disk.write(4096, data(7));
      expect(await failure(disk.read(0, 16384))).toMatchObject({
        code: 'EIO',
        message: `blkverify: read offset=0 bytes=16384 contents mismatch at offset ${at}`,
        details: { firstDifference: at, test: 'done', raw: 'done', operation: 'read', offset: 0, length: 16384 },
      });
      expect(verify.counts().mismatches).toBe(1);
      expect(await failure(disk.read(at - 1, 514))).toMatchObject({
        details: { sectorNum: Math.floor((at - 1) / 512), nbSectors: at % 512 === 0 ? 3 : 2 },
      });
      // What is equal is read.
      await disk.read(2 << 20, 512);
      await disk.close();
    }
  });

  test('a wrong length: what one side has and the other lost', async () => {
    const { disk, graph } = await opened();
    await disk.write(SIZE - 4096, data(9, 4096));
    // Behind its back, and back to the old length.
    const file = graph.lookUp('raw-side').filtered?.node;
    await file?.impl.truncate?.(SIZE - 1000, { shrink: true });
    await file?.impl.truncate?.(SIZE, {});
    expect(await failure(disk.read(SIZE - 8192, 8192))).toMatchObject({
      details: { firstDifference: SIZE - 1000 },
    });
    await disk.close();
  });

  test('with a window of both sides around it', async () => {
    const { disk, test: left } = await opened();
    left.add({ event: 'none', ioTypes: ['read'], action: 'corrupt', bits: [8 * 300] });
    await disk.write(0, data(7));
    const { details, hint } = await failure(disk.read(0, 512));
    expect(details.window?.split('\n').slice(0, 4)).toEqual([
      `test 000000000110  ${'07 '.repeat(15)}07`,
      `raw  000000000110  ${'07 '.repeat(15)}07`,
      `test 000000000120  ${'07 '.repeat(12)}06 07 07 07`,
      `raw  000000000120  ${'07 '.repeat(15)}07`,
    ]);
    expect(hint).toBe(details.window);
    await disk.close();
  });
});

test.each([
  ['read', ['test'], 'read offset=512 bytes=512 return value mismatch -28 != 0'],
  ['read', ['raw'], 'read offset=512 bytes=512 return value mismatch 0 != -28'],
  ['write', ['test'], 'write offset=512 bytes=512 return value mismatch -28 != 0'],
  ['write-zeroes', ['raw'], 'zero offset=512 bytes=512 return value mismatch 0 != -28'],
] as const)('BV-6: %s that fails on %j', async (type, failing, text) => {
  const { disk, ...sides } = await opened();
  for (const side of failing) sides[side].add({ event: 'none', ioTypes: [type], errno: 'ENOSPC', once: true });
  const request = { read: () => disk.read(512, 512), write: () => disk.write(512, data(1, 512)) };
  const run = type === 'write-zeroes' ? () => disk.writeZeroes(512, 512) : request[type];
  expect((await failure(run())).message).toBe(`blkverify: ${text}`);
  await disk.close();
});

test('BV-6, BV-9: other errors are a mismatch, the same error is none', async () => {
  const { disk, verify, test: left, raw: right } = await opened();
  left.add({ event: 'none', ioTypes: ['read'], errno: 'EIO', once: true });
  right.add({ event: 'none', ioTypes: ['read'], errno: 'ENOSPC', once: true });
  expect((await failure(disk.read(0, 512))).message).toContain('return value mismatch -5 != -28');
  for (const side of [left, right]) side.add({ event: 'none', ioTypes: ['read'], errno: 'EACCES', once: true });
  expect(await failure(disk.read(0, 512))).toMatchObject({ code: 'EACCES' });
  expect(verify.counts()).toMatchObject({ mismatches: 1, compared: 0 });
  await disk.close();
});

describe('BV-8: what a mismatch does', () => {
  test('throw: the request fails, later ones do not; callback and event tell of it', async () => {
    const { disk, verify, test: left, host } = await opened();
    const told: string[] = [];
    verify.setOnMismatch(({ message }) => told.push(message));
    left.add({ event: 'none', ioTypes: ['read'], once: true });
    const error = await failure(disk.read(0, 512));
    await disk.read(0, 512);
    expect(told).toEqual([error.message]);
    const events = host.events.filter(({ channel }) => channel === 'diskwright:mismatch');
    expect(events.map(({ message }) => message)).toEqual([error.details]);
    await disk.close();
  });

  test('stop: every later request fails too', async () => {
    const { disk, test: left } = await opened({ options: { 'on-mismatch': 'stop' } });
    left.add({ event: 'none', ioTypes: ['read'], once: true });
    const { message } = await failure(disk.read(0, 512));
    const later = [disk.read(4096, 512), disk.write(0, data(1)), disk.discard(0, 4096), disk.flush()];
    for (const request of later) expect((await failure(request)).message).toBe(message);
    await disk.close().catch(() => {});
  });

  test('exit: the program ends with the message', async () => {
    const ended: string[] = [];
    const { disk, test: left } = await opened({
      options: { 'on-mismatch': 'exit' },
      exit(message) {
        ended.push(message);
        throw new Error('ended');
      },
    });
    left.add({ event: 'none', ioTypes: ['read'], once: true });
    expect((await failure(disk.read(0, 512))).message).toBe('ended');
    expect(ended).toEqual(['blkverify: read offset=0 bytes=512 return value mismatch -5 != 0']);
    await disk.close();
  });

  test('exit, where the program cannot be ended: the request fails', async () => {
    const { disk, test: left } = await opened({ options: { 'on-mismatch': 'exit' } });
    left.add({ event: 'none', ioTypes: ['read'], once: true });
    expect((await failure(disk.read(0, 512))).message).toContain('return value mismatch');
    await disk.close();
  });
});

test.each([
  [false, []],
  [true, ['flush']],
])('BV-10: with flush-raw=%s the raw side gets %j', async (flushRaw, expected) => {
  const { disk, raw: right, test: left } = await opened({ options: { 'flush-raw': flushRaw } });
  await disk.write(0, data(1));
  const seen: Record<string, string[]> = { raw: [], test: [] };
  for (const [name, side] of Object.entries({ raw: right, test: left })) {
    side.setScenario(({ type }) => {
      seen[name]?.push(type);
      return undefined;
    });
  }
  await disk.flush();
  expect(seen).toEqual({ raw: expected, test: ['flush'] });
  await disk.close();
});

test('BV-11: a close waits until both sides have done what is under way', async () => {
  const { disk, raw: right, graph } = await opened();
  right.add({ event: 'none', ioTypes: ['write'], action: 'delay', delayMs: 500 });
  const writing = disk.write(0, data(5));
  const file = graph.lookUp('raw-side').filtered?.node;
  if (file === undefined) throw new Error('it has one');
  graph.hold(file);
  await disk.close();
  await writing;
  const bytes = new Uint8Array(8192);
  await file.impl.read(0, bytes);
  expect(bytes).toEqual(data(5));
  await graph.release(file);
});

test('BV-11: what is suspended on one side fails when the disk is closed: it is not told that it succeeded', async () => {
  const { disk, graph, host, raw: right } = await opened();
  setBreakpoint(graph.lookUp('raw-side'), 'pwritev', 'A');
  const writing = failure(disk.write(0, data(5)));
  while (!right.engine.isSuspended('A')) await host.clock.sleep(1);
  await disk.close();
  expect((await writing).message).toContain('return value mismatch 0 != -125');
});

test('BV-12: overlapping writes land in one order on both sides, whatever each takes', async () => {
  for (let seed = 1; seed <= 10; seed++) {
    const { disk, verify, test: left, raw: right } = await opened({ raw: { seed } });
    for (const side of [left, right]) side.add({ event: 'none', ioTypes: ['write'], action: 'delay', jitterMs: 50 });
    const writes = [1, 2, 3, 4, 5].map((value) => disk.write(value * 512, data(value, 4096)));
    const reads = [1, 3].map((value) => disk.read(value * 512, 4096));
    await Promise.all([...writes, ...reads]);
    await verify.verify();
    expect(verify.counts().mismatches).toBe(0);
    await disk.close();
  }
});

describe("BV-13: what QEMU's has not", () => {
  test('zero writes and truncates go to both sides', async () => {
    const { disk, verify, graph } = await opened();
    await disk.write(0, data(7));
    await disk.writeZeroes(100, 5000);
    expect((await disk.read(0, 8192)).indexOf(0)).toBe(100);
    await disk.resize(2 * SIZE);
    expect(['raw-side', 'vdi'].map((name) => graph.lookUp(name).impl.length())).toEqual([2 * SIZE, 2 * SIZE]);
    await disk.write(2 * SIZE - 512, data(1, 512));
    await verify.verify();
    await disk.close();
  });

  test('a discarded range is not compared until it is written, what is around it is', async () => {
    const { disk, graph } = await opened();
    const block = 1 << 20;
    await disk.write(0, data(1, 3 * block));
    await disk.discard(block, block);
    expect((await disk.read(block, 512))[0]).toBe(0);
    await disk.read(block - 512, 1024);
    // The raw side is spoilt behind the filter's back, in and beside the range.
    const raw = graph.lookUp('raw-side').impl;
    await raw.write?.(block + 512, data(9, 512), {});
    await disk.read(block, block);
    await disk.write(block + 512, data(5, 512));
    await raw.write?.(block + 600, data(9, 1), {});
    expect(await failure(disk.read(block, block))).toMatchObject({ details: { firstDifference: block + 600 } });
    await disk.close();
  });

  test('unless discards are said to read as zeroes', async () => {
    const { disk, graph } = await opened({ options: { 'discard-result': 'zero' } });
    const block = 1 << 20;
    await disk.write(0, data(1, 2 * block));
    await disk.discard(0, block);
    await disk.read(0, block);
    await graph.lookUp('raw-side').impl.write?.(77, data(9, 1), {});
    expect(await failure(disk.read(0, block))).toMatchObject({ details: { firstDifference: 77 } });
    await disk.close();
  });

  test("the status is the test side's", async () => {
    const { disk } = await opened();
    await disk.write(1 << 20, data(1));
    expect(await disk.status(0, SIZE)).toMatchObject({ zero: true, length: 1 << 20 });
    expect(disk.tryStatusNow(0, SIZE)).toMatchObject({ zero: true });
    await disk.close();
  });
});

test('BV-14: either side may be replaced, since both hold the same data', async () => {
  const { disk, graph } = await opened();
  for (const name of ['test-side', 'raw-side', 'vdi'])
    expect(requireReplaceable(graph, disk.node, name).name).toBe(name);
  const other = await graph.add({ driver: 'memory', size: SIZE, 'node-name': 'other' });
  expect(() => requireReplaceable(graph, disk.node, 'other')).toThrow('abrupt change of visible data');
  await graph.release(other);
  await disk.close();
});

test('BV-16: the whole device is compared, but what both sides know to be zero, with progress', async () => {
  const { disk, verify, graph } = await opened();
  await disk.write(0, data(1, 4096));
  await disk.write(3 << 20, data(2, 4096));
  const steps: number[] = [];
  await verify.verify({ progress: (done, total) => steps.push(done / total) });
  expect(steps.at(-1)).toBe(1);
  expect(steps.every((step, index) => index === 0 || step > (steps[index - 1] ?? 0))).toBe(true);
  expect(verify.counts().compared).toBeLessThan(SIZE);
  await graph.lookUp('raw-side').impl.write?.((2 << 20) + 5, data(9, 1), {});
  expect(await failure(verify.verify())).toMatchObject({
    details: { operation: 'verify', firstDifference: (2 << 20) + 5 },
  });
  const stop = new AbortController();
  stop.abort(new Error('enough'));
  await expect(verify.verify({ signal: stop.signal })).rejects.toThrow('enough');
  await disk.close();
});

test('blkverifyOf refuses other nodes', async () => {
  const { disk, graph } = await opened();
  expect(() => blkverifyOf(graph.lookUp('vdi'))).toThrow("node 'vdi' is no blkverify node");
  await disk.close();
});
