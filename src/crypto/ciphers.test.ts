/** Known answers, other implementations, and both providers alike. */
import { createCipheriv, randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { HostCrypto } from '../core/host-crypto.ts';
import { nodeCrypto } from '../node/crypto.ts';
import { SimHost } from '../testing/index.ts';
import { algorithmsOf, sectorCipher } from './algorithms.ts';
import { merge, split } from './anti-forensic.ts';
import { ivGenerator } from './iv.ts';
import { portableCrypto } from './portable.ts';
import { cryptoOf } from './provider.ts';

const PROVIDERS: readonly (readonly [string, HostCrypto])[] = [
  ['the system', nodeCrypto()],
  ['JavaScript', portableCrypto],
];

const hex = (text: string) => Uint8Array.from(Buffer.from(text.replaceAll(' ', ''), 'hex'));
const hexOf = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const utf8 = (text: string) => new TextEncoder().encode(text);

/** A cipher by the names of LUKS. */
const cipher = (crypto: HostCrypto, mode: string, key: Uint8Array) =>
  sectorCipher(crypto, algorithmsOf({ cipher: 'aes', mode, hash: 'sha256', keyBytes: key.length }), key);

function iv(sector: number): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeBigUInt64LE(BigInt(sector));
  return bytes;
}

describe.each(PROVIDERS)('ciphers of %s', (_name, crypto) => {
  test('XTS-AES-256: IEEE 1619, vector 10', async () => {
    const key = hex(
      '2718281828459045235360287471352662497757247093699959574966967627' +
        '3141592653589793238462643383279502884197169399375105820974944592',
    );
    const plain = Uint8Array.from({ length: 512 }, (_, i) => i % 256);
    const stored = (await cipher(crypto, 'xts-plain64', key)).encrypt(plain, 0xff);
    expect(hexOf(stored.subarray(0, 48))).toBe(
      '1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b5d31e276f8fe4a8d66b317f9ac683f44',
    );
  });

  test.each([
    ['aes-128-xts', 'xts-plain64', 32],
    ['aes-256-xts', 'xts-plain64', 64],
    ['aes-128-cbc', 'cbc-plain64', 16],
    ['aes-192-cbc', 'cbc-plain64', 24],
    ['aes-256-cbc', 'cbc-plain64', 32],
    ['aes-256-ctr', 'ctr-plain64', 32],
  ])('%s is what OpenSSL makes, sector by sector, over edges of chunks', async (system, mode, keyBytes) => {
    const key = randomBytes(keyBytes);
    const first = 2 ** 32 - 3;
    // Longer than a chunk, and at an odd place in memory.
    const plain = new Uint8Array(randomBytes(67_584 + 1).buffer.slice(0)).subarray(1, 67_585);
    const expected = Buffer.concat(
      Array.from({ length: plain.length / 512 }, (_, i) =>
        createCipheriv(system, key, iv(first + i))
          .setAutoPadding(false)
          .update(plain.subarray(i * 512, i * 512 + 512)),
      ),
    );
    const sectors = await cipher(crypto, mode, key);
    const before = plain.slice();
    const stored = sectors.encrypt(plain, first);
    expect(Buffer.compare(stored, expected)).toBe(0);
    expect(Buffer.compare(plain, before)).toBe(0);
    sectors.decrypt(stored, first);
    expect(Buffer.compare(stored, plain)).toBe(0);
  });

  test('PBKDF2: RFC 6070 and RFC 7914', async () => {
    const derive = (hash: 'sha1' | 'sha256', password: string, iterations: number, length: number) =>
      crypto.pbkdf2({ hash, password: utf8(password), salt: utf8('salt'), iterations, length }).then(hexOf);
    expect(await derive('sha1', 'password', 1, 20)).toBe('0c60c80f961f0e71f3a9b524af6012062fe037a6');
    expect(await derive('sha1', 'password', 4096, 20)).toBe('4b007901b765489abead49d926f721d065a429c1');
    expect(await derive('sha256', 'passwd', 1, 64)).toBe(
      '55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc' +
        '49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783',
    );
  });

  test('PBKDF2 without WebCrypto’s hashes, and with nothing as the password', async () => {
    const request = { hash: 'sha224', password: utf8(''), salt: utf8('salt'), iterations: 3, length: 40 } as const;
    expect(hexOf(await crypto.pbkdf2(request))).toBe(hexOf(await nodeCrypto().pbkdf2(request)));
  });

  test.each(['md5', 'ripemd160', 'sha1', 'sha256', 'sha512'] as const)('keys are split and merged, by %s', (hash) => {
    const key = randomBytes(64);
    const material = split({ crypto, hash }, key, 40, (target) => target.set(randomBytes(target.length)));
    expect(hexOf(merge({ crypto, hash }, material, 64))).toBe(hexOf(key));
    // Every stripe is needed.
    material[5] = (material[5] ?? 0) ^ 1;
    expect(hexOf(merge({ crypto, hash }, material, 64))).not.toBe(hexOf(key));
  });

  test('what begins sectors: plain, plain64, essiv', () => {
    const key = hex('00112233445566778899aabbccddeeff');
    const sector = 2 ** 33 + 5;
    expect(hexOf(ivGenerator(crypto, { name: 'plain', hash: undefined }, key)(sector, 1))).toBe(`05${'0'.repeat(30)}`);
    expect(hexOf(ivGenerator(crypto, { name: 'plain64', hash: undefined }, key)(sector, 2))).toBe(
      `0500000002${'0'.repeat(22)}0600000002${'0'.repeat(22)}`,
    );
    const salted = createCipheriv('aes-256-ecb', crypto.digest('sha256', key), null).setAutoPadding(false);
    expect(hexOf(ivGenerator(crypto, { name: 'essiv', hash: 'sha256' }, key)(sector, 1))).toBe(
      salted.update(iv(sector)).toString('hex'),
    );
  });
});

test('both providers do the same', async () => {
  const [node, portable] = [nodeCrypto(), portableCrypto];
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom('xts-plain64', 'cbc-essiv:sha256', 'cbc-essiv:md5', 'cbc-plain', 'ctr-plain64', 'ecb-plain64'),
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      fc.integer({ min: 1, max: 4 }),
      fc.nat(2 ** 50),
      async (mode, key, sectors, first) => {
        const plain = randomBytes(sectors * 512);
        const stored = (await cipher(node, mode, key)).encrypt(plain, first);
        expect(hexOf((await cipher(portable, mode, key)).encrypt(plain, first))).toBe(hexOf(stored));
      },
    ),
    { numRuns: 25 },
  );
});

test('a host without ciphers of its own gets those in JavaScript', async () => {
  expect(await cryptoOf(new SimHost())).toBe(portableCrypto);
  expect(await cryptoOf(Object.assign(new SimHost(), { crypto: nodeCrypto }))).not.toBe(portableCrypto);
});
