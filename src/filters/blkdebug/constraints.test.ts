/** Limits that blkdebug states (BD-4 to BD-6). */
import { expect, test } from 'vitest';
import { completeLimits } from '../../core/request.ts';
import { type Constraints, constrainedLimits } from './constraints.ts';

const NONE: Constraints = {
  align: 0,
  'max-transfer': 0,
  'opt-write-zero': 0,
  'max-write-zero': 0,
  'opt-discard': 0,
  'max-discard': 0,
};
const limitsOf = (given: Partial<Constraints>, child = {}) =>
  completeLimits(constrainedLimits({ ...NONE, ...given }, completeLimits(child, 'child')), 'node');

test("BD-5: what is not given is the child's", () => {
  const child = { requestAlign: 512, zeroAlign: 4096, discardAlign: 8192, transferMax: 65536, zeroMax: 1 << 20 };
  expect(limitsOf({}, child)).toEqual(completeLimits(child, 'child'));
});

test('BD-4: the larger alignment counts', () => {
  expect(limitsOf({ align: 4096 }, { requestAlign: 512 }).requestAlign).toBe(4096);
  expect(limitsOf({ align: 512 }, { requestAlign: 4096 }).requestAlign).toBe(4096);
});

test("BD-6: what is given stands in place of the child's", () => {
  const given = {
    align: 512,
    'max-transfer': 1536,
    'opt-write-zero': 1024,
    'max-write-zero': 3072,
    'opt-discard': 2048,
    'max-discard': 6144,
  };
  expect(limitsOf(given, { transferMax: 512 })).toMatchObject({
    requestAlign: 512,
    transferMax: 1536,
    zeroAlign: 1024,
    zeroMax: 3072,
    discardAlign: 2048,
    discardMax: 6144,
  });
});

test('BD-6: limits of the child that a larger alignment does not divide are rounded up', () => {
  const child = { requestAlign: 512, zeroAlign: 1536, discardAlign: 1536, transferMax: 1024 };
  expect(limitsOf({ align: 1024 }, child)).toMatchObject({ zeroAlign: 2048, discardAlign: 2048 });
  expect(limitsOf({ align: 4096 }, child)).toMatchObject({ transferMax: 4096 });
});

const MAX = 2 ** 31 - 1;
test.each([
  [{ align: 1000 }, 'align 1000'],
  [{ align: 1536 }, 'align 1536'],
  [{ align: 2 ** 31 }, 'align 2147483648'],
  [{ align: 2 ** 63 }, 'align 9223372036854775808'],
  ...(['max-transfer', 'opt-write-zero', 'max-write-zero', 'opt-discard', 'max-discard'] as const).flatMap(
    (name): [Partial<Constraints>, string][] => [
      [{ [name]: MAX }, `${name} ${MAX}`],
      [{ align: 4096, [name]: 6144 }, `${name} 6144`],
    ],
  ),
  [{ 'opt-write-zero': 8192, 'max-write-zero': 4096 }, 'max-write-zero 4096'],
  [{ 'opt-discard': 8192, 'max-discard': 12288 }, 'max-discard 12288'],
] as [Partial<Constraints>, string][])('BD-4, BD-5: %j is refused', (given, what) => {
  expect(() => limitsOf(given)).toThrow(
    expect.objectContaining({ code: 'EINVAL', message: `Cannot meet constraints with ${what}` }),
  );
});

test('BD-5: no limit but align need be a power of two', () => {
  expect(limitsOf({ 'opt-write-zero': 1536, 'max-write-zero': 4608, 'max-transfer': 1000 })).toMatchObject({
    zeroAlign: 1536,
    zeroMax: 4608,
    transferMax: 1000,
  });
});
