/** CBC over many sectors. Decrypting takes one call of the block cipher; encrypting one for the blocks of each place in all sectors. */
import type { BlockCipher } from '../core/host-crypto.ts';
import { AES_BLOCK, CHUNK, type IvGenerator, SECTOR, type SectorCipher } from './sector-cipher.ts';

export function cbc(data: BlockCipher, ivs: IvGenerator): SectorCipher {
  return {
    encrypt(plain, sector) {
      const result = new Uint8Array(plain.length);
      for (let done = 0; done < plain.length; done += CHUNK) {
        const part = plain.subarray(done, done + CHUNK);
        encryptChunk(
          data,
          ivs(sector + done / SECTOR, part.length / SECTOR),
          part,
          result.subarray(done, done + CHUNK),
        );
      }
      return result;
    },
    decrypt(bytes, sector) {
      for (let done = 0; done < bytes.length; done += CHUNK) {
        const part = bytes.subarray(done, done + CHUNK);
        decryptChunk(data, ivs(sector + done / SECTOR, part.length / SECTOR), part);
      }
    },
  };
}

function encryptChunk(data: BlockCipher, ivs: Uint8Array, plain: Uint8Array, target: Uint8Array): void {
  const column = new Uint8Array(ivs.length);
  let before = ivs;
  for (let place = 0; place < SECTOR; place += AES_BLOCK) {
    for (let at = 0, from = place; at < column.length; at += AES_BLOCK, from += SECTOR) {
      for (let i = 0; i < AES_BLOCK; i++) column[at + i] = (plain[from + i] ?? 0) ^ (before[at + i] ?? 0);
    }
    before = data.encrypt(column);
    for (let at = 0, to = place; at < column.length; at += AES_BLOCK, to += SECTOR) {
      for (let i = 0; i < AES_BLOCK; i++) target[to + i] = before[at + i] ?? 0;
    }
  }
}

function decryptChunk(data: BlockCipher, ivs: Uint8Array, bytes: Uint8Array): void {
  const opened = data.decrypt(bytes);
  for (let sector = 0; sector < bytes.length; sector += SECTOR) {
    const iv = (sector / SECTOR) * AES_BLOCK;
    for (let i = 0; i < AES_BLOCK; i++) opened[sector + i] = (opened[sector + i] ?? 0) ^ (ivs[iv + i] ?? 0);
    for (let i = AES_BLOCK; i < SECTOR; i++) {
      opened[sector + i] = (opened[sector + i] ?? 0) ^ (bytes[sector + i - AES_BLOCK] ?? 0);
    }
  }
  bytes.set(opened);
}
