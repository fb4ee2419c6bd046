/** What begins each sector, by its number: `plain64` the number itself, `plain` its low 32 bits, `essiv` the number encrypted. */
import { BlockError } from '../core/errors.ts';
import { type BlockCipher, DIGEST_BYTES, type HashName, type HostCrypto } from '../core/host-crypto.ts';
import { AES_BLOCK, type IvGenerator } from './sector-cipher.ts';

export interface IvSpec {
  /** `plain`, `plain64` or `essiv`. */
  readonly name: string;
  /** Of `essiv`: what makes its key of the data's. */
  readonly hash: HashName | undefined;
  /** Of `essiv`: what encrypts the number. Default: AES. */
  readonly family?: CipherFamily;
}

/** A cipher of blocks of 16 bytes, with keys of 16, 24 and 32. */
export interface CipherFamily {
  /** For messages. */
  readonly name: string;
  readonly withKey: (key: Uint8Array) => BlockCipher;
}

const KEYS: readonly number[] = [16, 24, 32];

/** Throws BlockError EINVAL for a hash whose digest is no key for the cipher. */
export function ivGenerator(crypto: HostCrypto, { name, hash, family }: IvSpec, key: Uint8Array): IvGenerator {
  if (name === 'plain') return (sector, count) => numbers(sector, count, 2 ** 32);
  const plain64: IvGenerator = (sector, count) => numbers(sector, count, Number.POSITIVE_INFINITY);
  if (name !== 'essiv' || hash === undefined) return plain64;
  const size = DIGEST_BYTES[hash];
  const { name: cipher, withKey } = family ?? { name: 'AES', withKey: crypto.aes };
  if (!KEYS.includes(size)) throw new BlockError('EINVAL', `No ${cipher} cipher with key size ${size} available`);
  const salted = withKey(crypto.digest(hash, key));
  return (sector, count) => salted.encrypt(plain64(sector, count));
}

/** Little endian, zero-filled. */
function numbers(sector: number, count: number, wrap: number): Uint8Array {
  const bytes = new Uint8Array(count * AES_BLOCK);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < count; i++) {
    const number = wrap === Number.POSITIVE_INFINITY ? sector + i : (sector + i) % wrap;
    view.setUint32(i * AES_BLOCK, number >>> 0, true);
    view.setUint32(i * AES_BLOCK + 4, Math.floor(number / 2 ** 32), true);
  }
  return bytes;
}
