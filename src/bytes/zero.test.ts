import { describe, expect, test } from 'vitest';
import { isZero, splitZeroes, wordsAreZero } from './zero.ts';

const LENGTHS = [0, 1, 2, 15, 16, 17, 63, 64, 79, 80, 81, 82, 500, 4096, 70_000];

describe('isZero', () => {
  test.each(LENGTHS)('sees every single bit of %d bytes', (length) => {
    const bytes = new Uint8Array(length);
    expect(isZero(bytes)).toBe(true);
    const step = Math.max(1, Math.floor(length / 300));
    for (let i = 0; i < length; i += step) {
      bytes[i] = 0x80;
      expect(isZero(bytes)).toBe(false);
      bytes[i] = 0;
    }
    if (length > 0) {
      bytes[length - 1] = 1;
      expect(isZero(bytes)).toBe(false);
    }
  });

  test('looks at the range only', () => {
    const bytes = new Uint8Array(1000).fill(1);
    bytes.fill(0, 300, 700);
    expect(isZero(bytes, 300, 700)).toBe(true);
    expect(isZero(bytes, 299, 700)).toBe(false);
    expect(isZero(bytes, 300, 701)).toBe(false);
    expect(isZero(bytes, 500, 500)).toBe(true);
  });
});

describe('wordsAreZero', () => {
  test.each([0, 1, 2, 3])('agrees at byte offset %d of the buffer', (shift) => {
    const bytes = new Uint8Array(200).subarray(shift);
    for (let i = 0; i < bytes.length; i++) {
      bytes[i] = 1;
      expect(wordsAreZero(bytes, 0, bytes.length)).toBe(false);
      expect(wordsAreZero(bytes, i + 1, bytes.length)).toBe(true);
      expect(wordsAreZero(bytes, 0, i)).toBe(true);
      bytes[i] = 0;
    }
    expect(wordsAreZero(bytes, 0, bytes.length)).toBe(true);
  });
});

describe('splitZeroes', () => {
  test('gives alternating runs in whole granules', () => {
    const bytes = new Uint8Array(4096 + 100);
    bytes[600] = 1;
    bytes[1023] = 1;
    bytes[4095] = 1;
    expect(splitZeroes(bytes, 512)).toEqual([
      { offset: 0, length: 512, zero: true },
      { offset: 512, length: 512, zero: false },
      { offset: 1024, length: 2560, zero: true },
      { offset: 3584, length: 512, zero: false },
      { offset: 4096, length: 100, zero: true },
    ]);
  });

  test('an empty buffer has no runs', () => {
    expect(splitZeroes(new Uint8Array(0), 512)).toEqual([]);
  });

  test.each([512, 4096, 65_536, 131_072, 3000])('agrees with a plain search at granularity %d', (granularity) => {
    const bytes = new Uint8Array(1 << 20);
    let state = granularity;
    for (let i = 0; i < 40; i++) {
      state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
      bytes[state % bytes.length] = 1;
    }
    const expected: { offset: number; length: number; zero: boolean }[] = [];
    for (let offset = 0; offset < bytes.length; offset += granularity) {
      const piece = bytes.subarray(offset, offset + granularity);
      const zero = piece.every((byte) => byte === 0);
      const last = expected.at(-1);
      if (last?.zero === zero) last.length += piece.length;
      else expected.push({ offset, length: piece.length, zero });
    }
    expect(splitZeroes(bytes, granularity)).toEqual(expected);
  });
});
