/** Numbers that commands take, refused in qemu-io's words (T-ARG-1 to T-ARG-3). */
import { parseSize } from '../../bytes/size.ts';
import { plainNumber } from '../command-line/numbers.ts';
import { refuse } from './failure.ts';

const LARGEST = (1n << 63n) - 1n;

/** Longest request, bytes. */
export const REQUEST_MAX = 2147483136;

const SECTOR = 512;

/** Bytes of an offset or a length. Past the safe integers the last bits are lost: nothing of such a size can be reached. */
export function sizeOf(text: string): number {
  const parsed = parseSize(text, LARGEST);
  if (parsed === 'invalid') {
    return refuse(`Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- ${text}`);
  }
  if (parsed === 'out-of-range') return refuse(`Parsing error: argument too large -- ${text}`);
  return Number(parsed);
}

/** The length of one request. */
export function lengthOf(text: string): number {
  const length = sizeOf(text);
  return length <= REQUEST_MAX ? length : refuse(`length cannot exceed ${REQUEST_MAX}, given ${text}`);
}

/** The lengths of the buffers of one request. */
export function lengthsOf(texts: readonly string[]): readonly number[] {
  let sum = 0;
  return texts.map((text) => {
    const length = sizeOf(text);
    if (length > REQUEST_MAX) refuse(`Argument '${text}' exceeds maximum size ${REQUEST_MAX}`);
    sum += length;
    if (sum > REQUEST_MAX) refuse(`The total number of bytes exceed the maximum size ${REQUEST_MAX}`);
    return length;
  });
}

/** A byte that fills buffers. */
export function patternOf(text: string): number {
  const byte = plainNumber(text);
  return byte !== undefined && byte <= 255 ? byte : refuse(`${text} is not a valid pattern byte`);
}

export function millisecondsOf(text: string): number {
  return plainNumber(text) ?? refuse(`${text} is not a valid number`);
}

/** Of requests that only whole sectors will do for. */
export function requireSectors(value: number, name: 'offset' | 'count'): void {
  if (value % SECTOR !== 0) refuse(`${value} is not a sector-aligned value for '${name}'`);
}
