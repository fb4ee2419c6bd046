import { describe, expect, test } from 'vitest';
import { formatUuid, parseUuid, randomUuid } from './uuid.ts';

const TEXT = '01020304-0506-0708-090a-0b0c0d0e0f10';
const STORED = [4, 3, 2, 1, 6, 5, 8, 7, 9, 10, 11, 12, 13, 14, 15, 16];

describe('UUIDs (V-2)', () => {
  test('are stored with the first three groups little endian', () => {
    expect(formatUuid(Uint8Array.from(STORED))).toBe(TEXT);
    expect([...(parseUuid(TEXT) ?? [])]).toEqual(STORED);
  });

  test('may be written in upper case and in braces', () => {
    expect([...(parseUuid('{ABCDEF00-0000-0000-0000-0000000000FF}') ?? [])]).toEqual([
      0, 0xef, 0xcd, 0xab, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff,
    ]);
  });

  test.each([
    '',
    'x',
    TEXT.slice(1),
    `${TEXT}0`,
    `{${TEXT}`,
    `${TEXT}}`,
    TEXT.replace('-', ''),
    TEXT.replace('1', 'g'),
  ])('refuses %j', (text) => {
    expect(parseUuid(text)).toBeUndefined();
  });

  test('random ones are of version 4, variant 1', () => {
    expect(formatUuid(randomUuid((target) => target.fill(0xff)))).toBe('ffffffff-ffff-4fff-bfff-ffffffffffff');
    expect(formatUuid(randomUuid((target) => target.fill(0)))).toBe('00000000-0000-4000-8000-000000000000');
  });
});
