/** Rules as options (BD-3, BD-20, BD-21). */
import { describe, expect, test } from 'vitest';
import { type InjectError, parseRule, parseSection, type Rule } from './rules.ts';

function inject(tree: Record<string, string | number | boolean>): InjectError {
  const rule = parseRule('inject-error', { event: 'read_aio', ...tree });
  if (rule.kind !== 'inject-error') throw new Error('it is one');
  return rule;
}

const refused = (message: string) => expect.objectContaining({ code: 'EINVAL', message });

test('BD-20: what is left out has its default', () => {
  expect(inject({})).toMatchObject({
    state: 0,
    errno: 'EIO',
    range: undefined,
    once: false,
    immediately: false,
    action: 'error',
    probability: 1,
    every: 1,
    after: 0,
  });
  expect([...inject({}).ioTypes]).toEqual(['read', 'write', 'write-zeroes', 'discard', 'flush']);
  const types = ['read', 'write', 'write-zeroes', 'discard', 'flush', 'block-status'];
  expect(types.flatMap((iotype) => [...inject({ iotype }).ioTypes])).toEqual(types);
});

test.each([
  [{ errno: 28 }, { errno: 'ENOSPC' }],
  [{ errno: '0x1c' }, { errno: 'ENOSPC' }],
  [{ errno: '034' }, { errno: 'ENOSPC' }],
  [{ errno: ' 5' }, { errno: 'EIO' }],
  [{ errno: 'ENOMEM' }, { errno: 'ENOMEM' }],
  [{ errno: 0 }, { errno: undefined }],
  [{ errno: '-5' }, { errno: undefined }],
  [{ errno: '4294967296' }, { errno: undefined }],
  [{ sector: -1 }, { range: undefined }],
  [{ sector: '18446744073709551615' }, { range: undefined }],
  [{ sector: 3 }, { range: { offset: 1536, length: 1 } }],
  [{ sector: -2 }, { range: { offset: -1024, length: 1 } }],
  [{ offset: '1k', length: 512 }, { range: { offset: 1024, length: 512 } }],
  [{ state: '-1' }, { state: -1 }],
  [{ state: '4294967296' }, { state: 0 }],
  [
    { once: 'yes', immediately: true },
    { once: true, immediately: true },
  ],
  [
    { action: 'delay', 'delay-ms': 5, 'jitter-ms': 2 },
    { action: 'delay', delayMs: 5, jitterMs: 2 },
  ],
  [
    { action: 'corrupt', bit: 9 },
    { action: 'corrupt', bits: [9] },
  ],
  [
    { action: 'torn', bytes: 512, errno: 0 },
    { action: 'torn', bytes: 512, errno: undefined },
  ],
  [{ action: 'misdirect', target: '1M' }, { target: 1 << 20 }],
  [
    { probability: '0.25', every: 3, after: 2 },
    { probability: 0.25, every: 3, after: 2 },
  ],
])('BD-20, BD-61: %j is %j', (given, expected) => {
  expect(inject(given as Record<string, string>)).toMatchObject(expected);
});

test.each([
  [{ errno: 'x' }, "Parameter 'errno' expects a number"],
  [{ errno: '5 ' }, "Parameter 'errno' expects a number"],
  [{ errno: '08' }, "Parameter 'errno' expects a number"],
  [{ errno: 'EWRONG' }, 'invalid parameter value: EWRONG'],
  [{ errno: '18446744073709551616' }, "Value '18446744073709551616' is too large for parameter 'errno'"],
  [{ sector: '1k' }, "Parameter 'sector' expects a number"],
  [{ state: '' }, "Parameter 'state' expects a number"],
  [{ once: '1' }, "Parameter 'once' expects 'on' or 'off'"],
  [{ iotype: 'READ' }, 'invalid parameter value: READ'],
  [{ event: 'foo' }, 'invalid parameter value: foo'],
  [{ event: '' }, 'invalid parameter value: '],
  [{ probability: '2' }, 'invalid parameter value: 2'],
  [{ probability: ' ' }, 'invalid parameter value:  '],
  [{ action: 'explode' }, 'invalid parameter value: explode'],
  [{ foo: 1 }, "[inject-error] section doesn't support the option 'foo'"],
])('BD-20: %j is refused', (given, message) => {
  expect(() => inject(given as Record<string, string>)).toThrow(refused(message));
});

test('BD-20, BD-21: an event is required', () => {
  expect(() => parseRule('inject-error', {})).toThrow(refused('Missing event name for rule'));
  expect(() => parseRule('set-state', { state: 1 })).toThrow(refused('Missing event name for rule'));
});

test('BD-21: a change of state', () => {
  expect(parseRule('set-state', { event: 'none' })).toEqual({
    kind: 'set-state',
    event: 'none',
    state: 0,
    newState: 0,
  });
  expect(parseRule('set-state', { event: 'none', state: 1, new_state: 2 })).toMatchObject({ state: 1, newState: 2 });
});

describe('BD-3: one rule or a list', () => {
  const events = (rules: readonly Rule[]) => rules.map(({ event }) => event);

  test('in their order', () => {
    expect(events(parseSection('inject-error', { event: 'none' }))).toEqual(['none']);
    const list = { '1.event': 'pwritev', '0.event': 'none', '0.errno': 5 };
    expect(events(parseSection('inject-error', list))).toEqual(['none', 'pwritev']);
    expect(parseSection('set-state', {})).toEqual([]);
  });

  test.each([
    [{ event: 'none', foo: 1 }, "Unknown option 'foo' for [inject-error]"],
    [{ event: 'none', '0.event': 'none' }, "Unknown option '0.event' for [inject-error]"],
    [{ foo: 1 }, "Unused option 'foo' for [inject-error]"],
    [{ '1.event': 'none' }, "Unused option '1.event' for [inject-error]"],
    [{ '0.event': 'none', '2.event': 'none' }, "Unused option '2.event' for [inject-error]"],
    [{ '00.event': 'none' }, "Unused option '00.event' for [inject-error]"],
    [{ '0': 5 }, '[inject-error] section (index 0) does not consist of keys'],
    [{ '0.event': 'none', '0.foo': 1 }, "[inject-error] section doesn't support the option 'foo'"],
  ])('%j is refused', (tree, message) => {
    expect(() => parseSection('inject-error', tree as Record<string, string>)).toThrow(refused(message));
  });
});
