import { describe, expect, test } from 'vitest';
import { BlockError } from './errors.ts';
import { flattenOptions, type OptionTree, option, parseKeyValues, parseOptions, takePrefix } from './options.ts';

function failure(work: () => unknown): BlockError {
  try {
    work();
  } catch (error) {
    if (error instanceof BlockError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

describe('parseKeyValues (T-OPT-1, T-GEN-11)', () => {
  test.each([
    ['a=b,c.d=e', { a: 'b', 'c.d': 'e' }],
    ['a=x,,y,b=1', { a: 'x,y', b: '1' }],
    ['a=x,,,b=1', { a: 'x,', b: '1' }],
    ['ro,nocow', { ro: 'on', cow: 'off' }],
    ['a=1,a=2', { a: '2' }],
    ['a=b=c', { a: 'b=c' }],
  ])('%s', (text, tree) => {
    expect({ ...parseKeyValues(text) }).toEqual(tree);
  });

  test('a first item without a key takes the implied one', () => {
    expect({ ...parseKeyValues('disk.vdi,driver=vdi', 'file') }).toEqual({ file: 'disk.vdi', driver: 'vdi' });
  });
});

describe('option values in the words of T-OPT-4', () => {
  const schema = {
    size: option.size({ help: '', fallback: 0 }),
    flag: option.boolean({ help: '', fallback: false }),
    count: option.number({ help: '', fallback: 7 }),
    mode: option.choice(['off', 'full'], { help: '', fallback: 'off' }),
  };

  test('parses strings and JSON values, fills in defaults, leaves the rest', () => {
    const { values, rest } = parseOptions(schema, { size: '1.5k', flag: true, other: 1 });
    expect(values).toEqual({ size: 1536, flag: true, count: 7, mode: 'off' });
    expect(rest).toEqual({ other: 1 });
  });

  test.each([
    ['16', 16],
    ['020', 16],
    ['0X10', 16],
    [' +8', 8],
    ['0', 0],
    [12, 12],
  ])('a number is written as in C: %j', (count, expected) => {
    expect(parseOptions(schema, { count }).values.count).toBe(expected);
  });

  test.each<[OptionTree, string]>([
    [{ size: 'x' }, "Parameter 'size' expects a non-negative number below 2^64"],
    [{ size: -5 }, "Parameter 'size' expects a non-negative number below 2^64"],
    [{ size: '99999999E' }, "Value '99999999E' is out of range for parameter 'size'"],
    [{ flag: 'maybe' }, "Parameter 'flag' expects 'on' or 'off'"],
    ...['many', '08', '-1', '', '1e1', '0x', '8 ', 1.5].map((count): [OptionTree, string] => [
      { count },
      "Parameter 'count' expects a number",
    ]),
    [{ count: '18446744073709551616' }, "Value '18446744073709551616' is too large for parameter 'count'"],
    [{ mode: 'some' }, 'invalid parameter value: some'],
  ])('%j', (tree, message) => {
    const error = failure(() => parseOptions(schema, tree));
    expect([error.code, error.message]).toEqual(['EINVAL', message]);
  });
});

describe('option trees', () => {
  test('nested objects and arrays become dotted keys (BL-NAME-8)', () => {
    const nested = { driver: 'raw', file: { filename: 'x', list: [{ a: 1 }, 'b'] }, none: null, left: undefined };
    expect({ ...flattenOptions(nested) }).toEqual({
      driver: 'raw',
      'file.filename': 'x',
      'file.list.0.a': 1,
      'file.list.1': 'b',
      none: null,
    });
  });

  test('a key named __proto__ is an option like any other', () => {
    const tree = flattenOptions(JSON.parse('{"__proto__": 1}'));
    expect(Object.keys(tree)).toEqual(['__proto__']);
  });

  test('takePrefix splits off the options of a child', () => {
    const { inner, rest } = takePrefix({ driver: 'raw', 'file.filename': 'x', files: 1 }, 'file');
    expect(inner).toEqual({ filename: 'x' });
    expect(rest).toEqual({ driver: 'raw', files: 1 });
  });
});
