/** Block status through layers. */
import { describe, expect, test } from 'vitest';
import type { DriverNode, DriverSpec, Extent } from '../../src/core/driver.ts';
import { defineFormat } from '../../src/core/driver.ts';
import { InvariantError } from '../../src/core/invariant.ts';
import { raw } from '../../src/formats/raw.ts';
import { graphOf, plainFormat, Storage, storageProtocol } from './storage.ts';

type Extents = (offset: number, length: number) => Extent;

/** A format whose layer says what `extents` does. */
function layered(extents: Extents): DriverSpec {
  return defineFormat({
    name: 'layered',
    summary: '',
    options: {},
    async open(context): Promise<DriverNode> {
      const node = await plainFormat.open(context as never);
      return { ...node, length: () => 8192, status: async (offset, length) => extents(offset, length) };
    },
  });
}

async function opened(extents: Extents, below?: Extents, length = 8192) {
  const storage = new Storage(length);
  storage.extents = below;
  storage.without = ['tryReadNow', 'tryWriteNow'];
  const graph = graphOf([storageProtocol(storage), layered(extents), raw]);
  return await graph.open({ driver: 'layered', file: { driver: 'store', filename: 'f' } });
}

/** Data, then a hole, from 4096 on. */
const halfHole: Extents = (offset, length) =>
  offset < 4096 ? { kind: 'data', length: Math.min(length, 4096 - offset), at: { offset } } : { kind: 'zero', length };

describe('block status', () => {
  test('a driver without status has data everywhere', async () => {
    const graph = graphOf([storageProtocol(new Storage(8192))]);
    const disk = await graph.open({ driver: 'store' });
    expect(await disk.status(0, 8192)).toMatchObject({ length: 8192, allocated: true, data: true, zero: false });
  });

  test('data with a place names the file and the offset there', async () => {
    const disk = await opened((offset, length) => ({
      kind: 'data',
      length,
      at: { child: 'file', offset: offset + 512 },
    }));
    expect(await disk.status(100, 200)).toEqual({
      length: 200,
      allocated: true,
      data: true,
      zero: false,
      depth: 0,
      at: { filename: 'f', offset: 612 },
    });
  });

  test('data that may be a hole below is asked after there, and runs end where either layer says', async () => {
    const recursing: Extents = (offset, length) => ({
      kind: 'data',
      length,
      at: { child: 'file', offset },
      recurse: true,
    });
    const disk = await opened(recursing, halfHole);
    expect(await disk.status(1000, 7000)).toMatchObject({ length: 3096, data: true, zero: false });
    expect(await disk.status(4096, 4000)).toMatchObject({ length: 4000, allocated: true, zero: true });
  });

  test('zero and unallocated layers read as zeroes, and only one of them is stored', async () => {
    const zero = await opened((_, length) => ({ kind: 'zero', length }));
    expect(await zero.status(0, 10)).toMatchObject({ allocated: true, data: false, zero: true });
    const none = await opened((_, length) => ({ kind: 'unallocated', length }));
    expect(await none.status(0, 10)).toMatchObject({ allocated: false, data: false, zero: true });
  });

  test('encoded data has no place', async () => {
    const disk = await opened((_, length) => ({ kind: 'encoded', length }));
    const run = await disk.status(0, 10);
    expect(run).toMatchObject({ allocated: true, data: true, zero: false });
    expect(run.at).toBeUndefined();
  });

  test('raw says what its file says, and zeroes past its end', async () => {
    const storage = new Storage(5000);
    storage.without = ['tryReadNow', 'tryWriteNow'];
    storage.extents = halfHole;
    const graph = graphOf([storageProtocol(storage), raw]);
    const disk = await graph.open({ driver: 'raw', offset: 512, file: { driver: 'store', filename: 'f' } });
    expect(disk.length).toBe(4608);
    expect(await disk.status(0, 4608)).toMatchObject({ length: 3584, data: true, at: { offset: 512 } });
    expect(await disk.status(3584, 1024)).toMatchObject({ length: 904, zero: true });
    expect(await disk.status(4488, 120)).toMatchObject({ length: 120, zero: true, data: false });
  });

  test('a driver whose run is empty or too long has broken the contract', async () => {
    for (const length of [0, -1, 11]) {
      const disk = await opened(() => ({ kind: 'data', length }));
      await expect(disk.status(0, 10)).rejects.toThrow(InvariantError);
    }
  });
});
