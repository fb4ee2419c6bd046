import { describe, expect, test } from 'vitest';
import { formatSize, parseSize } from './size.ts';

const SIGNED = (1n << 63n) - 1n;

describe('parsing sizes (T-SIZE-1)', () => {
  const valid: readonly (readonly [string, bigint])[] = [
    ['0', 0n],
    ['1', 1n],
    ['08', 8n],
    ['512b', 512n],
    ['1B', 1n],
    ['1k', 1024n],
    ['1K', 1024n],
    ['1m', 1n << 20n],
    ['1G', 1n << 30n],
    ['1t', 1n << 40n],
    ['1P', 1n << 50n],
    ['1E', 1n << 60n],
    ['1.5k', 1536n],
    ['1.k', 1024n],
    ['.5k', 512n],
    ['1024.0', 1024n],
    ['1.0b', 1n],
    ['  +1k', 1024n],
    ['\t1', 1n],
    ['0x200', 512n],
    ['0X1F', 31n],
    ['0.0009765625k', 1n],
    ['0.00048828125k', 1n],
    ['0.00048828124k', 0n],
    ['1.1E', 1268213655067531680n],
    ['7.99999E', 9223360507639729792n],
    ['614.0847208975p', 691397930051974010n],
    ['1.9999999999999999999k', 2048n],
    ['9223372036854775807', SIGNED],
  ];
  for (const [text, bytes] of valid) {
    test(`'${text}'`, () => expect(parseSize(text, SIGNED)).toBe(bytes));
  }

  const invalid =
    ',+,k,.k,.,+k,1kb,1kiB,1kilobyte,1k ,1 ,inf,nan,1e3,1.5,1.5b,0x,0x10k,0x1.5,-1k,-1.5,--1,+-1,1_0,1.5.5,-0x1'.split(
      ',',
    );
  for (const text of invalid) {
    test(`'${text}' is invalid`, () => expect(parseSize(text, SIGNED)).toBe('invalid'));
  }

  const outOfRange =
    '-1,-5,8E,9223372036854775808,99999999999999999999,0xffffffffffffffff,7.9999999999999999999E'.split(',');
  for (const text of outOfRange) {
    test(`'${text}' is out of range`, () => expect(parseSize(text, SIGNED)).toBe('out-of-range'));
  }

  test('invalid beats out of range', () => expect(parseSize('99999999999999999999x', SIGNED)).toBe('invalid'));

  test('the default limit is 2^64 - 1', () => {
    expect(parseSize('18446744073709551615')).toBe((1n << 64n) - 1n);
    expect(parseSize('16E')).toBe('out-of-range');
  });
});

describe('sizes for people (T-FMT-1)', () => {
  const shown: readonly (readonly [number, string])[] = [
    [0, '0 B'],
    [1, '1 B'],
    [512, '512 B'],
    [999, '999 B'],
    [1000, '0.977 KiB'],
    [1152, '1.12 KiB'],
    [1408, '1.38 KiB'],
    [1536, '1.5 KiB'],
    [10368, '10.1 KiB'],
    [102400, '100 KiB'],
    [1023487, '999 KiB'],
    [1023488, '1e+03 KiB'],
    [1024000, '0.977 MiB'],
    [1047552, '0.999 MiB'],
    [1048575, '1 MiB'],
    [10000384, '9.54 MiB'],
    [1572864000, '1.46 GiB'],
    [1073741824000, '0.977 TiB'],
    [2 ** 50, '1 PiB'],
    [7 * 2 ** 60, '7 EiB'],
  ];
  for (const [bytes, text] of shown) {
    test(`${bytes}: ${text}`, () => expect(formatSize(bytes)).toBe(text));
  }
});
