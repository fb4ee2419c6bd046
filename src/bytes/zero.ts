/** Finding zeroes at the speed of memory. */

/** Up to this many bytes a plain loop is quicker than the host's comparison. */
const SHORT = 64;
/** In most data a non-zero byte comes early; looked at before anything that costs a call. */
const PEEK = 16;
/** Zero runs are first taken in steps of this many bytes. */
const STRIDE = 64 * 1024;

type Compare = (
  this: Uint8Array,
  other: Uint8Array,
  start: number,
  end: number,
  thisStart: number,
  thisEnd: number,
) => number;

/** Node's memcmp over ranges of byte arrays, where there is one that does what we expect. */
const compare: Compare | undefined = findCompare();

function findCompare(): Compare | undefined {
  const found = (globalThis as { Buffer?: { prototype?: { compare?: Compare } } }).Buffer?.prototype?.compare;
  if (found === undefined) return undefined;
  try {
    const probe = new Uint8Array([0, 0, 0, 1]);
    return found.call(probe, probe, 1, 3, 0, 2) === 0 && found.call(probe, probe, 1, 4, 0, 3) !== 0 ? found : undefined;
  } catch {
    return undefined;
  }
}

/** Whether all bytes from `start` to before `end` are zero. An empty range is. */
export function isZero(bytes: Uint8Array, start = 0, end = bytes.length): boolean {
  const peeked = Math.min(end, start + PEEK);
  for (let i = start; i < peeked; i++) if (bytes[i] !== 0) return false;
  if (end - peeked <= SHORT) {
    for (let i = peeked; i < end; i++) if (bytes[i] !== 0) return false;
    return true;
  }
  // A range whose first byte is zero and that equals itself moved by one byte is zero.
  if (compare !== undefined) return compare.call(bytes, bytes, start + 1, end, start, end - 1) === 0;
  return wordsAreZero(bytes, peeked, end);
}

/** The same by 32-bit words, for hosts without a memcmp. */
export function wordsAreZero(bytes: Uint8Array, start: number, end: number): boolean {
  let at = start;
  for (; at < end && (bytes.byteOffset + at) % 4 !== 0; at++) if (bytes[at] !== 0) return false;
  if (end - at >= 4) {
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset + at, (end - at) >>> 2);
    for (let i = 0; i < words.length; i++) if (words[i] !== 0) return false;
    at += words.length * 4;
  }
  for (; at < end; at++) if (bytes[at] !== 0) return false;
  return true;
}

export interface ZeroRun {
  readonly offset: number;
  readonly length: number;
  readonly zero: boolean;
}

/**
 * Splits a buffer into runs of zero and other granules, counted from the buffer's start; neighbouring runs differ in kind.
 * A granule with any other byte in it is data as a whole; the last one may be short.
 */
export function splitZeroes(bytes: Uint8Array, granularity: number): ZeroRun[] {
  const runs: ZeroRun[] = [];
  for (let offset = 0; offset < bytes.length; ) {
    const first = Math.min(bytes.length, offset + granularity);
    const zero = isZero(bytes, offset, first);
    const end = zero ? endOfZeroes(bytes, first, granularity) : endOfData(bytes, first, granularity);
    runs.push({ offset, length: end - offset, zero });
    offset = end;
  }
  return runs;
}

function endOfZeroes(bytes: Uint8Array, start: number, granularity: number): number {
  const stride = Math.max(granularity, STRIDE - (STRIDE % granularity));
  let at = start;
  while (at < bytes.length && isZero(bytes, at, Math.min(bytes.length, at + stride))) at += stride;
  const limit = Math.min(bytes.length, at);
  if (limit === bytes.length) return limit;
  while (isZero(bytes, at, Math.min(bytes.length, at + granularity))) at += granularity;
  return at;
}

function endOfData(bytes: Uint8Array, start: number, granularity: number): number {
  let at = start;
  // Most granules of data tell by their first byte; a call for each would take longer than all else that is done for them.
  while (at < bytes.length && (bytes[at] !== 0 || !isZero(bytes, at, Math.min(bytes.length, at + granularity)))) {
    at += granularity;
  }
  return Math.min(bytes.length, at);
}
