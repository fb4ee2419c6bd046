/** Rules and actions that are out of range are refused, whoever gives them (BD-60, BD-61, BD-62). */
import { describe, expect, test } from 'vitest';
import { faultyDisk } from '../../testing/index.ts';
import type { Action } from './actions.ts';
import { Engine } from './engine.ts';
import { completeRule, parseRule, type RuleOptions } from './rules.ts';

const refused = (message: string) => expect.objectContaining({ code: 'EINVAL', message });
const EVENT = { event: 'none' } as const;

const WRONG: readonly (readonly [given: object, message: string])[] = [
  [{ probability: 7 }, "Parameter 'probability' expects a number from 0 to 1, not 7"],
  [{ probability: -0.1 }, "Parameter 'probability' expects a number from 0 to 1, not -0.1"],
  [{ probability: Number.NaN }, "Parameter 'probability' expects a number from 0 to 1, not NaN"],
  [
    { action: 'zork' },
    "Parameter 'action' expects one of error, delay, torn, corrupt, misdirect, drop, reorder, not zork",
  ],
  [
    { action: 'toString' },
    "Parameter 'action' expects one of error, delay, torn, corrupt, misdirect, drop, reorder, not toString",
  ],
  [{ every: 0 }, "Parameter 'every' expects a whole number of at least 1, not 0"],
  [{ every: 1.5 }, "Parameter 'every' expects a whole number of at least 1, not 1.5"],
  [{ after: -1 }, "Parameter 'after' expects a whole number of at least 0, not -1"],
  [{ errno: 'EZORK' }, "Parameter 'errno' expects the name of an error such as 'EIO', not EZORK"],
  [{ errno: 'constructor' }, "Parameter 'errno' expects the name of an error such as 'EIO', not constructor"],
  [{ errno: 28 }, "Parameter 'errno' expects the name of an error such as 'EIO', not 28"],
  [{ delayMs: -1 }, "Parameter 'delayMs' expects a number from 0 to 1000000000, not -1"],
  [{ jitterMs: 2 ** 31 }, "Parameter 'jitterMs' expects a number from 0 to 1000000000, not 2147483648"],
  [{ bytes: -1 }, "Parameter 'bytes' expects a whole number of at least 0, not -1"],
  [{ target: 2 ** 53 }, "Parameter 'target' expects a whole number of at least 0, not 9007199254740992"],
  [{ bits: [3, -1] }, "Parameter 'bits' expects a list of whole numbers of at least 0, not [3,-1]"],
  [{ bits: 3 }, "Parameter 'bits' expects a list of whole numbers of at least 0, not 3"],
  [
    { range: { offset: 0, length: 0 } },
    'Parameter \'range\' expects an offset of at least 0 and a length of at least 1, not {"offset":0,"length":0}',
  ],
  [{ range: null }, "Parameter 'range' expects an offset of at least 0 and a length of at least 1, not null"],
  [{ once: 1 }, "Parameter 'once' expects true or false, not 1"],
  [{ state: 2 ** 31 }, "Parameter 'state' expects a whole number of 32 bits, not 2147483648"],
  [
    { ioTypes: ['READ'] },
    'Parameter \'ioTypes\' expects some of read, write, write-zeroes, discard, flush, block-status, not ["READ"]',
  ],
  [
    { ioTypes: [] },
    "Parameter 'ioTypes' expects some of read, write, write-zeroes, discard, flush, block-status, not []",
  ],
  [
    { ioTypes: 'read' },
    "Parameter 'ioTypes' expects some of read, write, write-zeroes, discard, flush, block-status, not read",
  ],
  [{ ioType: 'read' }, "Rules of kind 'inject-error' have no parameter 'ioType'"],
  [{ constructor: 1 }, "Rules of kind 'inject-error' have no parameter 'constructor'"],
  [{ kind: 'set-state', newState: 0.5 }, "Parameter 'newState' expects a whole number of 32 bits, not 0.5"],
  [{ kind: 'set-state', errno: 'EIO' }, "Rules of kind 'set-state' have no parameter 'errno'"],
  [{ kind: 'zork' }, "Parameter 'kind' expects one of set-state, inject-error, not zork"],
];

describe('BD-60: a rule in a program', () => {
  test.each(WRONG)('%j is refused', (given, message) => {
    const rule = { ...EVENT, ...given } as RuleOptions;
    expect(() => completeRule(rule)).toThrow(refused(message));
    const engine = new Engine([], 1);
    expect(() => engine.add(rule)).toThrow(refused(message));
    expect(engine.rules()).toEqual([]);
  });

  test.each([
    { probability: 0, every: 1, after: 0, bytes: 0, target: 0, delayMs: 0.5, jitterMs: 1e9, bits: [] },
    { probability: 1, range: { offset: 0, length: 1 }, state: -(2 ** 31), ioTypes: ['block-status'] },
    { errno: undefined, range: undefined, once: false, immediately: true },
  ] as const)('%j is taken', (given) => {
    expect(completeRule({ ...EVENT, ...given })).toMatchObject({ ...given, ioTypes: expect.any(Set) });
  });

  test('what is undefined is left out', () => {
    const given = { probability: undefined, every: undefined, ioTypes: undefined, state: undefined };
    expect(completeRule({ ...EVENT, ...(given as object) })).toEqual(completeRule(EVENT));
    const change = { kind: 'set-state', event: 'none', newState: undefined } as unknown as RuleOptions;
    expect(completeRule(change)).toEqual({ kind: 'set-state', event: 'none', state: 0, newState: 0 });
  });

  test('one that is listed can be added again', () => {
    const rule = completeRule({ ...EVENT, errno: undefined, ioTypes: ['flush'] });
    expect(completeRule(rule)).toEqual(rule);
  });
});

test.each([
  [{ every: 0 }, "Parameter 'every' expects a whole number of at least 1, not 0"],
  [{ after: '99999999999999999' }, "Parameter 'after' expects a whole number of at least 0, not 100000000000000000"],
  [{ bytes: '99999999999999999' }, "Parameter 'bytes' expects a whole number of at least 0, not 100000000000000000"],
  [{ 'delay-ms': '1000000001' }, "Parameter 'delay-ms' expects a number from 0 to 1000000000, not 1000000001"],
  [{ 'jitter-ms': '-1' }, "Parameter 'jitter-ms' expects a number"],
  [{ target: '8E' }, "Parameter 'target' expects a size from 0 to 9007199254740991"],
  [{ offset: '9P' }, "Parameter 'offset' expects a size from 0 to 9007199254740991"],
  [{ offset: 0, length: 0 }, "Parameter 'length' expects a size from 1 to 9007199254740991"],
  [{ length: 512 }, "Parameter 'length' expects 'offset' or 'sector' beside it"],
  [{ offset: 0, sector: 3 }, "Parameters 'sector' and 'offset' are mutually exclusive"],
])('BD-61: %j is refused in options, config files and `fault add`', (given, message) => {
  expect(() => parseRule('inject-error', { ...EVENT, ...(given as Record<string, string>) })).toThrow(refused(message));
});

test('BD-61: a length goes with a sector, too', () => {
  expect(parseRule('inject-error', { ...EVENT, sector: 2, length: '4k' })).toMatchObject({
    range: { offset: 1024, length: 4096 },
  });
});

test('BD-62: what a scenario returns is an action, or the request fails', async () => {
  for (const [action, message] of [
    [
      { kind: 'zork' },
      "Parameter 'kind' expects one of error, delay, torn, corrupt, misdirect, drop, reorder, not zork",
    ],
    [{ kind: 'error', errno: 'EZORK' }, "Parameter 'errno' expects the name of an error such as 'EIO', not EZORK"],
    [{ kind: 'delay' }, "Parameter 'ms' expects a number from 0 to 1000000000, not undefined"],
    [{ kind: 'torn', bytes: -1 }, "Parameter 'bytes' expects a whole number of at least 0, not -1"],
    [{ kind: 'corrupt', bits: 8 }, "Parameter 'bits' expects a list of whole numbers of at least 0, not 8"],
    [{ kind: 'misdirect', target: 0.5 }, "Parameter 'target' expects a whole number of at least 0, not 0.5"],
  ] as const) {
    const { disk, control } = await faultyDisk({ size: 65536, scenario: () => action as unknown as Action });
    await expect(disk.write(0, new Uint8Array(512))).rejects.toMatchObject({ code: 'EINVAL', message });
    control.setScenario(undefined);
    await disk.close();
  }
});
