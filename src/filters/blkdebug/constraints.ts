/** Limits that a blkdebug node states in place of its child's (BD-4 to BD-6). */
import { alignUp, isPowerOfTwo } from '../../bytes/align.ts';
import type { Limits } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';

export interface Constraints {
  readonly align: number;
  readonly 'max-transfer': number;
  readonly 'opt-write-zero': number;
  readonly 'max-write-zero': number;
  readonly 'opt-discard': number;
  readonly 'max-discard': number;
}

/** The largest that C's `int` holds, which is refused too. */
const LIMIT = 2 ** 31 - 1;

/** Throws BlockError EINVAL for values that do not go together. 0 is: the child's limit stays. */
export function constrainedLimits(given: Constraints, child: Limits): Limits {
  const { align } = given;
  if (align !== 0 && (align >= LIMIT || !isPowerOfTwo(align))) throw cannotMeet('align', align);
  const requestAlign = Math.max(align, child.requestAlign);
  const require = (name: keyof Constraints, unit: number) => {
    const value = given[name];
    if (value !== 0 && (value >= LIMIT || value % unit !== 0)) throw cannotMeet(name, value);
  };
  require('max-transfer', requestAlign);
  require('opt-write-zero', requestAlign);
  require('max-write-zero', Math.max(given['opt-write-zero'], requestAlign));
  require('opt-discard', requestAlign);
  require('max-discard', Math.max(given['opt-discard'], requestAlign));
  // The child's need be no multiples of a larger request alignment.
  const zeroAlign = alignUp(given['opt-write-zero'] || child.zeroAlign, requestAlign);
  const discardAlign = alignUp(given['opt-discard'] || child.discardAlign, requestAlign);
  return {
    ...child,
    requestAlign,
    zeroAlign,
    zeroWidens: child.zeroWidens && given['opt-write-zero'] === 0,
    discardAlign,
    transferMax: Math.max(given['max-transfer'] || child.transferMax, requestAlign),
    zeroMax: Math.max(given['max-write-zero'] || child.zeroMax, zeroAlign),
    discardMax: Math.max(given['max-discard'] || child.discardMax, discardAlign),
  };
}

function cannotMeet(name: string, value: number): BlockError {
  return new BlockError('EINVAL', `Cannot meet constraints with ${name} ${BigInt(value)}`);
}
