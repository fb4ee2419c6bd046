/** Rounding of offsets. Arithmetic, not bit operations, which would cut offsets at 2^31. */

/** The largest multiple of `alignment` that is not above `value`; both are non-negative safe integers. */
export function alignDown(value: number, alignment: number): number {
  return value - (value % alignment);
}

/** The smallest multiple of `alignment` that is not below `value`. */
export function alignUp(value: number, alignment: number): number {
  const over = value % alignment;
  return over === 0 ? value : value - over + alignment;
}

/** Whether `value` is 1, 2, 4, … up to 2^52. */
export function isPowerOfTwo(value: number): boolean {
  if (!Number.isSafeInteger(value) || value < 1) return false;
  let rest = value;
  while (rest % 2 === 0) rest /= 2;
  return rest === 1;
}
