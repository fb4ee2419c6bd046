import { describe, expect, test } from 'vitest';
import { Failure } from '../failure.ts';
import { plainNumber, sizeArgument } from './numbers.ts';

function failure(work: () => unknown): Failure {
  try {
    work();
  } catch (error) {
    if (error instanceof Failure) return error;
    throw error;
  }
  throw new Error('it did not fail');
}

describe('size arguments (T-SIZE-2)', () => {
  test('a size in bytes', () => expect(sizeArgument('image size', '1.5k')).toBe(1536));

  test('what is no size takes two lines, both with prefix', () => {
    const { message, details } = failure(() => sizeArgument('start offset', '1kb'));
    expect(message).toBe('Invalid start offset specified. You may use k, M, G, T, P or E suffixes for');
    expect(details.continuation).toBe('kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.');
  });

  test('out of range names the range', () => {
    expect(failure(() => sizeArgument('image size', '9E')).message).toBe(
      'Invalid image size specified. Must be between 0 and 9223372036854775807.',
    );
    expect(failure(() => sizeArgument('image size', '-1')).message).toContain('Must be between 0 and');
    const range = { min: 1n, max: 2147483647n };
    for (const text of ['0', '2G']) {
      expect(failure(() => sizeArgument('bs', text, range)).message).toBe(
        'Invalid bs specified. Must be between 1 and 2147483647.',
      );
    }
  });
});

test('plain numbers are those of C: decimal, octal, hex', () => {
  expect(['8', '010', '0x10', ' +4', '0'].map(plainNumber)).toEqual([8, 8, 16, 4, 0]);
  expect(['', '08', '1.5', '4 ', '-4', 'x', '0x'].map(plainNumber)).toEqual(Array(7).fill(undefined));
});
