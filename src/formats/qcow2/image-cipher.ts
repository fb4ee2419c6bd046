/** Encryption of guest data (Q-CRYPT-1), as reads and writes see it. */

import type { HostCrypto } from '../../core/host-crypto.ts';
import { cbc } from '../../crypto/cbc.ts';
import { ivGenerator } from '../../crypto/iv.ts';
import { AES_BLOCK, SECTOR, type SectorCipher } from '../../crypto/sector-cipher.ts';

/** Lengths and offsets are multiples of 512; `host` is in the file that holds the data. */
export interface ImageCipher {
  /** In memory of its own. */
  encrypt(plain: Uint8Array, host: number, guest: number): Uint8Array;
  /** In place. */
  decrypt(bytes: Uint8Array, host: number, guest: number): void;
  /** What is stored at `from`, as it must be stored at `to`. */
  moved(stored: Uint8Array, from: number, to: number): Uint8Array;
}

/** LUKS: by where data are stored. */
export function luksCipher(sectors: SectorCipher): ImageCipher {
  return {
    encrypt: (plain, host) => sectors.encrypt(plain, host / SECTOR),
    decrypt: (bytes, host) => sectors.decrypt(bytes, host / SECTOR),
    moved(stored, from, to) {
      sectors.decrypt(stored, from / SECTOR);
      return sectors.encrypt(stored, to / SECTOR);
    },
  };
}

/** Legacy AES (Q-CRYPT-5): by where the guest sees data, with the passphrase itself as the key. */
export function aesCipher(crypto: HostCrypto, passphrase: Uint8Array): ImageCipher {
  const key = new Uint8Array(AES_BLOCK);
  key.set(passphrase.subarray(0, AES_BLOCK));
  const sectors = cbc(crypto.aes(key), ivGenerator(crypto, { name: 'plain64', hash: undefined }, key));
  return {
    encrypt: (plain, _host, guest) => sectors.encrypt(plain, guest / SECTOR),
    decrypt: (bytes, _host, guest) => sectors.decrypt(bytes, guest / SECTOR),
    moved: (stored) => stored,
  };
}
