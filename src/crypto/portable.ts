/** Ciphers and hashes where the host brings none, as in browsers: WebCrypto where it can do it, JavaScript for the rest. */
import { ecb } from '@noble/ciphers/aes.js';
import { md5, ripemd160, sha1 } from '@noble/hashes/legacy.js';
import { pbkdf2Async } from '@noble/hashes/pbkdf2.js';
import { sha224, sha256, sha384, sha512 } from '@noble/hashes/sha2.js';
import type { HashName, HostCrypto, Pbkdf2Request } from '../core/host-crypto.ts';

const FUNCTIONS = { md5, ripemd160, sha1, sha224, sha256, sha384, sha512 } as const;

/** Names in WebCrypto, which has no others. */
const WEB_NAMES: Readonly<Partial<Record<HashName, string>>> = {
  sha1: 'SHA-1',
  sha256: 'SHA-256',
  sha384: 'SHA-384',
  sha512: 'SHA-512',
};

/** What is used of WebCrypto. */
interface SubtleDerivation {
  importKey(format: 'raw', key: Uint8Array, name: 'PBKDF2', extractable: false, uses: ['deriveBits']): Promise<object>;
  deriveBits(algorithm: object, key: object, bits: number): Promise<ArrayBuffer>;
}

export const portableCrypto: HostCrypto = {
  aes: (key) => ({
    encrypt: (bytes) => ecb(key, { disablePadding: true }).encrypt(bytes),
    decrypt: (bytes) => ecb(key, { disablePadding: true }).decrypt(bytes),
  }),
  digest: (hash, bytes) => FUNCTIONS[hash](bytes),
  pbkdf2: derive,
};

async function derive({ hash, password, salt, iterations, length }: Pbkdf2Request): Promise<Uint8Array> {
  const name = WEB_NAMES[hash];
  // Pages that did not come over a safe connection have none.
  const subtle = (globalThis.crypto as { subtle?: SubtleDerivation } | undefined)?.subtle;
  if (subtle === undefined || name === undefined) {
    return pbkdf2Async(FUNCTIONS[hash], password, salt, { c: iterations, dkLen: length });
  }
  const key = await subtle.importKey('raw', password, 'PBKDF2', false, ['deriveBits']);
  return new Uint8Array(await subtle.deriveBits({ name: 'PBKDF2', hash: name, salt, iterations }, key, length * 8));
}
