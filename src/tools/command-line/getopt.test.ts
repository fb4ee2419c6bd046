import { describe, expect, test } from 'vitest';
import { Getopt, type OptionSpec } from './getopt.ts';

const TABLE: readonly OptionSpec[] = [
  { short: 'h', long: 'help', help: '' },
  { short: 'f', long: 'format', argument: 'FMT', help: '' },
  { short: 'U', long: 'force-share', help: '' },
  { long: 'object', argument: 'OBJECT', help: '' },
  { long: 'output', argument: 'FORM', help: '' },
  { short: 'q', help: '' },
];

/** `key=value` for each option, then `|` and the operands; or the problem and its word. */
function parse(line: string, stopAtOperand = false): string {
  const getopt = new Getopt(['info', ...line.split(' ').filter((word) => word !== '')], TABLE, { stopAtOperand });
  const seen: string[] = [];
  for (;;) {
    const parsed = getopt.next();
    if (parsed === undefined) return [...seen, '|', ...getopt.operands()].join(' ');
    if (parsed.kind !== 'option') return [...seen, `${parsed.kind} '${parsed.word}'`].join(' ');
    seen.push(`${parsed.key}=${parsed.value}`);
  }
}

/** The C library's own sentence for the first problem of `line`. */
function detail(line: string): string {
  const getopt = new Getopt(['info', ...line.split(' ')], TABLE);
  for (;;) {
    const parsed = getopt.next();
    if (parsed === undefined) return '';
    if (parsed.kind !== 'option') return parsed.detail;
  }
}

describe('option parsing (T-GEN-5)', () => {
  const accepted: readonly (readonly [string, string])[] = [
    ['', '|'],
    ['a b', '| a b'],
    ['-q a -U b', 'q= force-share= | a b'],
    ['-qU a', 'q= force-share= | a'],
    ['-fraw a', 'format=raw | a'],
    ['-f raw a', 'format=raw | a'],
    ['-qfraw', 'q= format=raw |'],
    ['-f -U a', 'format=-U | a'],
    ['--format=raw a', 'format=raw | a'],
    ['--format= a', 'format= | a'],
    ['--format raw a', 'format=raw | a'],
    ['a --out json', 'output=json | a'],
    ['--fo x', "unknown '--fo'"],
    ['--fo=x', "unknown '--fo=x'"],
    ['--form x', 'format=x |'],
    ['-- -q --format', '| -q --format'],
    ['a -q -- -U b', 'q= | a -U b'],
    ['-', '| -'],
    ['- -q -', 'q= | - -'],
    ['-f a -f b', 'format=a format=b |'],
  ];
  for (const [line, expected] of accepted) {
    test(`'${line}'`, () => expect(parse(line)).toBe(expected));
  }

  const refused: readonly (readonly [string, string])[] = [
    ['--zork', "unknown '--zork'"],
    ['--zork=1 a', "unknown '--zork=1'"],
    ['--o', "unknown '--o'"],
    ['--force-share=1', "unknown '--force-share=1'"],
    ['-Z', "unknown '-Z'"],
    ['a b -Z c', "unknown '-Z'"],
    ['-qZ', "q= unknown '-qZ'"],
    ['-qf', "q= missing '-qf'"],
    ['--format', "missing '--format'"],
    ['a -f', "missing '-f'"],
  ];
  for (const [line, expected] of refused) {
    test(`'${line}': ${expected}`, () => expect(parse(line)).toBe(expected));
  }

  test('an unknown letter inside a bundle blames the word before, as permuted so far', () => {
    expect(parse('-ZU x')).toBe("unknown 'info'");
    expect(parse('y -ZU x')).toBe("unknown 'y'");
    expect(parse('x -U y -ZU')).toBe("force-share= unknown 'y'");
    expect(parse('-U -ZU x')).toBe("force-share= unknown '-U'");
  });

  test('stopAtOperand leaves everything from the first operand on', () => {
    expect(parse('-q info -U', true)).toBe('q= | info -U');
    expect(parse('-- info -U', true)).toBe('| info -U');
  });

  test("the C library's own sentences, which measure prints (T-GEN-7)", () => {
    expect(detail('--zork=1')).toBe("unrecognized option '--zork=1'");
    expect(detail('-Z')).toBe("invalid option -- 'Z'");
    expect(detail('-f')).toBe("option requires an argument -- 'f'");
    expect(detail('--form')).toBe("option '--format' requires an argument");
    expect(detail('--force=1')).toBe("option '--force-share' doesn't allow an argument");
    expect(detail('--o')).toBe("option '--o' is ambiguous; possibilities: '--object' '--output'");
  });
});
