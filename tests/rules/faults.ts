/** The rules of fault injection and of mirrors. */
import { numbered, type RuleBook } from './rule-book.ts';

const BLKDEBUG_NUMBERS = [
  ...[1, 2, 3, 4, 5, 6, 7, 8],
  ...[10, 11, 12],
  ...[20, 21, 22, 23, 24, 25, 26, 27, 28, 29],
  ...[30, 31, 32, 33, 34, 35, 36],
  ...[40, 41, 42],
  ...[50, 51, 52, 53, 54],
  ...[60, 61, 62],
];

export const BLKDEBUG: RuleBook = {
  name: 'blkdebug',
  rules: BLKDEBUG_NUMBERS.map((number) => `BD-${number}`),
  exempt: {},
  pending: [],
};

export const BLKVERIFY: RuleBook = {
  name: 'blkverify',
  rules: numbered('BV', 17),
  exempt: {},
  pending: [],
};
