import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { dumpRows, ioSize, reportText } from './report.ts';

const rows = (bytes: readonly number[], offset: number) => [...dumpRows(Uint8Array.from(bytes), offset)].join('');

describe('sizes (T-FMT-2)', () => {
  test.each([
    [0, '0 bytes'],
    [1, '1 bytes'],
    [512, '512 bytes'],
    [1023, '1023 bytes'],
    [1024, '1 KiB'],
    [1025, '1.001 KiB'],
    [1088, '1.062 KiB'],
    [1090, '1.064 KiB'],
    [1205, '1.177 KiB'],
    [1536, '1.500 KiB'],
    [1048575, '1023.999 KiB'],
    [1048577, '1 MiB'],
    [1234567, '1.177 MiB'],
    [67109888, '64.001 MiB'],
    [2 ** 30, '1 GiB'],
    [2 ** 40, '1 TiB'],
    [2 ** 50, '1 PiB'],
    [7 * 2 ** 60, '7 EiB'],
    [459.362708, '459.362708 bytes'],
    [5.000123, '5 bytes'],
    [Number.POSITIVE_INFINITY, 'inf EiB'],
  ])('%d: %s', (bytes, text) => {
    expect(ioSize(bytes)).toBe(text);
  });

  test('whole units stay whole, whatever the unit', () => {
    const whole = fc.tuple(fc.integer({ min: 1, max: 1023 }), fc.integer({ min: 0, max: 6 }));
    fc.assert(
      fc.property(whole, ([count, unit]) => {
        expect(ioSize(count * 1024 ** unit)).toMatch(new RegExp(`^${count} (bytes|[KMGTPE]iB)$`));
      }),
    );
  });
});

describe('reports', () => {
  const read = { verb: 'read', offset: 512, length: 1536, machine: false } as const;

  test('two lines for people (T-REP-1)', () => {
    expect(reportText({ ...read, milliseconds: 0.5 })).toBe(
      'read 1536/1536 bytes at offset 512\n1.500 KiB, 1 ops; 00.00 sec (2.930 MiB/sec and 2000.0000 ops/sec)\n',
    );
  });

  test.each([
    [20, '00.02 sec'],
    [994, '00.99 sec'],
    [1000, '0:00:01.00'],
    [1909, '0:00:01.90'],
    [59_999, '0:00:59.99'],
    [60_000, '0:01:00.00'],
    [3_399_880, '0:56:39.88'],
    [36_000_000, '10:00:00.00'],
  ])('%d milliseconds are shown as %s (T-REP-1)', (milliseconds, text) => {
    expect(reportText({ ...read, milliseconds })).toContain(`ops; ${text} (`);
  });

  test('no time at all (T-REP-1)', () => {
    expect(reportText({ ...read, milliseconds: 0 })).toContain('00.00 sec (inf EiB/sec and inf ops/sec)');
    expect(reportText({ ...read, length: 0, milliseconds: 0 })).toContain('(0 bytes/sec and inf ops/sec)');
  });

  test('one line for programs (T-REP-2)', () => {
    expect(reportText({ ...read, milliseconds: 0.5, machine: true })).toBe('1536,1,0:00:00.00,3072000.000,2000.000\n');
  });

  test('scripts find what they look for (T-REP-1)', () => {
    const looked = /[0-9]* ops; [0-9/:. sec]* \([0-9/.inf]* [EPTGMKiBbytes]*\/sec and [0-9/.inf]* ops\/sec\)/;
    fc.assert(
      fc.property(fc.nat(2 ** 31), fc.double({ min: 0, max: 1e8, noNaN: true }), (length, milliseconds) => {
        expect(reportText({ ...read, length, milliseconds })).toMatch(looked);
      }),
    );
  });
});

describe('dumps (T-REP-4)', () => {
  test('rows of sixteen, a short one at the end', () => {
    const bytes = [...new Array<number>(20).fill(0x41), 0, 0, 0x20, 0x7a];
    expect(rows(bytes, 0x5ec)).toBe(
      '000005ec:  41 41 41 41 41 41 41 41 41 41 41 41 41 41 41 41  AAAAAAAAAAAAAAAA\n' +
        '000005fc:  41 41 41 41 00 00 20 7a  AAAA...z\n',
    );
  });

  test('letters and digits are shown, nothing else', () => {
    const text = Array.from({ length: 256 }, (_, byte) => rows([byte], 0).slice(-2, -1)).join('');
    expect(text.replaceAll('.', '')).toBe('0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz');
  });

  test('offsets have eight digits at least', () => {
    expect(rows([0], 2 ** 36)).toMatch(/^1000000000: {2}00 {2}\.\n$/);
  });

  test('nothing for nothing', () => {
    expect(rows([], 0)).toBe('');
  });
});
