/** Finding where two buffers differ, at the speed of memory. */
import { isZero } from './zero.ts';

type Compare = (this: Uint8Array, other: Uint8Array) => number;

/** Node's memcmp of byte arrays, where there is one. */
const compare: Compare | undefined = findCompare();

/** Equal pieces this long are passed over at once when looking for a difference. */
const STRIDE = 4096;

function findCompare(): Compare | undefined {
  const found = (globalThis as { Buffer?: { prototype?: { compare?: Compare } } }).Buffer?.prototype?.compare;
  if (found === undefined) return undefined;
  try {
    const works = found.call(new Uint8Array([1, 2]), new Uint8Array([1, 2])) === 0;
    return works && found.call(new Uint8Array([1, 2]), new Uint8Array([1, 3])) !== 0 ? found : undefined;
  } catch {
    return undefined;
  }
}

/** Whether two buffers of one length hold the same bytes. */
function equal(a: Uint8Array, b: Uint8Array): boolean {
  return compare === undefined ? equalWords(a, b) : compare.call(a, b) === 0;
}

/** The same by 32-bit words, for hosts without a memcmp. */
export function equalWords(a: Uint8Array, b: Uint8Array): boolean {
  let at = 0;
  if (a.byteOffset % 4 === 0 && b.byteOffset % 4 === 0) {
    const count = a.length >>> 2;
    const left = new Uint32Array(a.buffer, a.byteOffset, count);
    const right = new Uint32Array(b.buffer, b.byteOffset, count);
    for (let i = 0; i < count; i++) if (left[i] !== right[i]) return false;
    at = count * 4;
  }
  for (; at < a.length; at++) if (a[at] !== b[at]) return false;
  return true;
}

/** Index of the first byte in which two buffers of one length differ; -1: they are equal. */
export function firstDifference(a: Uint8Array, b: Uint8Array): number {
  if (equal(a, b)) return -1;
  let at = 0;
  while (equal(a.subarray(at, at + STRIDE), b.subarray(at, at + STRIDE))) at += STRIDE;
  while (a[at] === b[at]) at++;
  return at;
}

/** Index of the first byte that is not zero; -1: there is none. */
export function firstNonZero(bytes: Uint8Array): number {
  for (let start = 0; start < bytes.length; start += STRIDE) {
    if (isZero(bytes, start, Math.min(bytes.length, start + STRIDE))) continue;
    let at = start;
    while (bytes[at] === 0) at++;
    return at;
  }
  return -1;
}

/** Index of the last byte before `end` that is not zero; -1: there is none. */
export function lastNonZero(bytes: Uint8Array, end = bytes.length): number {
  for (let stop = end; stop > 0; ) {
    let start = Math.max(0, stop - STRIDE);
    if (isZero(bytes, start, stop)) {
      stop = start;
      continue;
    }
    while (stop - start > 1) {
      const middle = (start + stop) >>> 1;
      if (isZero(bytes, middle, stop)) stop = middle;
      else start = middle;
    }
    return start;
  }
  return -1;
}
