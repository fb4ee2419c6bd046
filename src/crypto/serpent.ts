/**
 * Serpent (Anderson, Biham, Knudsen 1998), for volumes that were encrypted with it: blocks as four little-endian words, whose
 * bits at one place are the input of an S-box. A few megabytes a second.
 */
import { viewOf } from '../bytes/big-endian.ts';
import type { BlockCipher } from '../core/host-crypto.ts';

const BLOCK = 16;
const ROUNDS = 32;
const PHI = 0x9e3779b9;

/** S0 to S7, by hexadecimal digits. */
const SBOXES = [
  '38f1a65bed42709c',
  'fc27905a1be86d34',
  '86793cafd1e40b52',
  '0fb8c963d124a75e',
  '1f83c0b6254a9e7d',
  'f52b4a9c03e8d671',
  '72c5846be91fd3a0',
  '1df0e82b74ca9356',
].map((digits) => Array.from(digits, (digit) => Number.parseInt(digit, 16)));
const INVERSES = SBOXES.map((box) => box.map((_, value) => box.indexOf(value)));

/** For each bit of the output the products of input bits, as masks, whose sum it is (algebraic normal form). */
type Sums = readonly Uint8Array[];
const NO_TERMS = new Uint8Array(0);

function sumsOf(box: readonly number[]): Sums {
  return [0, 1, 2, 3].map((bit) => {
    const values = box.map((value) => (value >> bit) & 1);
    for (let step = 1; step < 16; step *= 2) {
      for (let i = 0; i < 16; i++) if ((i & step) !== 0) values[i] = (values[i] ?? 0) ^ (values[i - step] ?? 0);
    }
    return Uint8Array.from([...values.keys()].filter((mask) => values[mask] === 1));
  });
}

const FORWARD = SBOXES.map(sumsOf);
const BACKWARD = INVERSES.map(sumsOf);
/** Products of input bits by mask; that of none is 1. */
const products = new Int32Array(16).fill(-1, 0, 1);

/** 32 S-boxes at once. */
function substitute(x: Int32Array, sums: Sums | undefined): void {
  for (let bit = 0, from = 1; bit < 4; bit++, from *= 2) {
    const word = x[bit] ?? 0;
    for (let mask = 0; mask < from; mask++) products[from + mask] = (products[mask] ?? 0) & word;
  }
  for (let bit = 0; bit < 4; bit++) {
    const terms = sums?.[bit] ?? NO_TERMS;
    let sum = 0;
    for (let i = 0; i < terms.length; i++) sum ^= products[terms[i] ?? 0] ?? 0;
    x[bit] = sum;
  }
}

function rotate(word: number, by: number): number {
  return (word << by) | (word >>> (32 - by));
}

function mix(x: Int32Array): void {
  let [a = 0, b = 0, c = 0, d = 0] = x;
  a = rotate(a, 13);
  c = rotate(c, 3);
  b = rotate(b ^ a ^ c, 1);
  d = rotate(d ^ c ^ (a << 3), 7);
  a = rotate(a ^ b ^ d, 5);
  c = rotate(c ^ d ^ (b << 7), 22);
  x.set([a, b, c, d]);
}

function unmix(x: Int32Array): void {
  let [a = 0, b = 0, c = 0, d = 0] = x;
  c = rotate(c, 10) ^ d ^ (b << 7);
  a = rotate(a, 27) ^ b ^ d;
  d = rotate(d, 25) ^ c ^ (a << 3);
  b = rotate(b, 31) ^ a ^ c;
  x.set([rotate(a, 19), b, rotate(c, 29), d]);
}

/** Four words for each round, and four for the end. */
function roundKeys(key: Uint8Array): Int32Array {
  const padded = new Uint8Array(32);
  padded.set(key);
  if (key.length < padded.length) padded[key.length] = 1;
  const words = new Int32Array(8 + 4 * (ROUNDS + 1));
  for (let i = 0; i < 8; i++) words[i] = viewOf(padded).getInt32(i * 4, true);
  for (let i = 8; i < words.length; i++) {
    const sum = (words[i - 8] ?? 0) ^ (words[i - 5] ?? 0) ^ (words[i - 3] ?? 0) ^ (words[i - 1] ?? 0);
    words[i] = rotate(sum ^ PHI ^ (i - 8), 11);
  }
  const keys = words.slice(8);
  for (let round = 0; round <= ROUNDS; round++) {
    substitute(keys.subarray(round * 4, round * 4 + 4), FORWARD[(3 - round + 40) % 8]);
  }
  return keys;
}

function add(x: Int32Array, keys: Int32Array, round: number): void {
  for (let i = 0; i < 4; i++) x[i] = (x[i] ?? 0) ^ (keys[round * 4 + i] ?? 0);
}

function encryptBlock(x: Int32Array, keys: Int32Array): void {
  for (let round = 0; round < ROUNDS; round++) {
    add(x, keys, round);
    substitute(x, FORWARD[round % 8]);
    if (round < ROUNDS - 1) mix(x);
  }
  add(x, keys, ROUNDS);
}

function decryptBlock(x: Int32Array, keys: Int32Array): void {
  add(x, keys, ROUNDS);
  for (let round = ROUNDS - 1; round >= 0; round--) {
    if (round < ROUNDS - 1) unmix(x);
    substitute(x, BACKWARD[round % 8]);
    add(x, keys, round);
  }
}

/** `key`: 16, 24 or 32 bytes. */
export function serpent(key: Uint8Array): BlockCipher {
  const keys = roundKeys(key);
  const x = new Int32Array(4);
  const run = (bytes: Uint8Array, work: (x: Int32Array, keys: Int32Array) => void) => {
    const result = bytes.slice();
    const view = viewOf(result);
    for (let at = 0; at < result.length; at += BLOCK) {
      for (let i = 0; i < 4; i++) x[i] = view.getInt32(at + i * 4, true);
      work(x, keys);
      for (let i = 0; i < 4; i++) view.setInt32(at + i * 4, x[i] ?? 0, true);
    }
    return result;
  };
  return { encrypt: (bytes) => run(bytes, encryptBlock), decrypt: (bytes) => run(bytes, decryptBlock) };
}
