/** Sizes as people type and read them: T-SIZE-1, T-FMT-1 and T-FMT-2 of the command specification. */

export type SizeProblem = 'invalid' | 'out-of-range';

const UNITS: Readonly<Record<string, number>> = { b: 0, k: 10, m: 20, g: 30, t: 40, p: 50, e: 60 };

/**
 * Bytes of a size such as `1.5k`, `0x200`, `10G` (T-SIZE-1), exact up to `limit` (inclusive, default 2^64-1), or what is wrong with it.
 * A bigint, since options reach past the safe integers; callers narrow it.
 */
export function parseSize(text: string, limit: bigint = (1n << 64n) - 1n): bigint | SizeProblem {
  const hex = /^[ \t\n\v\f\r]*\+?0[xX]([0-9a-fA-F]+)$/.exec(text);
  if (hex) {
    const value = BigInt(`0x${hex[1]}`);
    return value > limit ? 'out-of-range' : value;
  }
  const match = /^[ \t\n\v\f\r]*(?:\+?(\d*)(?:\.(\d*))?([bBkKmMgGtTpPeE]?)|-\d+)$/.exec(text);
  if (!match) return 'invalid';
  const [, whole, fraction, suffix] = match;
  if (whole === undefined) return 'out-of-range';
  if (whole === '' && (fraction === undefined || fraction === '')) return 'invalid';
  const shift = BigInt(UNITS[(suffix ?? '').toLowerCase()] ?? 0);
  if (shift === 0n && fraction && /[1-9]/.test(fraction)) return 'invalid';
  let value = BigInt(whole || '0') << shift;
  // The fraction goes through a double, as everyone's C library does it: 1.1E ends in 680, not in 674.
  if (fraction) value += BigInt(Math.round(Number(`0.${fraction}`) * 2 ** Number(shift)));
  return value > limit ? 'out-of-range' : value;
}

const HUMAN_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

/** `1.5 KiB`: three significant digits as C's `%.3g` (T-FMT-1). `bytes` is a non-negative integer. */
export function formatSize(bytes: number): string {
  let unit = 0;
  // A unit is left for the next at 1000 of it, so that three digits do.
  while (bytes >= 1000 * 1024 ** unit && unit < HUMAN_UNITS.length - 1) unit++;
  return `${threeDigits(BigInt(bytes), 1024n ** BigInt(unit))} ${HUMAN_UNITS[unit]}`;
}

/** C's `%.3g` of the fraction, which is below 1000.5: rounded half to even, exactly. */
function threeDigits(value: bigint, divisor: bigint): string {
  if (value === 0n) return '0';
  // The number of decimals that leaves three significant digits.
  let decimals = 2;
  while (value * 10n ** BigInt(decimals) < 100n * divisor) decimals++;
  while (decimals > 0 && value >= 10n ** BigInt(3 - decimals) * divisor) decimals--;
  const digits = divideHalfEven(value * 10n ** BigInt(decimals), divisor);
  if (decimals === 0) return digits >= 1000n ? '1e+03' : String(digits);
  const text = String(digits).padStart(decimals + 1, '0');
  return `${text.slice(0, -decimals)}.${text.slice(-decimals)}`.replace(/\.?0+$/, '');
}

function divideHalfEven(value: bigint, divisor: bigint): bigint {
  const quotient = value / divisor;
  const twice = (value % divisor) * 2n;
  const up = twice > divisor || (twice === divisor && quotient % 2n === 1n);
  return up ? quotient + 1n : quotient;
}
