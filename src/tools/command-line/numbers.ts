/** Numbers and sizes given as arguments, with qemu-img's messages (T-SIZE-2). */
import { parseSize } from '../../bytes/size.ts';
import { Failure } from '../failure.ts';

const LARGEST = (1n << 63n) - 1n;

export interface SizeRange {
  readonly min?: bigint;
  readonly max?: bigint;
}

/**
 * Bytes of a size argument; `what` is what it is called in messages, e.g. `image size`. Sizes past the safe integers
 * lose their last bits: nothing of such a size can be opened.
 */
export function sizeArgument(what: string, text: string, range: SizeRange = {}): number {
  return Number(exactSizeArgument(what, text, range));
}

/** The same, exactly. */
function exactSizeArgument(what: string, text: string, range: SizeRange = {}): bigint {
  const { min = 0n, max = LARGEST } = range;
  const parsed = parseSize(text, max);
  if (parsed === 'invalid') {
    throw new Failure(`Invalid ${what} specified. You may use k, M, G, T, P or E suffixes for`, {
      continuation: 'kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.',
    });
  }
  if (parsed === 'out-of-range' || parsed < min) {
    throw new Failure(`Invalid ${what} specified. Must be between ${min} and ${max}.`);
  }
  return parsed;
}

/** Seconds, whole or not, up to what a timer can take, as milliseconds. `what` they are is told by the message. */
export function secondsArgument(what: string, text: string): number {
  const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
  if (!(value <= 2 ** 31 / 1000)) throw new Failure(`Invalid ${what} '${text}'`);
  return value * 1000;
}

/** A plain number as C's strtoul takes it: blanks and a sign before, decimal, octal or hex. Undefined if it is none. */
export function plainNumber(text: string): number | undefined {
  const match = /^[ \t\n\v\f\r]*\+?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9]\d*)$/.exec(text);
  const digits = match?.[1];
  if (digits === undefined) return undefined;
  return /^0[0-7]+$/.test(digits) ? Number.parseInt(digits, 8) : Number(digits);
}
