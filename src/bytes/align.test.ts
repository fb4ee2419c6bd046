import { describe, expect, test } from 'vitest';
import { alignDown, alignUp, isPowerOfTwo } from './align.ts';

describe('alignment', () => {
  test('rounds to multiples, also above 2^32', () => {
    expect(alignDown(1000, 512)).toBe(512);
    expect(alignUp(1000, 512)).toBe(1024);
    expect(alignUp(1024, 512)).toBe(1024);
    expect(alignUp(0, 512)).toBe(0);
    expect(alignDown(2 ** 40 + 5, 4096)).toBe(2 ** 40);
    expect(alignUp(2 ** 40 + 5, 4096)).toBe(2 ** 40 + 4096);
  });

  test('takes alignments that are no power of two', () => {
    expect(alignDown(100, 30)).toBe(90);
    expect(alignUp(100, 30)).toBe(120);
  });
});

describe('isPowerOfTwo', () => {
  test.each([1, 2, 512, 2 ** 31, 2 ** 32, 2 ** 52])('accepts %d', (value) => {
    expect(isPowerOfTwo(value)).toBe(true);
  });
  test.each([0, -1, -2, 3, 2 ** 32 + 1, 1.5, Number.NaN, Number.POSITIVE_INFINITY])('refuses %d', (value) => {
    expect(isPowerOfTwo(value)).toBe(false);
  });
});
