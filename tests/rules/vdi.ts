/** The rules of the VDI format. */
import type { RuleBook } from './rule-book.ts';

const NUMBERS = [
  ...[1, 2, 3, 4],
  ...[10, 11, 12, 13, 14, 15, 16],
  ...[20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31],
  ...[40, 41, 42, 43, 45, 46],
  ...[50, 51],
  ...[60, 61, 62, 63, 64, 65, 66, 67],
];

export const VDI: RuleBook = {
  name: 'VDI',
  rules: NUMBERS.map((number) => `V-${number}`),
  exempt: {},
  pending: [],
};
