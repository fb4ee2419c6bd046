/** Twofish (Schneier and others 1998), for volumes that were encrypted with it. Words are little endian; names are the paper's. */
import { viewOf } from '../bytes/big-endian.ts';
import type { BlockCipher } from '../core/host-crypto.ts';

const BLOCK = 16;
const ROUNDS = 16;
/** Where the subkeys of rounds begin, behind those of both whitenings. */
const ROUND_KEYS = 8;

/** Tables of 4 bits that the permutations q0 and q1 are made of, by hexadecimal digits. */
const TABLES = [
  ['817d6f320b59eca4', 'ecb81235f4a6709d', 'ba5e6d90c8f32471', 'd7f4126e9b3085ca'],
  ['28bdf76e31940ac5', '1e2b4c376da5f908', '4c75169a0ed82b3f', 'b951c3de647f208a'],
].map((tables) => tables.map((digits) => Array.from(digits, (digit) => Number.parseInt(digit, 16))));

function permutation(tables: readonly (readonly number[])[]): Uint8Array {
  const [t0 = [], t1 = [], t2 = [], t3 = []] = tables;
  const half = (a: number, b: number) => [a ^ b, (a ^ ((b >> 1) | (b << 3)) ^ (a << 3)) & 15] as const;
  return Uint8Array.from({ length: 256 }, (_, x) => {
    const [a1, b1] = half(x >> 4, x & 15);
    const [a3, b3] = half(t0[a1] ?? 0, t1[b1] ?? 0);
    return ((t3[b3] ?? 0) << 4) | (t2[a3] ?? 0);
  });
}

const [Q0 = new Uint8Array(0), Q1 = new Uint8Array(0)] = TABLES.map(permutation);
/** Which permutation each byte goes through, from the last step to the first; as many steps are left out as the key is shorter. */
const STEPS = [
  [Q1, Q0, Q0, Q1, Q1],
  [Q0, Q0, Q1, Q1, Q0],
  [Q1, Q1, Q0, Q0, Q0],
  [Q0, Q1, Q1, Q0, Q1],
];

const MDS = [
  [0x01, 0xef, 0x5b, 0x5b],
  [0x5b, 0xef, 0xef, 0x01],
  [0xef, 0x5b, 0x01, 0xef],
  [0xef, 0x01, 0xef, 0x5b],
];
const MDS_FIELD = 0x169;
const RS = [
  [0x01, 0xa4, 0x55, 0x87, 0x5a, 0x58, 0xdb, 0x9e],
  [0xa4, 0x56, 0x82, 0xf3, 0x1e, 0xc6, 0x68, 0xe5],
  [0x02, 0xa1, 0xfc, 0xc1, 0x47, 0xae, 0x3d, 0x19],
  [0xa4, 0x55, 0x87, 0x5a, 0x58, 0xdb, 0x9e, 0x03],
];
const RS_FIELD = 0x14d;

/** In the field of 256 elements with this polynomial. */
function product(a: number, b: number, field: number): number {
  let sum = 0;
  for (let [x, y] = [a, b]; y > 0; y >>= 1) {
    if ((y & 1) !== 0) sum ^= x;
    x <<= 1;
    if (x > 255) x ^= field;
  }
  return sum;
}

/** What a byte at a place adds to the product with MDS, as a word. */
const MDS_COLUMNS = [0, 1, 2, 3].map((place) =>
  Int32Array.from({ length: 256 }, (_, byte) =>
    MDS.reduce((word, row, i) => word | (product(row[place] ?? 0, byte, MDS_FIELD) << (8 * i)), 0),
  ),
);

/** A byte at a place, through the permutations and the bytes of `list`, a word each, whose last one comes first. */
function substituted(place: number, byte: number, list: readonly Uint8Array[]): number {
  const steps = STEPS[place] ?? [];
  let y = byte;
  for (let i = list.length; i > 0; i--) y = (steps[i]?.[y] ?? 0) ^ (list[i - 1]?.[place] ?? 0);
  return steps[0]?.[y] ?? 0;
}

function h(byte: number, list: readonly Uint8Array[]): number {
  let word = 0;
  for (let place = 0; place < 4; place++) word ^= MDS_COLUMNS[place]?.[substituted(place, byte, list)] ?? 0;
  return word;
}

function rotate(word: number, by: number): number {
  return (word << by) | (word >>> (32 - by));
}

interface Schedule {
  readonly keys: Int32Array;
  /** The function g by bytes: four tables whose words add up. */
  readonly g: readonly Int32Array[];
}

function schedule(key: Uint8Array): Schedule {
  const even: Uint8Array[] = [];
  const odd: Uint8Array[] = [];
  const s: Uint8Array[] = [];
  for (let at = 0; at < key.length; at += 8) {
    const part = key.subarray(at, at + 8);
    even.push(part.subarray(0, 4));
    odd.push(part.subarray(4));
    s.unshift(
      Uint8Array.from(RS, (row) => row.reduce((sum, each, i) => sum ^ product(each, part[i] ?? 0, RS_FIELD), 0)),
    );
  }
  const keys = new Int32Array(ROUND_KEYS + 2 * ROUNDS);
  for (let i = 0; i < keys.length; i += 2) {
    const a = h(i, even);
    const b = rotate(h(i + 1, odd), 8);
    keys[i] = a + b;
    keys[i + 1] = rotate((a + 2 * b) | 0, 9);
  }
  const table = (column: Int32Array, place: number) =>
    Int32Array.from({ length: 256 }, (_, byte) => column[substituted(place, byte, s)] ?? 0);
  return { keys, g: MDS_COLUMNS.map(table) };
}

/** `key`: 16, 24 or 32 bytes. */
export function twofish(key: Uint8Array): BlockCipher {
  const { keys, g } = schedule(key);
  const [g0 = keys, g1 = keys, g2 = keys, g3 = keys] = g;
  const k = (index: number) => keys[index] ?? 0;
  const apply = (word: number) =>
    (g0[word & 255] ?? 0) ^ (g1[(word >>> 8) & 255] ?? 0) ^ (g2[(word >>> 16) & 255] ?? 0) ^ (g3[word >>> 24] ?? 0);
  const run = (bytes: Uint8Array, decrypts: boolean) => {
    const result = bytes.slice();
    const view = viewOf(result);
    const [first, last] = decrypts ? [4, 0] : [0, 4];
    for (let at = 0; at < result.length; at += BLOCK) {
      let a = view.getInt32(at, true) ^ k(first);
      let b = view.getInt32(at + 4, true) ^ k(first + 1);
      let c = view.getInt32(at + 8, true) ^ k(first + 2);
      let d = view.getInt32(at + 12, true) ^ k(first + 3);
      for (let i = 0; i < ROUNDS; i++) {
        const round = ROUND_KEYS + 2 * (decrypts ? ROUNDS - 1 - i : i);
        const t0 = apply(a);
        const t1 = apply(rotate(b, 8));
        const f0 = (t0 + t1 + k(round)) | 0;
        const f1 = (t0 + 2 * t1 + k(round + 1)) | 0;
        const next = decrypts ? rotate(c, 1) ^ f0 : rotate(c ^ f0, 31);
        const after = decrypts ? rotate(d ^ f1, 31) : rotate(d, 1) ^ f1;
        c = a;
        d = b;
        a = next;
        b = after;
      }
      view.setInt32(at, c ^ k(last), true);
      view.setInt32(at + 4, d ^ k(last + 1), true);
      view.setInt32(at + 8, a ^ k(last + 2), true);
      view.setInt32(at + 12, b ^ k(last + 3), true);
    }
    return result;
  };
  return { encrypt: (bytes) => run(bytes, false), decrypt: (bytes) => run(bytes, true) };
}
