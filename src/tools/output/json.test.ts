import { describe, expect, test } from 'vitest';
import { jsonString, jsonText } from './json.ts';

describe('JSON results (T-FMT-3)', () => {
  test('four blanks a level, one element a line', () => {
    expect(jsonText({ name: 'file', info: { format: 'raw', list: [1, true, null] } })).toBe(
      [
        '{',
        '    "name": "file",',
        '    "info": {',
        '        "list": [',
        '            1,',
        '            true,',
        '            null',
        '        ],',
        '        "format": "raw"',
        '    }',
        '}',
      ].join('\n'),
    );
  });

  test('an empty list or object is its brackets on two lines', () => {
    expect(jsonText([])).toBe('[\n]');
    expect(jsonText({ name: {} })).toBe('{\n    "name": {\n    }\n}');
  });

  test('absent members are left out', () => {
    expect(jsonText({ name: undefined, info: 1 })).toBe('{\n    "info": 1\n}');
  });

  test('numbers past the safe integers keep their digits', () => {
    expect(jsonText(7 * 2 ** 60)).toBe('8070450532247928832');
    expect(jsonText(2n ** 63n - 1n)).toBe('9223372036854775807');
  });

  test('strings are ASCII: short escapes, else upper-case \\u, surrogates one by one', () => {
    expect(jsonString('a"b\\c/\b\f\n\r\t')).toBe('"a\\"b\\\\c/\\b\\f\\n\\r\\t"');
    expect(jsonString('\u0001\u001f\u007fä€')).toBe('"\\u0001\\u001F\\u007F\\u00E4\\u20AC"');
    expect(jsonString('\u{1f4be}')).toBe('"\\uD83D\\uDCBE"');
    expect(jsonString('\ud800')).toBe('"\\uFFFD"');
  });
});
