import { describe, expect, test } from 'vitest';
import { equalWords, firstDifference, firstNonZero, lastNonZero } from './difference.ts';

const LENGTHS = [1, 3, 4, 63, 4096, 4097, 20_001];

describe('the first difference', () => {
  test.each(LENGTHS)('of buffers of %i bytes, wherever it is', (length) => {
    const a = Uint8Array.from({ length }, (_, index) => index * 7);
    expect(firstDifference(a, a.slice())).toBe(-1);
    for (const at of [0, length >> 1, length - 1]) {
      const b = a.slice();
      b[at] = (b[at] ?? 0) ^ 0x80;
      expect(firstDifference(a, b)).toBe(at);
      expect(firstDifference(b, a)).toBe(at);
    }
  });

  test('of several is the lowest', () => {
    const a = new Uint8Array(10_000);
    const b = new Uint8Array(10_000);
    b[9000] = 1;
    b[4100] = 1;
    expect(firstDifference(a, b)).toBe(4100);
  });

  test('of empty buffers: there is none', () => {
    expect(firstDifference(new Uint8Array(0), new Uint8Array(0))).toBe(-1);
  });
});

describe('the first byte that is not zero', () => {
  test.each(LENGTHS)('of %i bytes', (length) => {
    expect(firstNonZero(new Uint8Array(length))).toBe(-1);
    for (const at of [0, length >> 1, length - 1]) {
      const bytes = new Uint8Array(length);
      bytes[at] = 1;
      expect(firstNonZero(bytes)).toBe(at);
    }
  });
});

describe('the last byte that is not zero', () => {
  test.each(LENGTHS)('of %i bytes, and of those before it', (length) => {
    expect(lastNonZero(new Uint8Array(length))).toBe(-1);
    for (const at of [0, length >> 1, length - 1]) {
      const bytes = new Uint8Array(length);
      bytes[0] = 1;
      bytes[at] = 1;
      expect(lastNonZero(bytes)).toBe(at);
      expect(lastNonZero(bytes, at)).toBe(at === 0 ? -1 : 0);
    }
  });
});

describe('equality without a memcmp', () => {
  test.each([
    [0, 0],
    [1, 0],
    [1, 3],
  ])('of buffers at offsets %i and %i of their memory', (left, right) => {
    const a = new Uint8Array(1000).subarray(left, left + 901).fill(5);
    const b = new Uint8Array(1000).subarray(right, right + 901).fill(5);
    expect(equalWords(a, b)).toBe(true);
    for (const at of [0, 450, 900]) {
      b[at] = 6;
      expect(equalWords(a, b)).toBe(false);
      b[at] = 5;
    }
  });
});
