/** Compressed writes on their way to a format: their shape, their order, and who refuses them. */
import { describe, expect, test } from 'vitest';
import type { Disk, OpenOptions } from '../../src/core/disk.ts';
import { type DriverNode, defineFormat, type Limits } from '../../src/core/driver.ts';
import { graphOf, Storage, storageProtocol } from './storage.ts';

const UNIT = 4096;

/** A format that writes down what it is asked to store compressed. */
function packing(story: string[], limits: Partial<Limits>, more: Partial<DriverNode> = {}) {
  return defineFormat<Record<never, never>>({
    name: 'packing',
    summary: 'Compresses nothing, and says so',
    options: {},
    compresses: true,
    async open({ file }) {
      return {
        length: () => file.length(),
        read: (offset, target) => file.read(offset, target),
        async write(offset, source) {
          story.push(`write ${offset}+${source.length}`);
          await file.write(offset, source);
        },
        async writeZeroes(offset, length) {
          story.push(`zero ${offset}+${length}`);
          await file.writeZeroes(offset, length);
        },
        async writeCompressed(offset, source) {
          story.push(`compressed ${offset}+${source.length}`);
          await file.write(offset, source);
        },
        async flush() {
          story.push('flush');
        },
        limits: () => limits,
        ...more,
      };
    },
  });
}

async function opened(
  length: number,
  limits: Partial<Limits> = { compressUnit: UNIT, requestAlign: 512 },
  options: OpenOptions & { readonly [key: string]: unknown } = {},
  more: Partial<DriverNode> = {},
): Promise<{ disk: Disk; story: string[] }> {
  const story: string[] = [];
  const graph = graphOf([storageProtocol(new Storage(length)), packing(story, limits, more)]);
  const { detect, ...open } = options;
  const tree = { driver: 'packing', file: { driver: 'store' }, ...(detect === true && { 'detect-zeroes': 'on' }) };
  return { disk: await graph.open(tree, { writable: true, ...open }), story };
}

const COMPRESSED = { compressed: true };

describe('compressed writes', () => {
  test('whole units reach the driver as they are, also up to an end that is none', async () => {
    const { disk, story } = await opened(4 * UNIT + 512);
    await disk.write(UNIT, new Uint8Array(2 * UNIT).fill(1), COMPRESSED);
    await disk.write(3 * UNIT, new Uint8Array(UNIT + 512).fill(1), COMPRESSED);
    await disk.write(4 * UNIT, new Uint8Array(512).fill(1), COMPRESSED);
    await disk.write(4 * UNIT, new Uint8Array(0), COMPRESSED);
    expect(story).toEqual(['compressed 4096+8192', 'compressed 12288+4608', 'compressed 16384+512']);
  });

  test.each([
    [0, 512],
    [512, UNIT],
    [0, UNIT + 512],
    [4 * UNIT - 512, 1024],
  ])('what is none is EINVAL, and reaches nobody: %d+%d', async (offset, length) => {
    const { disk, story } = await opened(4 * UNIT + 512);
    await expect(disk.write(offset, new Uint8Array(length).fill(1), COMPRESSED)).rejects.toMatchObject({
      code: 'EINVAL',
      message: `Compressed writes must be whole clusters of 4096 bytes, not bytes ${offset} to ${offset + length}`,
    });
    expect(story).toEqual([]);
  });

  test('ENOTSUP where there is no method, or no unit', async () => {
    const without = await opened(4 * UNIT, { compressUnit: 0 });
    const refusal = { code: 'ENOTSUP', message: "Driver 'packing' does not support compressed writes" };
    await expect(without.disk.write(0, new Uint8Array(UNIT), COMPRESSED)).rejects.toMatchObject(refusal);
    expect(without.story).toEqual([]);
    const storage = new Storage(UNIT);
    const plain = await graphOf([storageProtocol(storage)]).open({ driver: 'store' }, { writable: true });
    await expect(plain.write(0, new Uint8Array(UNIT), COMPRESSED)).rejects.toMatchObject({ code: 'ENOTSUP' });
    expect(storage.story).toEqual([]);
  });

  test('past the end, and on what is read-only, as other writes', async () => {
    const { disk } = await opened(4 * UNIT);
    await expect(disk.write(4 * UNIT, new Uint8Array(UNIT), COMPRESSED)).rejects.toMatchObject({ code: 'EIO' });
    const reading = await opened(4 * UNIT, undefined, { writable: false });
    await expect(reading.disk.write(0, new Uint8Array(UNIT), COMPRESSED)).rejects.toMatchObject({ code: 'EPERM' });
  });

  test('with fua, or without a write cache, a flush follows', async () => {
    const { disk, story } = await opened(4 * UNIT);
    await disk.write(0, new Uint8Array(UNIT).fill(1), { compressed: true, fua: true });
    expect(story).toEqual(['compressed 0+4096', 'flush']);
    const through = await opened(4 * UNIT, undefined, { cache: 'writethrough' });
    await through.disk.write(0, new Uint8Array(UNIT).fill(1), COMPRESSED);
    expect(through.story).toEqual(['compressed 0+4096', 'flush']);
  });

  test('zeroes that are detected are no data', async () => {
    const { disk, story } = await opened(4 * UNIT, undefined, { detect: true });
    await disk.write(0, new Uint8Array(UNIT), COMPRESSED);
    await disk.write(0, new Uint8Array(UNIT).fill(1), COMPRESSED);
    expect(story).toEqual(['zero 0+4096', 'compressed 0+4096']);
  });

  test('an unaligned write of the same block goes first when it began first', async () => {
    const { disk, story } = await opened(4 * UNIT);
    await Promise.all([
      disk.write(10, new Uint8Array(100).fill(1)),
      disk.write(0, new Uint8Array(UNIT).fill(2), COMPRESSED),
    ]);
    expect(story).toEqual(['write 0+512', 'compressed 0+4096']);
    expect((await disk.read(0, UNIT)).every((byte) => byte === 2)).toBe(true);
  });

  test('who keeps track of changes is told', async () => {
    const { disk } = await opened(4 * UNIT);
    const told: number[][] = [];
    const tracker = { changed: (...range: number[]) => void told.push(range), resized() {}, checkResize() {} };
    disk.node.trackers = [tracker];
    await disk.write(UNIT, new Uint8Array(UNIT).fill(1), COMPRESSED);
    disk.node.trackers = [];
    expect(told).toEqual([[UNIT, UNIT]]);
  });
});
