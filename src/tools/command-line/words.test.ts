import { expect, test } from 'vitest';
import { refuseChangedWords } from './words.ts';

/** As the system tells them; characters are bytes. */
const line =
  (...words: string[]) =>
  () =>
    Buffer.from(words.map((word) => `${word}\0`).join(''), 'latin1');

test('a word that is no UTF-8 is refused by its place', () => {
  const typed = line('node', '/bin/diskwright', 'create', 'bad\xff', '1M');
  expect(() => refuseChangedWords(['create', 'bad\ufffd', '1M'], typed)).toThrow(
    "Argument 2, 'bad\ufffd', is not valid UTF-8, and names no file here",
  );
});

test('the replacement character itself may be typed', () => {
  const typed = line('node', '/bin/diskwright', 'create', 'good\xef\xbf\xbd', '');
  expect(() => refuseChangedWords(['create', 'good\ufffd', ''], typed)).not.toThrow();
});

test('where the system does not tell, words are taken as they are', () => {
  expect(() => refuseChangedWords(['bad\ufffd'], () => new Uint8Array())).not.toThrow();
});
