import { describe, expect, test } from 'vitest';
import { areas, granules } from '../../tests/support/bitmaps.ts';
import { HierarchicalBitmap } from './hierarchical-bitmap.ts';

const TiB = 2 ** 40;
/** Granules of a page, and of the levels above it. */
const LEAF = 2 ** 15;

describe('set and reset (BL-HB-2)', () => {
  test('set rounds outward: 16 elements, granules of 2, set(0, 9) makes granules 0 to 4 dirty', () => {
    const bitmap = new HierarchicalBitmap(16, 2);
    bitmap.set(0, 9);
    expect(granules(bitmap)).toEqual([0, 2, 4, 6, 8]);
    expect(bitmap.count).toBe(10);
  });

  test('length 0 is nothing, also inside a granule and at the end', () => {
    const bitmap = new HierarchicalBitmap(100, 8);
    for (const offset of [0, 5, 100]) bitmap.set(offset, 0);
    expect(bitmap.empty).toBe(true);
    bitmap.set(0, 100);
    for (const offset of [0, 8, 100]) bitmap.reset(offset, 0);
    expect(areas(bitmap)).toEqual([[0, 100]]);
  });

  test('a reset that is not aligned is refused and clears nothing; at the tail it need not be', () => {
    const bitmap = new HierarchicalBitmap(100, 8);
    bitmap.set(0, 100);
    for (const [offset, length] of [
      [1, 7],
      [0, 7],
      [8, 9],
      [4, 96],
      [8, 91],
    ] as const) {
      expect(() => bitmap.reset(offset, length)).toThrow(RangeError);
    }
    expect(areas(bitmap)).toEqual([[0, 100]]);
    bitmap.reset(96, 4);
    bitmap.reset(8, 16);
    expect(areas(bitmap)).toEqual([
      [0, 8],
      [24, 96],
    ]);
    bitmap.set(99, 1);
    expect([bitmap.get(95), bitmap.get(96), bitmap.count]).toEqual([true, true, 88]);
  });

  test.each([
    [0, 101],
    [101, 0],
    [-1, 2],
    [0, -1],
    [0.5, 1],
    [0, Number.NaN],
    [2 ** 53, 1],
  ])('a range outside is refused: %d, %d', (offset, length) => {
    const bitmap = new HierarchicalBitmap(100, 8);
    for (const call of [
      () => bitmap.set(offset, length),
      () => bitmap.reset(offset, length),
      () => bitmap.status(offset, length),
      () => bitmap.serialise(offset, length),
    ]) {
      expect(call).toThrow(RangeError);
    }
    expect(bitmap.empty).toBe(true);
  });
});

describe('size', () => {
  test('at most 2^41 granules (BL-HB-1)', () => {
    expect(() => new HierarchicalBitmap(2 ** 52, 1024)).toThrow(RangeError);
    expect(() => new HierarchicalBitmap(2 ** 41 + 1, 1)).toThrow(RangeError);
    const bitmap = new HierarchicalBitmap(Number.MAX_SAFE_INTEGER, 4096);
    bitmap.set(Number.MAX_SAFE_INTEGER - 1, 1);
    expect(areas(bitmap)).toEqual([[2 ** 53 - 4096, Number.MAX_SAFE_INTEGER]]);
    bitmap.set(0, Number.MAX_SAFE_INTEGER);
    expect(bitmap.count).toBe(2 ** 53);
  });

  test.each([0, 3, -2, 1.5, Number.NaN])('granularity %d is refused', (granularity) => {
    expect(() => new HierarchicalBitmap(100, granularity)).toThrow(RangeError);
  });

  test('0 is a size like any other', () => {
    const bitmap = new HierarchicalBitmap(0, 512);
    bitmap.set(0, 0);
    expect([bitmap.count, bitmap.empty, bitmap.nextDirty(0), bitmap.nextClean(0)]).toEqual([0, true, -1, -1]);
    expect([bitmap.nextDirtyArea(0), granules(bitmap), bitmap.get(0)]).toEqual([undefined, [], false]);
    expect(bitmap.serialise(0, 0)).toEqual(new Uint8Array(0));
    bitmap.deserialise(0, 0, new Uint8Array(0));
    bitmap.merge(new HierarchicalBitmap(0, 1024));
    bitmap.truncate(1000);
    bitmap.set(600, 1);
    bitmap.truncate(0);
    bitmap.truncate(1000);
    expect(bitmap.empty).toBe(true);
  });

  test('shrinking keeps a partly covered last granule; growing adds clean ones (BL-HB-5)', () => {
    const bitmap = new HierarchicalBitmap(1024, 128);
    bitmap.set(0, 1024);
    bitmap.truncate(450);
    expect([areas(bitmap), bitmap.count]).toEqual([[[0, 450]], 512]);
    bitmap.truncate(2000);
    expect([areas(bitmap), bitmap.count]).toEqual([[[0, 512]], 512]);
  });

  test('the count may exceed the size (BL-BITMAP-8), and is 0 after a clear (BL-HB-3)', () => {
    const bitmap = new HierarchicalBitmap(1, 65536);
    bitmap.set(0, 1);
    expect([bitmap.count, bitmap.empty]).toEqual([65536, false]);
    bitmap.clear();
    expect([bitmap.count, bitmap.empty]).toEqual([0, true]);
  });
});

describe('searches (BL-HB-6)', () => {
  const bitmap = new HierarchicalBitmap(1000, 128);
  bitmap.set(300, 100);
  bitmap.set(900, 1);

  test('next dirty and next clean give bytes, within the end', () => {
    expect([bitmap.nextDirty(0), bitmap.nextDirty(300), bitmap.nextDirty(512)]).toEqual([256, 300, 896]);
    expect([bitmap.nextDirty(0, 256), bitmap.nextDirty(0, 257), bitmap.nextDirty(1000)]).toEqual([-1, 256, -1]);
    expect([bitmap.nextClean(0), bitmap.nextClean(300), bitmap.nextClean(950)]).toEqual([0, 512, -1]);
    expect([bitmap.nextClean(300, 512), bitmap.nextClean(300, 513)]).toEqual([-1, 512]);
    expect(() => bitmap.nextDirty(1001)).toThrow(RangeError);
    expect(() => bitmap.nextDirty(0, 1001)).toThrow(RangeError);
    expect(() => bitmap.nextDirty(7, 6)).toThrow(RangeError);
  });

  test('next dirty area, with a limit', () => {
    expect(bitmap.nextDirtyArea(0)).toEqual({ offset: 256, length: 256 });
    expect(bitmap.nextDirtyArea(300, 333)).toEqual({ offset: 300, length: 33 });
    expect(bitmap.nextDirtyArea(0, 1000, 50)).toEqual({ offset: 256, length: 50 });
    expect(bitmap.nextDirtyArea(0, 150)).toBeUndefined();
    expect(bitmap.nextDirtyArea(950)).toEqual({ offset: 950, length: 50 });
    expect(() => bitmap.nextDirtyArea(0, 1000, 0)).toThrow(RangeError);
  });

  test('status with run length', () => {
    expect(bitmap.status(0, 1000)).toEqual({ dirty: false, length: 256 });
    expect(bitmap.status(10, 20)).toEqual({ dirty: false, length: 20 });
    expect(bitmap.status(511, 100)).toEqual({ dirty: true, length: 1 });
    expect(bitmap.status(901, 99)).toEqual({ dirty: true, length: 99 });
    expect(() => bitmap.status(0, 0)).toThrow(RangeError);
  });
});

describe('iteration', () => {
  test('gives the start of each dirty granule, ascending, then -1; it can be moved (BL-BITMAP-10)', () => {
    const bitmap = new HierarchicalBitmap(1000, 128);
    bitmap.set(0, 1);
    bitmap.set(300, 100);
    const iterator = bitmap.granules();
    expect([iterator.next(), iterator.next(), iterator.next(), iterator.next()]).toEqual([0, 256, 384, -1]);
    iterator.seek(300);
    expect([iterator.next(), iterator.next()]).toEqual([256, 384]);
    expect(granules(bitmap, 400)).toEqual([384]);
  });

  test('must begin below the size (BL-HB-4)', () => {
    const bitmap = new HierarchicalBitmap(1000, 128);
    expect(() => bitmap.granules(1000)).toThrow(RangeError);
    expect(() => bitmap.granules(-1)).toThrow(RangeError);
    expect(() => bitmap.granules().seek(1000)).toThrow(RangeError);
  });

  test('bits cleared ahead are skipped (BL-HB-4)', () => {
    const bitmap = new HierarchicalBitmap(1000, 128);
    bitmap.set(0, 1000);
    const iterator = bitmap.granules();
    expect(iterator.next()).toBe(0);
    bitmap.reset(128, 640);
    expect([iterator.next(), iterator.next(), iterator.next()]).toEqual([768, 896, -1]);
  });
});

describe('merge (BL-HB-6)', () => {
  test('needs equal sizes', () => {
    const bitmap = new HierarchicalBitmap(1000, 128);
    const other = new HierarchicalBitmap(1001, 128);
    expect([bitmap.canMerge(other), bitmap.canMerge(new HierarchicalBitmap(1000, 8))]).toEqual([false, true]);
    expect(() => bitmap.merge(other)).toThrow(RangeError);
  });

  test('source areas round outward, and the source stays as it is', () => {
    const fine = new HierarchicalBitmap(1000, 4);
    const coarse = new HierarchicalBitmap(1000, 64);
    fine.set(60, 8);
    fine.set(999, 1);
    coarse.merge(fine);
    expect(areas(coarse)).toEqual([
      [0, 128],
      [960, 1000],
    ]);
    expect(areas(fine)).toEqual([
      [60, 68],
      [996, 1000],
    ]);
    fine.merge(coarse);
    expect([areas(fine), fine.count]).toEqual([areas(coarse), 168]);
  });

  test('a merge into a clean bitmap copies: later changes of one are not seen in the other', () => {
    const a = new HierarchicalBitmap(LEAF * 300, 1);
    a.set(7, 5);
    const b = new HierarchicalBitmap(LEAF * 300, 1);
    b.merge(a);
    b.set(100, 1);
    a.reset(7, 1);
    const c = b.copy();
    c.reset(7, 5);
    expect([areas(a), areas(b), areas(c)]).toEqual([
      [[8, 12]],
      [
        [7, 12],
        [100, 101],
      ],
      [[100, 101]],
    ]);
  });

  test('dense leaves of every scale are rounded like single runs', () => {
    for (const [from, to] of [
      [1, 2],
      [2, 1],
      [1, 32],
      [64, 1],
      [1, 1024],
      [1, 4096],
      [32, 1],
    ] as const) {
      // Odd size, dense and sparse leaves, one that is full.
      const source = new HierarchicalBitmap(LEAF * 3 * from + 5, from);
      for (let at = 0; at < LEAF * from; at += 3 * from) source.set(at, 1);
      source.set(LEAF * from, LEAF * from);
      source.set(LEAF * 3 * from - from, from + 5);
      const merged = new HierarchicalBitmap(source.size, to);
      merged.merge(source);
      const expected = new HierarchicalBitmap(source.size, to);
      for (const [start, end] of areas(source)) expected.set(start, end - start);
      expect([from, to, merged.count, areas(merged)]).toEqual([from, to, expected.count, areas(expected)]);
    }
  });
});

describe('serialised form (BL-HB-7)', () => {
  test('one bit a granule, lowest first', () => {
    const bitmap = new HierarchicalBitmap(797, 8);
    bitmap.set(0, 1);
    bitmap.set(72, 8);
    bitmap.set(796, 1);
    expect([...bitmap.serialise(0, 797)]).toEqual([1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8]);
  });

  test('chunks are aligned to 64 granules, except the last', () => {
    const bitmap = new HierarchicalBitmap(797, 8);
    expect([bitmap.serialisedLength(0, 512), bitmap.serialisedLength(512, 285)]).toEqual([8, 5]);
    for (const [offset, length] of [
      [256, 256],
      [0, 256],
      [512, 280],
    ] as const) {
      expect(() => bitmap.serialise(offset, length)).toThrow(RangeError);
      expect(() => bitmap.deserialise(offset, length, new Uint8Array(4))).toThrow(RangeError);
    }
    expect(() => bitmap.deserialise(0, 512, new Uint8Array(9))).toThrow(RangeError);
  });

  test('loading replaces, recounts, and ignores bits past the end', () => {
    const bitmap = new HierarchicalBitmap(797, 8);
    bitmap.set(0, 797);
    bitmap.deserialise(512, 285, new Uint8Array([0, 0, 0, 0, 0xff]));
    expect([areas(bitmap), bitmap.count]).toEqual([
      [
        [0, 512],
        [768, 797],
      ],
      544,
    ]);
    bitmap.truncate(2000);
    expect(bitmap.count).toBe(544);
    bitmap.deserialise(0, 512, new Uint8Array(8));
    expect(areas(bitmap)).toEqual([[768, 800]]);
  });
});

describe('memory', () => {
  /** Bytes of pages that `make` leaves behind, more or less. */
  function pagesOf(make: () => HierarchicalBitmap): number {
    const before = process.memoryUsage().arrayBuffers;
    const made = make();
    const after = process.memoryUsage().arrayBuffers;
    return made.size > 0 ? after - before : 0;
  }

  test('16 TiB of few long runs cost a few pages, not 32 MiB', () => {
    const bytes = pagesOf(() => {
      const bitmap = new HierarchicalBitmap(16 * TiB, 65536);
      bitmap.set(0, 16 * TiB);
      for (let i = 0; i < 50; i++) bitmap.reset(i * 300 * 2 ** 30, 2 ** 31);
      for (let i = 0; i < 10; i++) bitmap.set(i * TiB + 12345, TiB / 4);
      return bitmap;
    });
    expect(bytes).toBeLessThan(2 ** 20);
  });

  test('loading 32 MiB of zeroes and of ones leaves no page behind', () => {
    const bitmap = new HierarchicalBitmap(16 * TiB, 65536);
    const chunk = 2 ** 25 * 65536;
    const data = new Uint8Array(2 ** 22);
    for (let at = 0; at < 16 * TiB; at += chunk) {
      data.fill(at % (2 * chunk) === 0 ? 255 : 0);
      bitmap.deserialise(at, chunk, data);
    }
    expect(areas(bitmap).length).toBe(4);
    // Uniform storage is shared: copying it takes nothing.
    expect(pagesOf(() => bitmap.copy())).toBeLessThan(2 ** 16);
  });
});
