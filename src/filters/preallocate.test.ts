import { describe, expect, test } from 'vitest';
import { createImage } from '../core/create.ts';
import { Graph } from '../core/graph.ts';
import type { Link } from '../core/node.ts';
import type { NestedOptions } from '../core/options.ts';
import { ALL_PERMISSIONS, Permission } from '../core/permissions.ts';
import { reopen } from '../core/reopen.ts';
import { raw } from '../formats/raw.ts';
import { vdi } from '../formats/vdi/vdi.ts';
import { file } from '../protocols/file.ts';
import { memory } from '../protocols/memory.ts';
import { type ContractSubject, driverContract, SimHost, type SimHostOptions } from '../testing/index.ts';
import { preallocate } from './preallocate.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

/** What a format needs of its file. */
const FORMAT = Permission.consistentRead | Permission.write | Permission.resize;

async function setUp(options: NestedOptions = {}, size = KIB, host = new SimHost()) {
  const graph = new Graph({ host, drivers: [file, memory, raw, vdi, preallocate] });
  host.put('disk', size);
  const storage = { driver: 'file', filename: 'disk', 'node-name': 'storage' };
  const node = await graph.add({ driver: 'preallocate', 'node-name': 'filter', file: storage, ...options });
  const user = { description: 'a test' };
  const link: Link = graph.attach('root', user, node, 'image', { need: FORMAT, share: ALL_PERMISSIONS });
  const stored = () => graph.lookUp('storage').impl.length();
  const close = async () => {
    await graph.detach(link);
    await graph.closeAll();
    return (await host.files.stat('disk')).size;
  };
  return { host, graph, node, link, stored, close };
}

const data = (length: number, value = 7) => new Uint8Array(length).fill(value);

describe('preallocate: sizes, as with qemu-io 7.2', () => {
  // A VDI of QEMU writes its first block, of 1 MiB, behind 1 KiB of header and map.
  test.each<[NestedOptions, number]>([
    [{}, 130 * MIB],
    [{ 'prealloc-align': 0 }, KIB + MIB + 128 * MIB],
    [{ 'prealloc-align': '3M', 'prealloc-size': '5M' }, 9 * MIB],
    [{ 'prealloc-align': '64k', 'prealloc-size': 0 }, 1114112],
    [{ 'prealloc-align': '1M', 'prealloc-size': 1000 }, 2 * MIB],
  ])('%j', async (options, expected) => {
    const { graph, link, stored, close } = await setUp(options);
    await link.write(KIB, data(MIB));
    expect(stored()).toBe(expected);
    expect(graph.lookUp('storage').impl.allocatedSize?.()).toBeGreaterThanOrEqual(expected - KIB);
    expect(link.length()).toBe(KIB + MIB);
    expect(await close()).toBe(KIB + MIB);
  });

  test('reserves anew only when what was reserved is used up', async () => {
    const { link, stored, close } = await setUp({ 'prealloc-align': '64k', 'prealloc-size': '1M' });
    await link.write(KIB, data(MIB));
    expect(stored()).toBe(2162688);
    await link.write(KIB + MIB, data(MIB));
    expect(stored()).toBe(2162688);
    await link.write(KIB + 2 * MIB, data(MIB));
    expect(stored()).toBe(4259840);
    expect(link.length()).toBe(KIB + 3 * MIB);
    expect(await close()).toBe(KIB + 3 * MIB);
  });

  test.each<[NestedOptions, string]>([
    [{ 'prealloc-align': 511 }, 'prealloc-align parameter of preallocate filter is not aligned to 512'],
    [{ 'prealloc-align': 1000 }, 'prealloc-align parameter of preallocate filter is not aligned to 512'],
    [{ 'prealloc-align': 'abc' }, "Parameter 'prealloc-align' expects a non-negative number below 2^64"],
    [{ 'prealloc-size': '16E' }, "Value '16E' is out of range for parameter 'prealloc-size'"],
    [{ foo: 1 }, "Block format 'preallocate' does not support the option 'foo'"],
  ])('%j: %s', async (options, message) => {
    await expect(setUp(options)).rejects.toMatchObject({ code: 'EINVAL', message });
  });

  test.each(['prealloc-align', 'prealloc-size'])('%s of more than a file can have reserves nothing', async (name) => {
    const { link, stored, close } = await setUp({ [name]: '4E' });
    await link.write(KIB, data(MIB));
    expect(stored()).toBe(KIB + MIB);
    expect(await close()).toBe(KIB + MIB);
  });
});

describe('preallocate', () => {
  test('what is reserved reads as the end of the disk, and as zeroes where the disk grows into it', async () => {
    const { link, close } = await setUp();
    await link.write(KIB, data(10));
    const target = data(40, 1);
    await link.read(KIB, target);
    expect(target).toEqual(Uint8Array.of(...data(10), ...data(30, 0)));
    await link.write(KIB + 4096, data(10));
    const gap = data(4086, 1);
    await link.read(KIB + 10, gap);
    expect(gap).toEqual(data(4086, 0));
    expect(await close()).toBe(KIB + 4106);
  });

  test('nothing is reserved by writing zeroes, where a file system can only do that', async () => {
    const host = new SimHost();
    host.faults.inject({ operation: 'allocate', code: 'ENOTSUP' });
    const { link, stored, close } = await setUp({}, KIB, host);
    for (const offset of [KIB, 2 * KIB]) await link.write(offset, data(KIB));
    expect([link.length(), stored()]).toEqual([3 * KIB, 3 * KIB]);
    const { allocate, write } = host.counters.operations;
    expect([allocate, write]).toEqual([1, 2]);
    expect(await close()).toBe(3 * KIB);
  });

  test('zero writes past the end reserve too, writes inside do not', async () => {
    const { link, stored, close } = await setUp({ 'prealloc-size': 0 });
    await link.write(0, data(KIB));
    await link.writeZeroes(0, KIB);
    expect(stored()).toBe(KIB);
    await link.writeZeroes(KIB, KIB);
    expect(stored()).toBe(MIB);
    expect(link.length()).toBe(2 * KIB);
    expect(await close()).toBe(2 * KIB);
  });

  test('writes into what is reserved are done at once, those past it are not', async () => {
    const { link, close } = await setUp({ 'prealloc-size': 0 });
    expect(link.tryWriteNow(KIB, data(10))).toBe(false);
    await link.write(KIB, data(10));
    expect(link.tryWriteNow(KIB + 10, data(10, 8))).toBe(true);
    expect(link.length()).toBe(KIB + 20);
    expect(link.tryWriteNow(MIB - 5, data(10))).toBe(false);
    expect(link.length()).toBe(KIB + 20);
    const target = data(10);
    expect(link.tryReadNow(KIB + 10, target)).toBe(true);
    expect(target).toEqual(data(10, 8));
    expect(await close()).toBe(KIB + 20);
  });

  test('many writes past the end at one time', async () => {
    const host = new SimHost({ latency: { min: 0, max: 5 }, refuseNow: 1 });
    const { link, close } = await setUp({ 'prealloc-align': 512, 'prealloc-size': 700 }, 0, host);
    await Promise.all(Array.from({ length: 20 }, (_, i) => link.write(i * 500, data(500, i + 1))));
    const content = data(20 * 500, 0);
    await link.read(0, content);
    for (let i = 0; i < 20; i++) expect(content.subarray(i * 500, i * 500 + 500)).toEqual(data(500, i + 1));
    expect(await close()).toBe(20 * 500);
  });

  test('resizing is to the byte, and what is reserved does not show in what is grown', async () => {
    const { link, stored, close } = await setUp();
    await link.write(KIB, data(KIB));
    await link.truncate(100 * KIB);
    expect([link.length(), stored()]).toEqual([100 * KIB, 100 * KIB]);
    await link.write(100 * KIB, data(KIB));
    await link.truncate(KIB + 512, { shrink: true });
    expect([link.length(), stored()]).toEqual([KIB + 512, KIB + 512]);
    await link.truncate(2 * MIB, { preallocation: 'falloc' });
    const target = data(MIB);
    await link.read(KIB + 512, target);
    expect(target.every((byte) => byte === 0)).toBe(true);
    expect(await close()).toBe(2 * MIB);
  });

  test('going read-only cuts off what is reserved, writable again it is reserved anew', async () => {
    const { graph, node, link, stored, close } = await setUp();
    await link.write(KIB, data(KIB));
    expect(stored()).toBeGreaterThan(128 * MIB);
    graph.changePermissions(link, { need: Permission.consistentRead, share: ALL_PERMISSIONS });
    await reopen(graph, [{ node, options: { 'read-only': true } }]);
    expect(stored()).toBe(2 * KIB);
    expect(link.length()).toBe(2 * KIB);
    await reopen(graph, [{ node, options: { 'read-only': false, 'prealloc-size': 0 } }]);
    graph.changePermissions(link, { need: FORMAT, share: ALL_PERMISSIONS });
    await link.write(2 * KIB, data(KIB));
    expect(stored()).toBe(MIB);
    expect(await close()).toBe(3 * KIB);
  });

  test('what is reserved is cut off before another program gets the file (BL-MISC-3)', async () => {
    const { node, link, stored, close } = await setUp();
    await link.write(KIB, data(KIB));
    await node.impl.inactivate?.();
    expect(stored()).toBe(2 * KIB);
    expect(await close()).toBe(2 * KIB);
  });

  test('a reopen with a bad alignment changes nothing', async () => {
    const { graph, node, link, stored, close } = await setUp();
    await link.write(KIB, data(KIB));
    await expect(reopen(graph, [{ node, options: { 'prealloc-align': 5 } }])).rejects.toThrow(
      'prealloc-align parameter of preallocate filter is not aligned to 512',
    );
    expect(stored()).toBe(129 * MIB);
    expect(await close()).toBe(2 * KIB);
  });

  test('what is reserved is cut off also when its writer left before its readers', async () => {
    const { host, graph, link } = await setUp();
    const reader = await graph.openReference('filter');
    await link.write(KIB, data(KIB));
    await graph.detach(link);
    await graph.closeAll().catch(() => {});
    expect(reader.length).toBe(2 * KIB);
    await reader.close();
    expect((await host.files.stat('disk')).size).toBe(2 * KIB);
  });

  test('nothing is reserved for users that may not resize, nor may others write what is', async () => {
    const { graph, link, stored, close } = await setUp();
    await link.write(KIB, data(KIB));
    const other = { description: 'another' };
    const storage = graph.lookUp('storage');
    for (const need of [Permission.write, Permission.resize]) {
      expect(() => graph.attach('root', other, storage, 'image', { need, share: ALL_PERMISSIONS })).toThrow(
        'Permission conflict',
      );
    }
    await graph.lookUp('filter').impl.truncate?.(2 * KIB, {});
    graph.changePermissions(link, { need: FORMAT & ~Permission.resize, share: ALL_PERMISSIONS });
    await link.write(2 * KIB, data(KIB));
    expect(stored()).toBe(3 * KIB);
    expect(await close()).toBe(3 * KIB);
  });

  test.each<[string, SimHostOptions]>([['full storage', { capacity: 3 * MIB }]])(
    'reserving is no duty: %s',
    async (_name, options) => {
      const { link, stored, close } = await setUp({}, KIB, new SimHost(options));
      await link.write(KIB, data(MIB));
      expect(stored()).toBe(KIB + MIB);
      expect(await close()).toBe(KIB + MIB);
    },
  );

  test('a child that cannot reserve grows as it would without', async () => {
    const graph = new Graph({ host: new SimHost(), drivers: [memory, raw, preallocate] });
    const node = await graph.add({ driver: 'preallocate', file: { driver: 'memory', size: 10 } });
    const user = { description: 'a test' };
    const link = graph.attach('root', user, node, 'image', { need: FORMAT, share: ALL_PERMISSIONS });
    await link.write(10, data(10));
    await link.write(20, data(10));
    expect(link.length()).toBe(30);
    expect(node.children[0]?.length()).toBe(30);
    await graph.detach(link);
    await graph.closeAll();
  });

  test('under a VDI: its file is as long afterwards as without', async () => {
    const host = new SimHost();
    const graph = new Graph({ host, drivers: [file, memory, raw, vdi, preallocate] });
    const sizes: number[] = [];
    for (const name of ['plain', 'filtered']) {
      await createImage(graph, { filename: name, format: 'vdi', size: 64 * MIB });
      const below = { driver: 'file', filename: name };
      const tree = { driver: 'vdi', file: name === 'plain' ? below : { driver: 'preallocate', file: below } };
      await using disk = await graph.open(tree, { writable: true });
      for (let i = 0; i < 4; i++) await disk.write(i * MIB, data(4096));
      if (name === 'filtered') expect((await host.files.stat(name)).size).toBeGreaterThan(128 * MIB);
      await disk.close();
      sizes.push((await host.files.stat(name)).size);
    }
    expect(sizes[1]).toBe(sizes[0]);
  });
});

describe('the driver contract, preallocating', () => {
  const subject: ContractSubject = {
    name: 'raw over preallocate',
    lengthUnit: 512,
    async make(length) {
      const host = new SimHost();
      host.put('disk', length);
      const graph = new Graph({ host, drivers: [file, raw, preallocate] });
      const tree = {
        driver: 'raw',
        file: { driver: 'preallocate', 'prealloc-size': 5000, file: { driver: 'file', filename: 'disk' } },
      };
      return { open: (options) => graph.open(tree, options), openFiles: () => host.openFiles };
    },
  };
  for (const { name, run } of driverContract(subject)) test(name, run);
});
