import { expect, test } from 'vitest';
import { nearest } from './nearest.ts';

const COMMANDS = [
  'amend',
  'check',
  'checksum',
  'compare',
  'convert',
  'create',
  'info',
  'io',
  'map',
  'resize',
  'snapshot',
];

test.each([
  ['creat', 'create'],
  ['crate', 'create'],
  ['cretae', 'create'],
  ['convertt', 'convert'],
  ['snap', 'snapshot'],
  ['checks', 'checksum'],
  ['chekc', 'check'],
  ['inof', 'info'],
])('%s: probably %s', (word, meant) => {
  expect(nearest(word, COMMANDS)).toBe(meant);
});

test.each(['', 'x', 'ls', 'delete', 'mount', 'image'])('%j is like none', (word) => {
  expect(
    nearest(
      word,
      COMMANDS.filter((name) => !name.startsWith(word) || word !== ''),
    ),
  ).toBeUndefined();
});
