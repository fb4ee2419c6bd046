import { describe, expect, test } from 'vitest';
import { OptionList } from './option-list.ts';

function listOf(...texts: string[]): OptionList {
  const list = new OptionList();
  for (const text of texts) list.add(text);
  return list;
}

describe('option lists (T-OPT-1)', () => {
  test('several are one, a later value of a name wins', () => {
    expect(listOf('a=1,b=2', 'a=3').tree()).toEqual({ a: '3', b: '2' });
  });

  test('a doubled comma is one in a value', () => {
    expect(listOf('a=x,,y,b=2').tree()).toEqual({ a: 'x,y', b: '2' });
    expect(listOf('a=x,,').tree()).toEqual({ a: 'x,' });
  });

  test('a name alone is on, with "no" before it off', () => {
    expect(listOf('static,nolazy').tree()).toEqual({ static: 'on', lazy: 'off' });
  });

  for (const text of ['', ',', ',x', 'x,', 'x=1,', 'x=1,,,']) {
    test(`'${text}' could not be joined with another`, () => {
      expect(() => listOf(text)).toThrow(`Invalid option list: ${text}`);
    });
  }

  test('nothing given', () => {
    expect(listOf().given).toBe(false);
    expect(listOf().tree()).toEqual({});
  });
});

describe('asking for help (T-OPT-2)', () => {
  for (const text of ['help', '?', 'a=1,help', 'help,a=1', 'a=1,?,b', 'help,,', 'help,,x']) {
    test(`'${text}' does`, () => expect(listOf(text).wantsHelp).toBe(true));
  }
  for (const text of ['a=1,,help', 'helpx', 'help=1', 'a=help', ' help']) {
    test(`'${text}' does not`, () => expect(listOf(text).wantsHelp).toBe(false));
  }
  test('in any of several lists', () => expect(listOf('a=1', 'help').wantsHelp).toBe(true));
});
