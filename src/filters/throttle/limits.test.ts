import { describe, expect, test } from 'vitest';
import { BlockError } from '../../core/errors.ts';
import { flattenOptions, type OptionTree, parseKeyValues } from '../../core/options.ts';
import { describeLimits, parseLimits, UNLIMITED } from './limits.ts';

const parseText = (text: string) => parseLimits(parseKeyValues(text), UNLIMITED, 'text');

const RANGE = 'bps/iops/max values must be within [0, 1000000000000000]';
const CONFLICT = 'bps/iops/max total values and read/write values cannot be used at the same time';
const NO_AVERAGE = 'bps_max/iops_max require corresponding bps/iops values';
const BELOW = 'bps_max/iops_max cannot be lower than bps/iops';
const NO_BURST = 'burst length set without burst rate';
const TOO_LONG = 'burst length too high for this burst rate';
const NO_IOPS = 'iops size requires an iops value to be set';
const NEGATIVE = 'Property values cannot be negative';

describe('throttle limits: refusals, as qemu-io 7.2 words and orders them (M-OBJ-3)', () => {
  test.each([
    ['x-iops-total=100,x-iops-read=5', CONFLICT],
    ['x-bps-total=100,x-bps-write=5', CONFLICT],
    ['x-bps-total=5,x-bps-total-max=9,x-bps-write-max=5', CONFLICT],
    ['x-iops-total=1,x-iops-read=1,x-iops-size=5,x-bps-total-max-length=0', CONFLICT],
    ['x-bps-total=2000000000000000,x-bps-read=3', CONFLICT],
    ['x-iops-size=512', NO_IOPS],
    ['x-iops-size=5,x-bps-total=2000000000000000', NO_IOPS],
    ['x-iops-total=1000000000000001', RANGE],
    ['x-bps-total=9223372036854775807', RANGE],
    ['x-bps-total=100,x-bps-total-max=2000000000000000', RANGE],
    ['x-bps-total=2000000000000000,x-bps-total-max-length=0', RANGE],
    ['limits.iops-total=-5', RANGE],
    ['x-iops-total=100,x-iops-total-max-length=0', 'the burst length cannot be 0'],
    ['x-bps-total-max=5,x-bps-total-max-length=0', 'the burst length cannot be 0'],
    ['x-iops-total=100,x-iops-total-max-length=5', NO_BURST],
    ['x-bps-read-max-length=5,x-iops-total-max=5', NO_BURST],
    ['x-bps-total=1000,x-bps-total-max=100000000000000,x-bps-total-max-length=11', TOO_LONG],
    ['x-bps-total-max=300000,x-bps-total-max-length=4294967295', TOO_LONG],
    ['x-bps-total=1000000000000000,x-bps-total-max=300000,x-bps-total-max-length=4294967295', TOO_LONG],
    ['x-bps-total=500000000000000,x-bps-total-max=500000000000001,x-bps-total-max-length=2', TOO_LONG],
    ['x-iops-total-max=100', NO_AVERAGE],
    ['x-bps-read-max=1000,x-bps-total=5', NO_AVERAGE],
    ['x-bps-total-max=5,x-bps-read-max-length=5', NO_AVERAGE],
    ['x-iops-total=100,x-iops-total-max=50', BELOW],
    ['x-bps-total=10,x-bps-total-max=5,x-bps-total-max-length=4294967295', BELOW],
    ['x-iops-total=-1', NEGATIVE],
    ['x-iops-size=-5', NEGATIVE],
    ['x-bps-total-max-length=-1', NEGATIVE],
    // The missing blank is theirs.
    ['x-bps-total-max-length=4294967296', 'x-bps-total-max-length value must be in therange [0, 4294967295]'],
    ['limits.bps-total-max-length=4294967296', 'bps-total-max-length value must be in the range [0, 4294967295]'],
    ['x-iops-total=1k', "Parameter 'x-iops-total' expects integer"],
    ['x-iops-total=1.5', "Parameter 'x-iops-total' expects integer"],
    ['x-iops-total=', "Parameter 'x-iops-total' expects integer"],
    ['x-iops-total=5 ', "Parameter 'x-iops-total' expects integer"],
    ['x-iops-total=08', "Parameter 'x-iops-total' expects integer"],
    ['x-iops-total=9223372036854775808', "Parameter 'x-iops-total' expects integer"],
    ['limits.bps-total=abc', "Parameter 'limits.bps-total' expects integer"],
    ['x-foo=1', "Parameter 'x-foo' is unexpected"],
    ['limits.foo=5', "Parameter 'limits.foo' is unexpected"],
    ['iops-total=5', "Parameter 'iops-total' is unexpected"],
    ['foo.bar=2', "Parameter 'foo' is unexpected"],
    ['limits.foo.bar=2', "Parameter 'limits.foo' is unexpected"],
    ['limits.iops-total.x=5', "Parameters 'limits.iops-total.*' are unexpected"],
    ['limits.iops-total.x=2,limits.iops-total=1', "Parameters 'limits.iops-total.*' used inconsistently"],
    ['x-bps-total=-1,x-foo=1', "Parameter 'x-foo' is unexpected"],
    ['limits=5', "Invalid parameter type for 'limits', expected: object"],
    ['limits.bps-total=1,limits=2', "Parameters 'limits.*' used inconsistently"],
  ])('%s', (text, message) => {
    expect(() => parseText(text)).toThrow(expect.objectContaining({ code: 'EINVAL', message }));
    expect(() => parseText(text)).toThrow(BlockError);
  });

  test.each<[OptionTree, string]>([
    [{ 'limits.iops-total': '5' }, "Invalid parameter type for 'limits.iops-total', expected: integer"],
    [{ 'limits.iops-total': 1.5 }, "Invalid parameter type for 'limits.iops-total', expected: integer"],
    [{ 'limits.iops-total.a': 1 }, "Invalid parameter type for 'limits.iops-total', expected: integer"],
    [{ 'limits.iops-total': true }, "Invalid parameter type for 'limits.iops-total', expected: integer"],
    [{ limits: 5 }, "Invalid parameter type for 'limits', expected: object"],
    [{ 'limits.iops-total': -1 }, RANGE],
    [{ 'limits.iops-total': 5, 'limits.iops-total-max': 3 }, BELOW],
  ])('JSON: %j', (properties, message) => {
    expect(() => parseLimits(properties)).toThrow(message);
  });

  test('what QEMU takes by wrapping around is refused: a negative iops-size, a negative burst length', () => {
    expect(() => parseText('limits.iops-size=-1,limits.iops-total=5')).toThrow(NEGATIVE);
    expect(() => parseText('limits.bps-total-max-length=-1')).toThrow(
      'bps-total-max-length value must be in the range [0, 4294967295]',
    );
  });
});

describe('throttle limits', () => {
  test('the default is unlimited, bursts being of one second', () => {
    expect(parseLimits({})).toEqual(UNLIMITED);
    expect(parseLimits(flattenOptions({ limits: {} }))).toEqual(UNLIMITED);
    const described = describeLimits(UNLIMITED);
    expect(Object.keys(described)).toHaveLength(19);
    for (const [name, value] of Object.entries(described)) expect(value).toBe(name.endsWith('-length') ? 1 : 0);
  });

  test.each([
    ['x-bps-total=0x10', 16],
    ['x-bps-total= 5', 5],
    ['x-bps-total=+5', 5],
    ['x-bps-total=010', 8],
    ['x-bps-total=-0', 0],
    ['limits.bps-total=9,x-bps-total=5', 5],
    ['x-bps-total=5,limits.bps-total=9', 5],
    ['x-bps-total=1000000000000000', 1e15],
  ])('%s is %d', (text, expected) => {
    expect(parseText(text)['bps-total'].average === expected).toBe(true);
  });

  test('bursts at the very limits pass', () => {
    expect(parseText('x-bps-total=1000,x-bps-total-max=100000000000000,x-bps-total-max-length=10')).toMatchObject({
      'bps-total': { average: 1000, max: 1e14, maxLength: 10 },
    });
    parseText('x-bps-total=1,x-bps-total-max=1,x-bps-total-max-length=4294967295');
    parseText('x-iops-total=100,x-iops-total-max=100,x-iops-total-max-length=1');
  });

  test('given members are merged into present ones, and judged together', () => {
    const base = parseLimits({ 'limits.iops-read': 5, 'limits.iops-size': 512, 'limits.bps-total': 100 });
    const merged = parseLimits({ 'limits.iops-read': 7, 'limits.iops-read-max': 9 }, base);
    expect(merged).toEqual({ ...base, 'iops-read': { average: 7, max: 9, maxLength: 1 } });
    expect(base['iops-read'].average).toBe(5);
    expect(() => parseLimits({ 'limits.iops-total': 7 }, base)).toThrow(CONFLICT);
  });

  test('what is described parses to the same', () => {
    const limits = parseText('x-iops-read=5,x-iops-read-max=9,x-iops-read-max-length=3,x-iops-size=7,x-bps-write=11');
    const flat = Object.entries(describeLimits(limits)).map(([name, value]) => [`limits.${name}`, value]);
    expect(parseLimits(Object.fromEntries(flat))).toEqual(limits);
  });
});
