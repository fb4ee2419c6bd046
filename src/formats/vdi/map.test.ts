import { describe, expect, test } from 'vitest';
import { DirtyPages, isStored, mapBytes, UNALLOCATED, ZEROED } from './map.ts';

describe('entries (V-3)', () => {
  test('of the two highest values name no slot', () => {
    expect([0, 0x7fffffff, 0x80000000, 0xfffffffd, ZEROED, UNALLOCATED].map(isStored)).toEqual([
      true,
      true,
      true,
      true,
      false,
      false,
    ]);
  });

  test('are stored little endian', () => {
    expect([...mapBytes(new Uint32Array([9, 0x01020304, ZEROED]), 1, 3)]).toEqual([4, 3, 2, 1, 0xfe, 0xff, 0xff, 0xff]);
  });
});

describe('dirty pages', () => {
  test('are told as runs of entries, then clean', () => {
    const pages = new DirtyPages(5000);
    expect([pages.any, pages.take(5000)]).toEqual([false, []]);
    for (const entry of [0, 1, 1023, 1024, 4999, 3072]) pages.mark(entry);
    expect(pages.any).toBe(true);
    expect(pages.take(5000)).toEqual([
      { from: 0, to: 2048 },
      { from: 3072, to: 5000 },
    ]);
    expect([pages.any, pages.take(5000)]).toEqual([false, []]);
  });

  test('that could not be written are dirty again, beside those marked since', () => {
    const pages = new DirtyPages(5000);
    pages.mark(2000);
    const failed = pages.take(5000);
    pages.mark(10);
    pages.putBack(failed);
    expect(pages.take(5000)).toEqual([{ from: 0, to: 2048 }]);
  });

  test('follow a change of length', () => {
    const pages = new DirtyPages(10);
    pages.mark(3);
    pages.reset(2 ** 20);
    expect(pages.any).toBe(false);
    pages.mark(2 ** 20 - 1);
    expect(pages.take(2 ** 20)).toEqual([{ from: 2 ** 20 - 1024, to: 2 ** 20 }]);
  });
});
