import { expect, test } from 'vitest';
import { AsciiText } from './ascii.ts';

function text(write: (to: AsciiText) => void): string {
  let all = '';
  const ascii = new AsciiText((bytes) => {
    all += new TextDecoder().decode(bytes);
  });
  write(ascii);
  ascii.flush();
  return all;
}

const NUMBERS = [0, 7, 10, 99, 100, 999_999_999, 1_000_000_000, 1_000_000_001, 2 ** 31, 2 ** 32, 2 ** 40, 10 ** 15];

test.each([...NUMBERS, Number.MAX_SAFE_INTEGER])('%d in decimal and hexadecimal', (value) => {
  expect(text((to) => to.decimal(value))).toBe(String(value));
  expect(text((to) => to.hexadecimal(value))).toBe(value === 0 ? '0' : `0x${value.toString(16)}`);
});

test("pieces are the receiver's to keep", () => {
  const pieces: Uint8Array[] = [];
  const ascii = new AsciiText((bytes) => pieces.push(bytes));
  for (let line = 0; line < 100_000; line++) {
    ascii.decimal(line);
    ascii.padTo(ascii.length + 1);
    ascii.endLine();
  }
  ascii.flush();
  const all = pieces.map((piece) => new TextDecoder().decode(piece)).join('');
  expect(pieces.length).toBeGreaterThan(1);
  expect(all.trim().split(' ').map(Number)).toEqual(Array.from({ length: 100_000 }, (_, line) => line));
});
