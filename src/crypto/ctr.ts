/** Modes that nobody should choose, and old volumes have: CTR, whose sectors all begin with nearly the same counter, and ECB. */
import type { BlockCipher } from '../core/host-crypto.ts';
import { AES_BLOCK, CHUNK, type IvGenerator, SECTOR, type SectorCipher } from './sector-cipher.ts';

const BLOCKS = SECTOR / AES_BLOCK;

/** Counters are big-endian numbers of 16 bytes, from a sector's IV on. */
export function ctr(data: BlockCipher, ivs: IvGenerator): SectorCipher {
  const run = (source: Uint8Array, target: Uint8Array, sector: number) => {
    for (let done = 0; done < source.length; done += CHUNK) {
      const part = source.subarray(done, done + CHUNK);
      const stream = data.encrypt(counters(ivs(sector + done / SECTOR, part.length / SECTOR)));
      for (let i = 0; i < part.length; i++) target[done + i] = (part[i] ?? 0) ^ (stream[i] ?? 0);
    }
  };
  return {
    encrypt(plain, sector) {
      const result = new Uint8Array(plain.length);
      run(plain, result, sector);
      return result;
    },
    decrypt: (bytes, sector) => run(bytes, bytes, sector),
  };
}

function counters(ivs: Uint8Array): Uint8Array {
  const all = new Uint8Array(ivs.length * BLOCKS);
  for (let iv = 0, at = 0; iv < ivs.length; iv += AES_BLOCK) {
    const counter = ivs.slice(iv, iv + AES_BLOCK);
    for (let block = 0; block < BLOCKS; block++, at += AES_BLOCK) {
      all.set(counter, at);
      increment(counter);
    }
  }
  return all;
}

function increment(counter: Uint8Array): void {
  for (let i = counter.length - 1; i >= 0; i--) {
    counter[i] = (counter[i] ?? 0) + 1;
    if (counter[i] !== 0) return;
  }
}

/** Each block by itself, wherever it is. */
export function ecb(data: BlockCipher): SectorCipher {
  return {
    encrypt: (plain) => data.encrypt(plain),
    decrypt: (bytes) => bytes.set(data.decrypt(bytes)),
  };
}
