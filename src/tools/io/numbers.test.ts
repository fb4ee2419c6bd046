import { describe, expect, test } from 'vitest';
import { CommandFailure } from './failure.ts';
import { lengthOf, lengthsOf, millisecondsOf, patternOf, requireSectors, sizeOf } from './numbers.ts';

/** The line that `work` ends with. */
function refusal(work: () => unknown): string | undefined {
  try {
    work();
  } catch (error) {
    if (error instanceof CommandFailure) return error.details.line;
    throw error;
  }
  throw new Error('nothing was refused');
}

const NO_NUMBER = 'Parsing error: non-numeric argument, or extraneous/unrecognized suffix --';

describe('sizes (T-ARG-1)', () => {
  test.each([
    ['0', 0],
    ['1k', 1024],
    ['0.5k', 512],
    ['0x200', 512],
    ['08', 8],
    ['+1', 1],
  ])('%s is %d', (text, bytes) => {
    expect(sizeOf(text)).toBe(bytes);
  });

  test.each(['foo', '', '1kb', '1.5', '-1k', '1 '])("'%s' is no number", (text) => {
    expect(refusal(() => sizeOf(text))).toBe(`${NO_NUMBER} ${text}`);
  });

  test.each(['8E', '9223372036854775808', '-1'])('%s is too large', (text) => {
    expect(refusal(() => sizeOf(text))).toBe(`Parsing error: argument too large -- ${text}`);
  });
});

describe('lengths (T-ARG-3)', () => {
  test('up to the longest request', () => {
    expect(lengthOf('2147483136')).toBe(2147483136);
    expect(refusal(() => lengthOf('2147483137'))).toBe('length cannot exceed 2147483136, given 2147483137');
  });

  test('of buffers, each and together', () => {
    expect(lengthsOf(['1k', '512', '0'])).toEqual([1024, 512, 0]);
    expect(refusal(() => lengthsOf(['1', '3G']))).toBe("Argument '3G' exceeds maximum size 2147483136");
    expect(refusal(() => lengthsOf(['2147483136', '1']))).toBe(
      'The total number of bytes exceed the maximum size 2147483136',
    );
  });

  test('whole sectors (T-WRITE-2)', () => {
    requireSectors(1024, 'offset');
    expect(refusal(() => requireSectors(1, 'offset'))).toBe("1 is not a sector-aligned value for 'offset'");
    expect(refusal(() => requireSectors(100, 'count'))).toBe("100 is not a sector-aligned value for 'count'");
  });
});

describe('patterns and plain numbers (T-ARG-2, T-SLEEP-1)', () => {
  test('as in C', () => {
    expect(['0', '255', '0x10', '010'].map(patternOf)).toEqual([0, 255, 16, 8]);
    expect(['10', '0x10', '010', '+5'].map(millisecondsOf)).toEqual([10, 16, 8, 5]);
  });

  test.each(['300', '-1', '08', 'x', '1k', ''])("'%s' is no byte", (text) => {
    expect(refusal(() => patternOf(text))).toBe(`${text} is not a valid pattern byte`);
  });

  test.each(['x', '-5', '1.5'])("'%s' is no time", (text) => {
    expect(refusal(() => millisecondsOf(text))).toBe(`${text} is not a valid number`);
  });
});
