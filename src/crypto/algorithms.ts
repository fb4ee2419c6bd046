/** Ciphers by the names that LUKS headers have for them, as ciphers of sectors. */
import { BlockError } from '../core/errors.ts';
import { DIGEST_BYTES, type HashName, type HostCrypto } from '../core/host-crypto.ts';
import { cbc } from './cbc.ts';
import { ctr, ecb } from './ctr.ts';
import { type CipherFamily, ivGenerator } from './iv.ts';
import type { LuksHeader } from './luks-header.ts';
import type { SectorCipher } from './sector-cipher.ts';
import { xts } from './xts.ts';

/** Ciphers that there are, and bytes of their keys. */
const CIPHERS: Readonly<Record<string, readonly number[]>> = {
  aes: [16, 24, 32],
  cast5: [16],
  serpent: [16, 24, 32],
  twofish: [16, 24, 32],
};
const MODES = ['ecb', 'cbc', 'xts', 'ctr'];
const IV_GENERATORS = ['plain', 'plain64', 'essiv'];

/** What a header says of how data are encrypted: names that are known, which does not mean that all can be used. */
export interface Algorithms {
  readonly cipher: string;
  /** Bytes of the key for data: half of that in the header for XTS, which has another for tweaks. */
  readonly cipherKeyBytes: number;
  readonly mode: string;
  readonly ivgen: string;
  readonly ivHash: string | undefined;
  readonly hash: string;
}

/** Throws BlockError EINVAL for names that nobody knows, in qemu-img's order. */
export function algorithmsOf({
  cipher,
  mode: spec,
  hash,
  keyBytes,
}: Pick<LuksHeader, 'cipher' | 'mode' | 'hash' | 'keyBytes'>): Algorithms {
  const bad = (message: string) => new BlockError('EINVAL', message);
  const match = /^([^-]*)-([^:]*)(?::(.*))?$/s.exec(spec);
  if (match === null) throw bad(`Unexpected cipher mode string format '${spec}'`);
  const [, mode = '', ivgen = '', ivHash] = match;
  if (ivHash !== undefined) usableHash(ivHash);
  if (!MODES.includes(mode)) throw bad(`Cipher mode '${mode}' not supported`);
  const cipherKeyBytes = mode === 'xts' ? Math.floor(keyBytes / 2) : keyBytes;
  const sizes = Object.hasOwn(CIPHERS, cipher) ? CIPHERS[cipher] : undefined;
  if (!sizes?.includes(cipherKeyBytes)) {
    throw bad(`Algorithm '${cipher}' with key size ${cipherKeyBytes} bytes not supported`);
  }
  usableHash(hash);
  if (!IV_GENERATORS.includes(ivgen)) throw bad(`IV generator '${ivgen}' not supported`);
  if (ivgen === 'essiv' && ivHash === undefined) throw bad('Missing IV generator hash specification');
  return { cipher, cipherKeyBytes, mode, ivgen, ivHash, hash };
}

/** Throws BlockError EINVAL for a hash that nobody knows. */
export function usableHash(hash: string): HashName {
  if (Object.hasOwn(DIGEST_BYTES, hash)) return hash as HashName;
  throw new BlockError('EINVAL', `Hash algorithm '${hash}' not supported`);
}

/**
 * The cipher with a key, which is as long as the header says. Throws BlockError ENOTSUP for what is not implemented: CAST5,
 * whose blocks are of 8 bytes.
 */
export async function sectorCipher(
  crypto: HostCrypto,
  { cipher, cipherKeyBytes, mode, ivgen, ivHash }: Algorithms,
  key: Uint8Array,
): Promise<SectorCipher> {
  const family = await FAMILIES[cipher]?.(crypto);
  if (family === undefined) {
    throw new BlockError('ENOTSUP', `Algorithm '${cipher}' with key size ${cipherKeyBytes} bytes not supported`);
  }
  const hash = ivHash === undefined ? undefined : usableHash(ivHash);
  const ivs = ivGenerator(crypto, { name: ivgen, hash, family }, key);
  const data = family.withKey(key.slice(0, cipherKeyBytes));
  if (mode === 'xts') return xts({ data, tweak: family.withKey(key.slice(cipherKeyBytes)), ivs });
  if (mode === 'cbc') return cbc(data, ivs);
  return mode === 'ctr' ? ctr(data, ivs) : ecb(data);
}

/** What nobody uses any more is loaded when it is met. */
const FAMILIES: Readonly<Record<string, (crypto: HostCrypto) => CipherFamily | Promise<CipherFamily>>> = {
  aes: (crypto) => ({ name: 'AES', withKey: crypto.aes }),
  serpent: async () => ({ name: 'Serpent', withKey: (await import('./serpent.ts')).serpent }),
  twofish: async () => ({ name: 'Twofish', withKey: (await import('./twofish.ts')).twofish }),
};
