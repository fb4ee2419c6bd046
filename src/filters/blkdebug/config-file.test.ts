/** Config files (BD-10, BD-12). */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BlockError } from '../../core/errors.ts';
import { parseConfig } from './config-file.ts';

const rules = (text: string) => parseConfig(text, 'f.conf').map((rule) => `${rule.kind} ${rule.event}`);

test('BD-10: sections repeat freely, each a rule', () => {
  expect(
    rules(`# a comment
[inject-error]
event = "read_aio"
errno = "28"

[inject-error "second"]
  event	=	"pwritev"
[set-state "second"]
event = "none"
[inject-error] junk\r
event = "write_aio" junk\r
  # indented
   
id = "third"
`),
  ).toEqual(['inject-error read_aio', 'inject-error pwritev', 'inject-error write_aio', 'set-state none']);
  expect(rules('')).toEqual([]);
});

test('BD-12: changes of state come after all injected errors', () => {
  expect(rules('[set-state]\nevent = "none"\n[inject-error]\nevent = "pwritev"')).toEqual([
    'inject-error pwritev',
    'set-state none',
  ]);
});

test('BD-10: the last of two equal keys counts', () => {
  const [rule] = parseConfig('[inject-error]\nevent = "none"\nerrno = "5"\nerrno = "28"', 'f');
  expect(rule).toMatchObject({ errno: 'ENOSPC' });
});

test.each([
  ['[foo]', "There is no option group 'foo'", 1],
  ['\n[ inject-error ]', "There is no option group ' inject-error '", 2],
  ['[inject-error a]', "There is no option group 'inject-error a'", 1],
  ['[]', 'no group defined', 1],
  ['event = "none"', 'no group defined', 1],
  [' [inject-error]', 'no group defined', 1],
  ['[inject-error]\n\nfoo = "x"', "Invalid parameter 'foo'", 3],
  ['[inject-error]\nevent="none"', `Invalid parameter 'event="none"'`, 2],
  ['[inject-error]\nevent = "none"\nnew_state = "1"', "Invalid parameter 'new_state'", 3],
  ['[inject-error]\nevent = none', 'invalid parameter value: ', 1],
  ['#\n[inject-error]\nevent = "foo"', 'invalid parameter value: foo', 2],
  ['[inject-error]', 'Missing event name for rule', 1],
  ['[inject-error]\nevent = "none"\nonce = "1"', "Parameter 'once' expects 'on' or 'off'", 1],
  ['[inject-error "x"]\nevent = "none"\n[inject-error "x"]', "Duplicate ID 'x' for inject-error", 3],
  ['[inject-error "1x"]', "Parameter 'id' expects an identifier", 1],
  ['[set-state]\nid = "a b"', "Parameter 'id' expects an identifier", 2],
])('BD-10: %j names file and line', (text, message, line) => {
  expect(() => parseConfig(text, 'f.conf')).toThrow(
    expect.objectContaining({ code: 'EINVAL', message, hint: expect.stringMatching(`f\\.conf, line ${line}$`) }),
  );
});

test('any text gives rules or an error that says what is wrong', () => {
  const line = fc.oneof(
    fc.constantFrom('[inject-error]', '[set-state "a"]', 'event = "none"', 'errno = "', '[', '"', '= = =', '#'),
    fc.string(),
  );
  fc.assert(
    fc.property(fc.array(line), (lines) => {
      try {
        parseConfig(lines.join('\n'), 'f');
      } catch (error) {
        if (!(error instanceof BlockError)) throw error;
      }
    }),
  );
});
