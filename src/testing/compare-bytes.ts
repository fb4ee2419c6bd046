/** Comparing bytes at the speed of memory. */
import { firstDifference, firstNonZero } from '../bytes/difference.ts';

/** Where `found` first differs from `expected`, the shorter one's end at the latest; -1: nowhere. */
export function differsAt(found: Uint8Array, expected: Uint8Array): number {
  const common = Math.min(found.length, expected.length);
  const at = firstDifference(found.subarray(0, common), expected.subarray(0, common));
  return at >= 0 || found.length === expected.length ? at : common;
}

/** Where the first byte is that is not `value`; -1: nowhere. */
export function notFilledAt(found: Uint8Array, value: number): number {
  if (value === 0) return firstNonZero(found);
  if (found.length === 0) return -1;
  if (found[0] !== value) return 0;
  // Each byte is like the one before it.
  const at = firstDifference(found.subarray(1), found.subarray(0, -1));
  return at < 0 ? -1 : at + 1;
}
