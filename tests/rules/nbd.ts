/** The rules of NBD: the wire, the server, the client. */
import type { RuleBook } from './rule-book.ts';

const NUMBERS = [
  ...[1, 2, 3, 4, 5, 6],
  ...[10, 11, 12, 13],
  ...[20, 21, 22, 23, 24, 25, 26, 27],
  ...[30],
  ...[40, 41, 42, 43, 44, 45, 46, 47, 48, 49],
  ...[50, 51, 52, 53, 54, 55],
  ...[60, 61, 62, 63, 64, 66, 67, 68],
  ...[70, 71, 72, 73, 74, 75],
  ...[80, 81, 82],
  ...[100, 101, 102, 103, 104, 105, 106, 107],
  ...[110, 111, 112, 113, 114, 115, 116, 117, 118],
  ...[130, 131, 132, 133, 134, 135, 136, 137, 138, 139],
  ...[150, 151, 152, 153],
  ...[160],
];

export const NBD: RuleBook = {
  name: 'NBD',
  rules: NUMBERS.map((number) => `N-${number}`),
  exempt: { 'N-150': 'measurements; bench/nbd-cases.mjs makes them anew' },
  pending: [],
};
