import { describe, expect, test } from 'vitest';
import { lockFileKey, parseLockLines } from './lock-holder.ts';

describe('parseLockLines', () => {
  test('takes the locks of open files, and only those', () => {
    const text = [
      'pos:\t0',
      'flags:\t0100002',
      'mnt_id:\t27',
      'ino:\t2149148',
      'lock:\t1: OFDLCK ADVISORY  READ -1 fe:00:2149148 100 101',
      'lock:\t2: OFDLCK ADVISORY  WRITE -1 fe:00:2149148 203 EOF',
      'lock:\t3: POSIX  ADVISORY  WRITE 4711 fe:00:2149148 0 EOF',
      'lock:\t4: FLOCK  ADVISORY  WRITE 4711 fe:00:2149148 0 EOF',
      'lock:\tgarbage',
      '',
    ].join('\n');
    expect(parseLockLines(text)).toEqual([
      { write: false, file: 'fe:00:2149148', first: 100, last: 101 },
      { write: true, file: 'fe:00:2149148', first: 203, last: Number.POSITIVE_INFINITY },
    ]);
  });

  test('finds none in an empty text', () => {
    expect(parseLockLines('')).toEqual([]);
  });
});

describe('lockFileKey', () => {
  test('writes device numbers as the kernel does: two hex digits at least', () => {
    expect(lockFileKey(0xfe00n, 2149148n)).toBe('fe:00:2149148');
    // Large numbers are spread: major in bits 8 to 19 and from 44 on, minor in bits 0 to 7 and from 20 on.
    expect(lockFileKey(0x1234512n, 7n)).toBe('345:1212:7');
  });
});
