/** Ciphers that only old volumes have: published answers, and back again. */
import { describe, expect, test } from 'vitest';
import type { BlockCipher } from '../core/host-crypto.ts';
import { serpent } from './serpent.ts';
import { twofish } from './twofish.ts';

const hex = (text: string) => Uint8Array.from(Buffer.from(text, 'hex'));
const hexOf = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const ZERO = '0'.repeat(32);
const LONG = '0123456789abcdeffedcba987654321000112233445566778899aabbccddeeff';

/** Key, plain, stored. */
const ANSWERS: readonly (readonly [string, (key: Uint8Array) => BlockCipher, string, string, string])[] = [
  // NESSIE: set 1 and set 2, vector 0.
  ['Serpent-128', serpent, '80'.padEnd(32, '0'), ZERO, '264e5481eff42a4606abda06c0bfda3d'],
  ['Serpent-128', serpent, ZERO, '80'.padEnd(32, '0'), 'a3b35de7c358ddd82644678c64b8bcbb'],
  ['Serpent-192', serpent, '80'.padEnd(48, '0'), ZERO, '9e274ead9b737bb21efcfca548602689'],
  ['Serpent-256', serpent, '80'.padEnd(64, '0'), ZERO, 'a223aa1288463c0e2be38ebd825616c0'],
  // The paper's, appendix B.
  ['Twofish-128', twofish, ZERO, ZERO, '9f589f5cf6122c32b6bfec2f2ae8c35a'],
  ['Twofish-192', twofish, LONG.slice(0, 48), ZERO, 'cfd1d2e5a9be9cdf501f13b892bd2248'],
  ['Twofish-256', twofish, LONG, ZERO, '37527be0052334b89f0cfccae87cfa20'],
];

describe('Q-CRYPT-2: ciphers of old volumes', () => {
  test.each(ANSWERS)('%s', (_name, cipher, key, plain, stored) => {
    const blocks = cipher(hex(key));
    // Two blocks, each by itself; what is given stays as it is.
    const given = hex(plain + LONG.slice(0, 32));
    const result = blocks.encrypt(given);
    expect(hexOf(result.subarray(0, 16))).toBe(stored);
    expect(hexOf(blocks.decrypt(result))).toBe(plain + LONG.slice(0, 32));
    expect(hexOf(given.subarray(0, 16))).toBe(plain);
  });
});
