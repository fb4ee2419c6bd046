import { describe, expect, test } from 'vitest';
import { createImage } from '../core/create.ts';
import { Graph } from '../core/graph.ts';
import type { NestedOptions } from '../core/options.ts';
import { qcow2 } from '../formats/qcow2/qcow2.ts';
import { raw } from '../formats/raw.ts';
import { file as fileProtocol } from '../protocols/file.ts';
import { memory } from '../protocols/memory.ts';
import { differsAt } from '../testing/compare-bytes.ts';
import { SimHost } from '../testing/index.ts';
import { compress } from './compress.ts';
import { copyOnRead } from './copy-on-read.ts';
import { preallocate } from './preallocate.ts';
import { throttleGroups } from './throttle/groups.ts';
import { throttle } from './throttle/throttle.ts';

const drivers = [fileProtocol, memory, raw, qcow2, copyOnRead, compress, preallocate, throttle];
const below = { driver: 'memory', size: 4096 };
const CLUSTER = 4096;
const image = { driver: 'qcow2', file: { driver: 'file', filename: '/disk' } };
const CHECK = { repair: 'none', finding() {} } as const;

async function qcow2Graph(size = 16 * CLUSTER): Promise<Graph> {
  const graph = new Graph({ host: new SimHost({ record: false }), drivers });
  await createImage(graph, { filename: '/disk', format: 'qcow2', size, options: { cluster_size: CLUSTER } });
  return graph;
}

describe('compress', () => {
  test.each<[NestedOptions, string]>([
    [{ driver: 'raw', file: below }, 'raw'],
    [below, 'memory'],
    [{ driver: 'copy-on-read', file: { driver: 'raw', file: below } }, 'raw'],
    [{ driver: 'raw', file: { ...image } }, 'raw'],
    [{ driver: 'preallocate', file: image }, 'preallocate'],
    [{ driver: 'compress', file: image }, 'compress'],
  ])('over what does not compress it is refused: %j', async (file, format) => {
    const graph = await qcow2Graph();
    await expect(graph.open({ driver: 'compress', file }, { writable: true })).rejects.toMatchObject({
      code: 'ENOTSUP',
      message: `Compression is not supported for underlying format: ${format}`,
    });
    expect(graph.nodes()).toEqual([]);
  });

  test('over nothing', async () => {
    const graph = new Graph({ host: new SimHost(), drivers });
    await expect(graph.open({ driver: 'compress' })).rejects.toThrow('A block device must be specified for "file"');
  });

  test('whatever is written is stored compressed, parts of clusters with what is around them', async () => {
    const graph = await qcow2Graph();
    const disk = await graph.open({ driver: 'compress', file: image }, { writable: true });
    const model = new Uint8Array(16 * CLUSTER);
    for (const [offset, length, byte] of [
      [0, 512, 1],
      [512, 512, 2],
      [3 * CLUSTER - 10, 2 * CLUSTER, 3],
      [8 * CLUSTER, 3 * CLUSTER, 4],
      [8 * CLUSTER, 3 * CLUSTER, 5],
    ] as const) {
      await disk.write(offset, new Uint8Array(length).fill(byte));
      model.fill(byte, offset, offset + length);
    }
    await disk.writeZeroes(9 * CLUSTER + 5, 100);
    model.fill(0, 9 * CLUSTER + 5, 9 * CLUSTER + 105);
    await disk.writeZeroes(10 * CLUSTER, CLUSTER);
    await disk.discard(0, CLUSTER);
    model.fill(0, 10 * CLUSTER, 11 * CLUSTER).fill(0, 0, CLUSTER);
    expect(differsAt(await disk.read(0, model.length), model)).toBe(-1);
    await disk.close();
    const plain = await graph.open(image);
    expect(differsAt(await plain.read(0, model.length), model)).toBe(-1);
    // Clusters 2, 3 and 4, and 8 and 9: what is not zero.
    expect(await plain.check(CHECK)).toMatchObject({
      corruptions: 0,
      leaks: 0,
      compressedClusters: 5,
      allocatedClusters: 5,
    });
    await plain.close();
  });

  test('an image that ends inside a cluster cannot be written through it, as in QEMU', async () => {
    const graph = await qcow2Graph(4 * CLUSTER + 512);
    await expect(graph.open({ driver: 'compress', file: image }, { writable: true })).rejects.toThrow(
      "Cannot get 'write' permission without 'resize': Image size is not a multiple of request alignment",
    );
  });
});

describe('compressed writes through filters', () => {
  test.each<[string, boolean]>([
    ['copy-on-read', true],
    ['throttle', true],
    ['preallocate', false],
    ['compress', false],
  ])('%s passes them on: %s', async (driver, passes) => {
    const graph = await qcow2Graph();
    throttleGroups(graph.host).add('g');
    const options = driver === 'throttle' ? { 'throttle-group': 'g' } : {};
    const disk = await graph.open({ driver, ...options, file: image }, { writable: true });
    const data = new Uint8Array(2 * CLUSTER).fill(5);
    const writing = disk.write(CLUSTER, data, { compressed: true });
    if (passes) await writing;
    else {
      await expect(writing).rejects.toMatchObject({
        code: 'ENOTSUP',
        message: `Driver '${driver}' does not support compressed writes`,
      });
    }
    await disk.close();
    const plain = await graph.open(image);
    expect(await plain.check(CHECK)).toMatchObject({ compressedClusters: passes ? 2 : 0 });
    await plain.close();
  });
});
