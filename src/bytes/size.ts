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
  if (fraction) {
    const scale = 10n ** BigInt(fraction.length);
    value += ((BigInt(fraction) << shift) * 2n + scale) / (scale * 2n);
  }
  return value > limit ? 'out-of-range' : value;
}

const HUMAN_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

/** `1.5 KiB`: three significant digits as C's `%.3g` (T-FMT-1). */
export function formatSize(bytes: number): string {
  let unit = 0;
  let value = bytes;
  // A unit is left for the next at 1000 of it, so that three digits do.
  while (value >= 1000 && unit < HUMAN_UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${formatG3(value)} ${HUMAN_UNITS[unit]}`;
}

/** C's `%.3g`. */
function formatG3(value: number): string {
  if (value === 0) return '0';
  const exponent = Number(value.toExponential(2).split('e')[1]);
  if (exponent < -4 || exponent >= 3) {
    const [mantissa = '0', power = '0'] = value.toExponential(2).split('e');
    const digits = mantissa.includes('.') ? mantissa.replace(/\.?0+$/, '') : mantissa;
    const sign = power.startsWith('-') ? '-' : '+';
    return `${digits}e${sign}${power.replace(/^[+-]/, '').padStart(2, '0')}`;
  }
  const fixed = value.toFixed(2 - exponent);
  return fixed.includes('.') ? fixed.replace(/\.?0+$/, '') : fixed;
}
