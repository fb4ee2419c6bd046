import { describe, expect, test } from 'vitest';
import type { OpenOptions } from '../../core/disk.ts';
import { Graph } from '../../core/graph.ts';
import type { NestedOptions } from '../../core/options.ts';
import { reopen } from '../../core/reopen.ts';
import { raw } from '../../formats/raw.ts';
import { file } from '../../protocols/file.ts';
import { memory } from '../../protocols/memory.ts';
import { type ContractSubject, driverContract, SimHost } from '../../testing/index.ts';
import { throttleGroups } from './groups.ts';
import { parseLimits } from './limits.ts';
import { throttle } from './throttle.ts';

const FILE = { driver: 'memory', size: 1 << 20 };

function setUp(limits: Record<string, number> = {}) {
  const host = new SimHost();
  const graph = new Graph({ host, drivers: [file, memory, raw, throttle] });
  const groups = throttleGroups(host);
  const properties = Object.entries(limits).map(([name, value]) => [`limits.${name}`, value]);
  const group = groups.add('g0', parseLimits(Object.fromEntries(properties)));
  const open = (file: NestedOptions = FILE, options: OpenOptions = { writable: true }) =>
    graph.open({ driver: 'throttle', 'throttle-group': 'g0', file }, options);
  const timed = async (work: () => Promise<unknown>) => {
    const start = host.clock.now();
    await work();
    return Math.round(host.clock.now() - start);
  };
  return { host, graph, groups, group, open, timed };
}

const data = (length: number) => new Uint8Array(length).fill(7);

describe('throttle: opening', () => {
  test.each<[NestedOptions, string]>([
    [{ driver: 'throttle', file: FILE }, 'Please specify a throttle group'],
    [{ driver: 'throttle', 'throttle-group': '', file: FILE }, "Throttle group '' does not exist"],
    [{ driver: 'throttle', 'throttle-group': 'nope', file: FILE }, "Throttle group 'nope' does not exist"],
    [{ driver: 'throttle', 'throttle-group': 'g0' }, 'A block device must be specified for "file"'],
    [
      { driver: 'throttle', 'throttle-group': 'g0', foo: 'bar', file: FILE },
      "Block format 'throttle' does not support the option 'foo'",
    ],
  ])('%j: %s (M-OBJ-3)', async (options, message) => {
    const { graph, groups } = setUp();
    await expect(graph.open(options)).rejects.toMatchObject({ code: 'EINVAL', message });
    expect(graph.nodes()).toEqual([]);
    // Nothing that failed is a member still.
    groups.remove('g0');
  });

  test('an open node keeps its group; closing lets it go', async () => {
    const { groups, open } = setUp();
    const disk = await open();
    expect(() => groups.remove('g0')).toThrow("object 'g0' is in use, can not be deleted");
    await disk.close();
    groups.remove('g0');
  });

  test('the group is a part of the name', async () => {
    const { open } = setUp();
    await using disk = await open();
    expect(JSON.parse(disk.filename.slice('json:'.length))).toMatchObject({
      'throttle-group': 'g0',
      driver: 'throttle',
      file: { driver: 'memory', size: 1 << 20 },
    });
  });
});

describe('throttle: requests', () => {
  test('reads, writes, zero writes and discards wait; flushes, status and resizing do not', async () => {
    const { open, timed } = setUp({ 'iops-total': 10 });
    await using disk = await open();
    await disk.write(0, data(512));
    await disk.read(0, 512);
    expect(await timed(() => disk.read(0, 512))).toBe(100);
    expect(await timed(() => disk.write(0, data(512)))).toBe(100);
    expect(await timed(() => disk.writeZeroes(0, 512))).toBe(100);
    expect(await timed(() => disk.discard(0, 512))).toBe(100);
    expect(await timed(() => disk.flush())).toBe(0);
    expect(await timed(() => disk.status(0, 512))).toBe(0);
    expect(await timed(() => disk.resize(2 << 20))).toBe(0);
  });

  test.each<[string, (disk: Awaited<ReturnType<ReturnType<typeof setUp>['open']>>) => Promise<unknown>]>([
    ['write', (disk) => disk.write(0, data(4096))],
    ['writeZeroes', (disk) => disk.writeZeroes(0, 4096)],
    ['discard', (disk) => disk.discard(0, 4096)],
  ])('bytes of %s count as written', async (_name, work) => {
    const { open, timed } = setUp({ 'bps-write': 10240 });
    await using disk = await open();
    await work(disk);
    expect(await timed(() => disk.read(0, 65536))).toBe(0);
    expect(await timed(() => work(disk))).toBe(300);
    expect(await timed(() => work(disk))).toBe(400);
  });

  test('two nodes of a group share its limits', async () => {
    const { open, timed } = setUp({ 'iops-read': 10 });
    await using first = await open();
    await using second = await open();
    await first.read(0, 512);
    await first.read(0, 512);
    expect(await timed(() => second.read(0, 512))).toBe(100);
  });

  test('what need not wait is answered at once, and counts', async () => {
    const { group, open, timed } = setUp({ 'bps-total': 10240 });
    await using disk = await open();
    const target = new Uint8Array(4096);
    expect(disk.tryWriteNow(0, data(4096))).toBe(true);
    expect(disk.tryReadNow(0, target)).toBe(false);
    expect(disk.tryWriteNow(0, target)).toBe(false);
    expect(await timed(() => disk.read(0, 4096))).toBe(300);
    group.limits = parseLimits({});
    expect(disk.tryReadNow(0, target)).toBe(true);
    expect(target).toEqual(data(4096));
    expect(disk.tryStatusNow(0, 4096)).toMatchObject({ data: true });
  });

  test('a drain lets what waits pass at once (BL-CLOSE-2, step 2)', async () => {
    const { host, graph, open, timed } = setUp({ 'iops-total': 1 });
    await using disk = await open();
    const reads = Array.from({ length: 30 }, () => disk.read(0, 512));
    const drain = await graph.drain(disk.node);
    await Promise.all(reads);
    expect(host.clock.now()).toBe(0);
    drain.end();
    // They count: 30 requests, less what the bucket holds.
    expect(await timed(() => disk.read(0, 512))).toBe(29900);
  });
});

describe('throttle: below another node', () => {
  test('a drain of the node above does not wait for limits (BL-CTX-5)', async () => {
    const { host, graph } = setUp({ 'iops-total': 1 });
    const tree = { driver: 'raw', file: { driver: 'throttle', 'throttle-group': 'g0', file: FILE } };
    await using disk = await graph.open(tree, { writable: true });
    const reads = Array.from({ length: 30 }, () => disk.read(0, 512));
    const drain = await graph.drain(disk.node);
    drain.end();
    await Promise.all(reads);
    expect(host.clock.now()).toBe(0);
  });
});

describe('throttle: what must not go around it', () => {
  test('closing lets what waits pass at once (BL-CLOSE-2, step 2)', async () => {
    const { host, open } = setUp({ 'iops-total': 1 });
    const disk = await open();
    const reads = Array.from({ length: 30 }, () => disk.read(0, 512));
    await disk.close();
    await Promise.all(reads);
    expect(host.clock.now()).toBe(0);
  });

  test('copying inside the host', async () => {
    const { host, graph, open } = setUp({ 'bps-total': 10240 });
    host.put('from', 65536);
    host.put('to', 65536);
    await using plain = await graph.open({ driver: 'file', filename: 'from' }, { writable: true });
    await using throttled = await open({ driver: 'file', filename: 'to' });
    await expect(throttled.copyFrom(plain, 0, 0, 65536)).rejects.toMatchObject({ code: 'ENOTSUP' });
    await expect(plain.copyFrom(throttled, 0, 0, 65536)).rejects.toMatchObject({ code: 'ENOTSUP' });
  });
});

describe('throttle: reopening', () => {
  test('moves the node to another group', async () => {
    const { graph, groups, open, timed } = setUp({ 'iops-total': 1 });
    groups.add('g1');
    await using disk = await open();
    await disk.read(0, 512);
    await reopen(graph, [{ node: disk.node, options: { 'throttle-group': 'g1' } }]);
    groups.remove('g0');
    for (let i = 0; i < 5; i++) expect(await timed(() => disk.read(0, 512))).toBe(0);
  });

  test.each(['nope', ''])('no group of the name %j: all stays', async (name) => {
    const { graph, groups, open, timed } = setUp({ 'iops-total': 10 });
    await using disk = await open();
    await expect(reopen(graph, [{ node: disk.node, options: { 'throttle-group': name } }])).rejects.toMatchObject({
      code: 'EINVAL',
      message: `Throttle group '${name}' does not exist`,
    });
    expect(groups.get('g0')?.memberCount).toBe(1);
    await disk.read(0, 512);
    await disk.read(0, 512);
    expect(await timed(() => disk.read(0, 512))).toBe(100);
  });
});

describe('the driver contract, throttled', () => {
  const subject = (name: string, limits: Record<string, number>): ContractSubject => ({
    name,
    async make(length) {
      const { host, open } = setUp(limits);
      host.put('disk', length);
      return {
        open: (options) => open({ driver: 'file', filename: 'disk' }, options),
        openFiles: () => host.openFiles,
      };
    },
  });
  const subjects = [subject('throttle', { 'iops-total': 100, 'bps-write': 1e6 }), subject('throttle, unlimited', {})];
  for (const { name, run } of subjects.flatMap(driverContract)) test(name, run);
});
