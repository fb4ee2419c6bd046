import { describe, expect, test } from 'vitest';
import { readU32, readU64, swapU32, writeU32, writeU64 } from './endian.ts';

describe('32-bit fields', () => {
  test('are little endian and unsigned', () => {
    const bytes = new Uint8Array(8);
    writeU32(bytes, 2, 0xfedcba98);
    expect([...bytes]).toEqual([0, 0, 0x98, 0xba, 0xdc, 0xfe, 0, 0]);
    expect(readU32(bytes, 2)).toBe(0xfedcba98);
  });

  test('respect where a view begins in its buffer', () => {
    const bytes = new Uint8Array([9, 9, 1, 0, 0, 0]).subarray(2);
    expect(readU32(bytes, 0)).toBe(1);
  });

  test('past the end are refused', () => {
    expect(() => readU32(new Uint8Array(3), 0)).toThrow(RangeError);
  });
});

describe('64-bit fields', () => {
  test('are numbers while they are safe integers', () => {
    const bytes = new Uint8Array(8);
    writeU64(bytes, 0, Number.MAX_SAFE_INTEGER);
    expect(readU64(bytes, 0)).toBe(Number.MAX_SAFE_INTEGER);
  });

  test('are bigints above, not rounded', () => {
    const bytes = new Uint8Array([1, 0, 0, 0, 0, 0, 0x20, 0]);
    expect(readU64(bytes, 0)).toBe(2n ** 53n + 1n);
    expect(readU64(new Uint8Array(8).fill(0xff), 0)).toBe(2n ** 64n - 1n);
  });
});

test('swapU32 reverses the bytes of each word', () => {
  const words = new Uint32Array([0x01020304, 0xfffffffe]);
  swapU32(words);
  expect([...words]).toEqual([0x04030201, 0xfeffffff]);
});
