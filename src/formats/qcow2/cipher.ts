/** Encryption of guest data (Q-CRYPT-1), as reads and writes see it. */
export interface Cipher {
  /** In place. Lengths and offsets are multiples of 512; `host` is in the file that holds the data. */
  encrypt(bytes: Uint8Array, host: number, guest: number): Promise<void>;
  decrypt(bytes: Uint8Array, host: number, guest: number): Promise<void>;
}
