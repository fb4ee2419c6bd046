/** Ciphers and hashes, as a host offers them: the ground that encrypted images stand on. */

/** Bytes of their digests, for the hashes that every host has. */
export const DIGEST_BYTES = {
  md5: 16,
  ripemd160: 20,
  sha1: 20,
  sha224: 28,
  sha256: 32,
  sha384: 48,
  sha512: 64,
} as const;
/** A hash that LUKS volumes use. */
export type HashName = keyof typeof DIGEST_BYTES;

/** A cipher with one key, on blocks of 16 bytes each by itself (ECB); other modes are made of it, many sectors in one call. */
export interface BlockCipher {
  /** `bytes`: whole blocks. The result is memory of its own, not changed by later calls. */
  encrypt(bytes: Uint8Array): Uint8Array;
  decrypt(bytes: Uint8Array): Uint8Array;
}

/** Ciphers and hashes of the host, which are faster than JavaScript's. */
export interface HostCrypto {
  /** `key`: 16, 24 or 32 bytes. */
  aes(key: Uint8Array): BlockCipher;
  digest(hash: HashName, bytes: Uint8Array): Uint8Array;
  /** PBKDF2-HMAC (RFC 8018), off the event loop where the host can. `iterations`: 1 to 2^31-1; `length`: bytes wanted. */
  pbkdf2(request: Pbkdf2Request): Promise<Uint8Array>;
}

/** A key to be derived from a password. `iterations`: 1 to 2^31-1; `length`: bytes wanted. */
export interface Pbkdf2Request {
  readonly hash: HashName;
  readonly password: Uint8Array;
  readonly salt: Uint8Array;
  readonly iterations: number;
  readonly length: number;
  /** What it is aborted by, where the host can end such work; others let its caller go. */
  readonly signal?: AbortSignal;
}
