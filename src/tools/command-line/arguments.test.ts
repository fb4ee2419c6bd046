import { describe, expect, test } from 'vitest';
import { cacheMode, keyValues, outputForm } from './arguments.ts';

const silent = () => {};

describe('keys and values', () => {
  const cases: readonly (readonly [string, string | undefined, [string, string][]])[] = [
    ['', 'file', []],
    [
      'a=1,b=2',
      undefined,
      [
        ['a', '1'],
        ['b', '2'],
      ],
    ],
    [
      'a=x,,y,b=',
      undefined,
      [
        ['a', 'x,y'],
        ['b', ''],
      ],
    ],
    ['a=1,', undefined, [['a', '1']]],
    [
      'disk,,1.vdi,b=2',
      'file',
      [
        ['file', 'disk,1.vdi'],
        ['b', '2'],
      ],
    ],
    [
      'driver=raw,x',
      'file',
      [
        ['driver', 'raw'],
        ['x', 'on'],
      ],
    ],
    [
      'x,nob',
      undefined,
      [
        ['x', 'on'],
        ['b', 'off'],
      ],
    ],
    ['=3', 'file', [['', '3']]],
  ];
  for (const [text, implied, expected] of cases) {
    test(`'${text}'`, () => expect(keyValues(text, implied, silent)).toEqual(expected));
  }

  test('a name alone is warned of', () => {
    const warnings: string[] = [];
    keyValues('a=1,x,noy', undefined, (message, hint) => warnings.push(message, hint));
    expect(warnings).toEqual([
      "short-form boolean option 'x' deprecated",
      'Please use x=on instead',
      "short-form boolean option 'noy' deprecated",
      'Please use y=off instead',
    ]);
  });
});

test('output forms and cache modes (T-GEN-14, T-GEN-17)', () => {
  expect([outputForm(undefined), outputForm('human'), outputForm('json')]).toEqual(['human', 'human', 'json']);
  expect(() => outputForm('xml')).toThrow('--output must be used with human or json as argument.');
  expect([cacheMode('cache'), cacheMode('cache', 'none')]).toEqual(['writeback', 'none']);
  expect(() => cacheMode('source cache', 'zork')).toThrow('Invalid source cache option: zork');
});
