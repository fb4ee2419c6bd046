import { describe, expect, test } from 'vitest';
import { chainWorld, KIB, type Layer, MIB, makeChain, open, read, same } from '../../tests/support/chains.ts';
import { bytesWith, makeImage } from '../../tests/support/job-disks.ts';
import { imagesOf } from '../core/chain.ts';
import { createImage } from '../core/create.ts';
import { BlockError } from '../core/errors.ts';
import { rebase } from './rebase.ts';

const BASE: Layer = { size: 2 * MIB, writes: [[0, MIB]] };
const MIDDLE: Layer = {
  size: 2 * MIB,
  writes: [
    [64 * KIB, 64 * KIB],
    [128 * KIB, 64 * KIB, 'zero'],
  ],
};
const TOP: Layer = {
  size: 3 * MIB,
  writes: [
    [MIB, 100 * KIB],
    [192 * KIB, 64 * KIB, 'zero'],
    [2 * MIB + 777, 5],
  ],
};

/** An image beside the chain: in part like the base, in part other, longer or shorter. */
const OTHER = { format: 'raw', filename: 'other.raw' };

async function worldWithOther(length: number, runs: readonly (readonly [number, number])[]) {
  const world = chainWorld();
  await makeChain(world.graph, BASE, MIDDLE, TOP);
  await makeImage(world.graph, '/other.raw', 'raw', bytesWith(length, runs, 99));
  return { ...world, before: await read(world.graph, '/2.img') };
}

describe('rebase', () => {
  test.each([
    ['longer', 4 * MIB, [[512 * KIB, 3 * MIB]]],
    ['shorter', 768 * KIB, [[0, 600 * KIB]]],
    ['equal in part', 2 * MIB, [[0, MIB]]],
    ['empty', 2 * MIB, []],
  ] as const)('to an image that is %s keeps the content (T-REBASE-1)', async (_name, length, runs) => {
    const { graph, before } = await worldWithOther(length, runs);
    const disk = await open(graph, '/2.img');
    await rebase(disk, { backing: OTHER });
    expect(imagesOf(disk.node).map(({ filename }) => filename)).toEqual(['/2.img', '/other.raw']);
    expect(same(await disk.read(0, disk.length), before)).toBe(true);
    await disk.close();
    expect(graph.nodes()).toEqual([]);
    const again = await open(graph, '/2.img', { writable: false });
    expect(again.node.storedBacking).toEqual(OTHER);
    expect(imagesOf(again.node).map(({ filename }) => filename)).toEqual(['/2.img', '/other.raw']);
    expect(same(await again.read(0, again.length), before)).toBe(true);
    await again.close();
  });

  test('to an image of its chain copies only what is stored above that one', async () => {
    const { graph, before } = await worldWithOther(MIB, []);
    const disk = await open(graph, '/2.img');
    await rebase(disk, { backing: { filename: 'base.raw', format: 'raw' } });
    expect(imagesOf(disk.node).map(({ filename }) => filename)).toEqual(['/2.img', '/base.raw']);
    // What the image between stored, data and zeroes, and nothing of the base.
    expect(await disk.status(64 * KIB, 64 * KIB)).toMatchObject({ depth: 0, data: true, length: 64 * KIB });
    expect(await disk.status(128 * KIB, 128 * KIB)).toMatchObject({ depth: 0, zero: true, length: 128 * KIB });
    expect(await disk.status(256 * KIB, 64 * KIB)).toMatchObject({ depth: 1 });
    expect(same(await disk.read(0, disk.length), before)).toBe(true);
    await disk.close();
    expect(same(await read(graph, '/2.img'), before)).toBe(true);
  });

  test('to nothing makes the image stand alone, and zeroes below stay unallocated', async () => {
    const { graph, before } = await worldWithOther(MIB, []);
    const disk = await open(graph, '/2.img');
    const told: number[] = [];
    await rebase(disk, { progress: (done) => told.push(done) });
    expect([told[0], told.at(-1)]).toEqual([0, 3 * MIB]);
    expect(imagesOf(disk.node).length).toBe(1);
    expect(disk.node.storedBacking).toBeUndefined();
    expect(await disk.status(MIB + 128 * KIB, 512 * KIB)).toMatchObject({ allocated: false });
    await disk.close();
    expect(same(await read(graph, '/2.img'), before)).toBe(true);
    // And back again, from no image to one.
    const alone = await open(graph, '/2.img');
    await rebase(alone, { backing: { filename: '/base.raw', format: 'raw' } });
    await alone.close();
    expect(same(await read(graph, '/2.img'), before)).toBe(true);
  });

  test('to the image that is below already changes nothing but the name', async () => {
    const { graph, before } = await worldWithOther(MIB, []);
    const disk = await open(graph, '/2.img');
    await rebase(disk, { backing: { filename: '../1.img', format: 'qcow2' } });
    expect(await disk.status(64 * KIB, KIB)).toMatchObject({ depth: 1 });
    expect(disk.node.storedBacking).toEqual({ filename: '../1.img', format: 'qcow2' });
    await disk.close();
    expect(same(await read(graph, '/2.img'), before)).toBe(true);
  });

  test('a short image between hides what is below it (T-REBASE-1: missing parts are zeroes)', async () => {
    const { graph } = chainWorld();
    await makeChain(graph, { size: 2 * MIB, writes: [[0, 2 * MIB]] }, { size: MIB }, { size: 2 * MIB });
    const before = await read(graph, '/2.img');
    const disk = await open(graph, '/2.img');
    await rebase(disk, { backing: { filename: 'base.raw', format: 'raw' } });
    expect(await disk.status(MIB, MIB)).toMatchObject({ depth: 0, zero: true, allocated: true, length: MIB });
    await disk.close();
    expect(same(await read(graph, '/2.img'), before)).toBe(true);
  });

  test('unsafe changes the name only, and the image need not exist', async () => {
    const { graph } = await worldWithOther(MIB, []);
    const disk = await open(graph, '/2.img', { noBacking: true });
    await rebase(disk, { unsafe: true, backing: { filename: 'nowhere', format: 'raw' } });
    expect(disk.node.storedBacking).toEqual({ filename: 'nowhere', format: 'raw' });
    await rebase(disk, { unsafe: true });
    expect(disk.node.storedBacking).toBeUndefined();
    await disk.close();
  });

  test('what users write meanwhile is kept', async () => {
    const { graph, before } = await worldWithOther(2 * MIB, [[0, 2 * MIB]]);
    const disk = await open(graph, '/2.img');
    const work = rebase(disk, { backing: OTHER });
    const expected = before.slice();
    for (const offset of [0, 300 * KIB, 3 * MIB - 512]) {
      const bytes = new Uint8Array(512).fill(7);
      await disk.write(offset, bytes);
      expected.set(bytes, offset);
    }
    await work;
    expect(same(await disk.read(0, disk.length), expected)).toBe(true);
    await disk.close();
    expect(same(await read(graph, '/2.img'), expected)).toBe(true);
  });

  test('an abort leaves content and name as they were', async () => {
    const { graph, before } = await worldWithOther(2 * MIB, [[0, 2 * MIB]]);
    const disk = await open(graph, '/2.img');
    const stop = new AbortController();
    const progress = (done: number) => done > 0 && stop.abort();
    await expect(rebase(disk, { backing: OTHER, signal: stop.signal, progress })).rejects.toMatchObject({
      name: 'AbortError',
    });
    expect(disk.node.storedBacking?.filename).toBe('1.img');
    expect(same(await disk.read(0, disk.length), before)).toBe(true);
    await disk.close();
    expect(same(await read(graph, '/2.img'), before)).toBe(true);
    expect(graph.nodes()).toEqual([]);
  });
});

describe('refusals of a rebase (T-REBASE-1)', () => {
  const cases: readonly (readonly [string, object, string, string])[] = [
    [
      'no format',
      { backing: { filename: 'other.raw' } },
      'EINVAL',
      "Could not change the backing file to 'other.raw': backing format must be specified",
    ],
    [
      'an unknown format',
      { backing: { filename: 'other.raw', format: 'zork' } },
      'EINVAL',
      "Invalid format name: 'zork'",
    ],
    [
      'no such file',
      { backing: { filename: 'nope', format: 'raw' } },
      'ENOENT',
      "Could not open new backing file 'nope': Could not open '/nope': No such file or directory",
    ],
    [
      'a name longer than any header keeps (Q-BACK-2)',
      { unsafe: true, backing: { filename: 'x'.repeat(1024), format: 'raw' } },
      'EINVAL',
      `Could not change the backing file to '${'x'.repeat(1024)}': Invalid argument`,
    ],
  ];
  test.each(cases)('%s', async (_name, options, code, message) => {
    const { graph, before } = await worldWithOther(MIB, []);
    const disk = await open(graph, '/2.img');
    await expect(rebase(disk, options)).rejects.toMatchObject({ code, message });
    expect(disk.node.storedBacking?.filename).toBe('1.img');
    await disk.close();
    expect(same(await read(graph, '/2.img'), before)).toBe(true);
  });

  test('no room in the header', async () => {
    const { graph } = chainWorld();
    const options = { size: MIB, cluster_size: 512 };
    await createImage(graph, { filename: '/small.img', format: 'qcow2', options });
    const disk = await open(graph, '/small.img');
    const filename = 'x'.repeat(500);
    await expect(rebase(disk, { unsafe: true, backing: { filename, format: 'raw' } })).rejects.toMatchObject({
      code: 'ENOSPC',
      message: `Could not change the backing file to '${filename}': No space left in the file header`,
    });
    expect(disk.node.storedBacking).toBeUndefined();
    await disk.close();
  });

  test('a format without backing files', async () => {
    const { graph } = await worldWithOther(MIB, []);
    const disk = await open(graph, '/other.raw');
    await expect(rebase(disk, { backing: { filename: 'base.raw', format: 'raw' } })).rejects.toMatchObject({
      code: 'ENOTSUP',
      message: "Could not change the backing file to 'base.raw': Operation not supported",
    });
    await expect(rebase(disk, { unsafe: true })).rejects.toMatchObject({
      message: "Could not change the backing file to '': Operation not supported",
    });
    await disk.close();
  });

  test('a disk that is read-only', async () => {
    const { graph } = await worldWithOther(MIB, []);
    const disk = await open(graph, '/2.img', { writable: false });
    await expect(rebase(disk)).rejects.toMatchObject({ code: 'EPERM', message: 'Block node is read-only' });
    await disk.close();
  });

  test('a header that cannot be written: the image below is the old one again', async () => {
    const { graph, before } = await worldWithOther(MIB, []);
    const disk = await open(graph, '/2.img');
    const { impl } = disk.node;
    disk.node.impl = { ...impl, changeBacking: () => Promise.reject(new BlockError('EIO', 'broken')) };
    await expect(rebase(disk, { backing: OTHER })).rejects.toMatchObject({
      message: "Could not change the backing file to 'other.raw': Input/output error",
    });
    disk.node.impl = impl;
    expect(imagesOf(disk.node).map(({ filename }) => filename)).toEqual(['/2.img', '/1.img', '/base.raw']);
    expect(same(await disk.read(0, disk.length), before)).toBe(true);
    await disk.close();
    expect(graph.nodes()).toEqual([]);
  });

  test.each([
    ['old', '/1.img', 'error while reading from old backing file: Input/output error'],
    ['new', '/other.raw', 'error while reading from new backing file: Input/output error'],
    ['own', '/2.img', 'Error while writing to COW image: Input/output error'],
  ])('the %s image fails', async (_side, filename, message) => {
    const { graph } = await worldWithOther(2 * MIB, [[0, 2 * MIB]]);
    const kept = await graph.open('/other.raw', { format: 'raw' });
    const disk = await open(graph, '/2.img');
    const broken = () => Promise.reject(new BlockError('EIO', 'broken'));
    const nodes =
      filename === '/other.raw'
        ? []
        : graph.nodes().filter((node) => node.filename === filename && node.driver.kind === 'format');
    for (const node of nodes)
      node.impl = filename === '/2.img' ? { ...node.impl, write: broken } : { ...node.impl, read: broken };
    const work = rebase(disk, {
      backing: OTHER,
      progress: () => {
        if (filename !== '/other.raw') return;
        const node = graph
          .nodes()
          .filter((each) => each.filename === filename && each.driver.kind === 'format')
          .at(-1);
        if (node !== undefined) node.impl = { ...node.impl, read: broken };
      },
    });
    await expect(work).rejects.toMatchObject({ code: 'EIO', message });
    await disk.close();
    await kept.close();
  });
});
