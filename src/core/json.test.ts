import { describe, expect, test } from 'vitest';
import { BlockError } from './errors.ts';
import { parseJson } from './json.ts';

function messageOf(text: string): string {
  try {
    return `no error, but ${JSON.stringify(parseJson(text))}`;
  } catch (error) {
    return error instanceof BlockError ? error.message : String(error);
  }
}

describe('JSON on command lines', () => {
  const accepted: readonly (readonly [string, unknown])[] = [
    ['{"a": [1, -2.5e3, true, false, null, "x"]}', { a: [1, -2500, true, false, null, 'x'] }],
    [`{'driver':'raw', 'file': {'filename': "it's"}}`, { driver: 'raw', file: { filename: "it's" } }],
    [`'\\'"\\n\\u00e4\\uD83D\\uDCBE'`, '\'"\nä💾'],
    [' {}\t', {}],
    ['[]', []],
    ['"ä"', 'ä'],
    ['-0', -0],
  ];
  for (const [text, value] of accepted) {
    test(text, () => expect(parseJson(text)).toEqual(value));
  }

  const refused: readonly (readonly [string, string])[] = [
    ['', 'Expecting a JSON value'],
    ['  ', 'Expecting a JSON value'],
    ['{} x', 'Expecting at most one JSON value'],
    ['{}}', 'Expecting at most one JSON value'],
    ['1 2', 'Expecting at most one JSON value'],
    ['{', 'JSON parse error, premature EOI'],
    ["{'a'", 'JSON parse error, premature EOI'],
    ['[1,2', 'JSON parse error, premature EOI'],
    ['x y', "JSON parse error, invalid keyword 'x'"],
    ['{x}', "JSON parse error, invalid keyword 'x'"],
    ["{'a':nullx}", "JSON parse error, invalid keyword 'nullx'"],
    ["{'a'}", 'JSON parse error, missing : in object pair'],
    ["{'a' 1}", 'JSON parse error, missing : in object pair'],
    ["{'a':}", 'JSON parse error, expecting value'],
    ["{'a':1,}", 'JSON parse error, expecting value'],
    ['{,', 'JSON parse error, expecting value'],
    ['[}', 'JSON parse error, expecting value'],
    ["{'a':1 'b':2}", 'JSON parse error, expected separator in dict'],
    ["{'a':0x10}", 'JSON parse error, expected separator in dict'],
    ['[1 2]', 'JSON parse error, expected separator in list'],
    ["{'a':1,'a':2}", 'JSON parse error, duplicate key'],
    ['{1:2}', 'JSON parse error, key is not a string in object'],
    ['{,%', "JSON parse error, stray '%'"],
    [`{'a':"x}`, `JSON parse error, stray '"x}'`],
    ["{'a':01}", "JSON parse error, stray '01'"],
    ["{'a':-01}", "JSON parse error, stray '-01'"],
    ["{'a':1.}", "JSON parse error, stray '1.}'"],
    ["{'a':1e}", "JSON parse error, stray '1e}'"],
    ["{'a':1.5e-}", "JSON parse error, stray '1.5e-}'"],
    ["{'a':1.5.5}", "JSON parse error, stray '.'"],
    ["{'a':.5}", "JSON parse error, stray '.'"],
    ["{'a':--1}", "JSON parse error, stray '--'"],
    ["{'a':x-y}", "JSON parse error, stray '-y'"],
    ["{'a':tRue}", "JSON parse error, stray 'R'"],
    ["{'a':'x\ty'}", "JSON parse error, stray ''x\t'"],
    ["{'a':'x\\q'}", 'JSON parse error, invalid escape sequence in string'],
    ["{'a':'x\\u12'}", "JSON parse error, \\u12' is not a valid Unicode character"],
    ["{'a':'\\uD83Dz'}", 'JSON parse error, \\uD83D is not a valid Unicode character'],
    ["{'a':'\\uDCBE'}", 'JSON parse error, \\uDCBE is not a valid Unicode character'],
    ['['.repeat(1025), 'JSON nesting depth limit exceeded'],
  ];
  for (const [text, message] of refused) {
    test(`${text.slice(0, 20)}: ${message}`, () => expect(messageOf(text)).toBe(message));
  }

  test('a key named __proto__ is a key like others', () => {
    expect(Object.keys(parseJson('{"__proto__": 1}') as object)).toEqual(['__proto__']);
  });
});
