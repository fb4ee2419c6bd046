/** Ciphers and hashes of Node: OpenSSL's, with the processor's own instructions for AES. */
import type { BlockCipher, HostCrypto, Pbkdf2Request } from '../core/host-crypto.ts';
import { deriveApart, isLong } from './derivation.ts';

/** As `Host.crypto`. */
export function nodeCrypto(): HostCrypto {
  // Not imported, as it takes milliseconds to load.
  const crypto = process.getBuiltinModule('node:crypto');
  return {
    aes(key): BlockCipher {
      const name = `aes-${key.length * 8}-ecb`;
      // Blocks do not depend on one another, so one context serves all calls; making one takes longer than a sector.
      const encryptor = crypto.createCipheriv(name, key, null).setAutoPadding(false);
      const decryptor = crypto.createDecipheriv(name, key, null).setAutoPadding(false);
      return { encrypt: (bytes) => encryptor.update(bytes), decrypt: (bytes) => decryptor.update(bytes) };
    },
    digest: (hash, bytes) => crypto.hash(hash, bytes, 'buffer'),
    pbkdf2(request: Pbkdf2Request) {
      if (isLong(request)) return deriveApart(request);
      const { hash, password, salt, iterations, length } = request;
      return new Promise((resolve, reject) => {
        crypto.pbkdf2(password, salt, iterations, length, hash, (error, key) => {
          if (error === null) resolve(key);
          else reject(error);
        });
      });
    },
  };
}
