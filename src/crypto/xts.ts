/**
 * XTS (IEEE 1619) over many sectors: tweaks of all sectors come from one call of the block cipher, and all blocks go through
 * another. A context of the system's XTS for each sector would take several times as long.
 */
import type { BlockCipher } from '../core/host-crypto.ts';
import { AES_BLOCK, CHUNK, type IvGenerator, SECTOR, type SectorCipher, wordsOf } from './sector-cipher.ts';

/** Of the field that tweaks are multiplied in: what comes in at the low end for a bit lost at the high one. */
const FEEDBACK = 0x87;
const BLOCKS = SECTOR / AES_BLOCK;

export interface XtsParts {
  readonly data: BlockCipher;
  readonly tweak: BlockCipher;
  readonly ivs: IvGenerator;
}

export function xts({ data, tweak, ivs }: XtsParts): SectorCipher {
  const tweaks = new Uint32Array(CHUNK / 4);
  const input = new Uint8Array(CHUNK);
  const run = (work: BlockCipher['encrypt'], source: Uint8Array, target: Uint8Array, sector: number) => {
    for (let done = 0; done < source.length; done += CHUNK) {
      const length = Math.min(CHUNK, source.length - done);
      const count = length / SECTOR;
      expandTweaks(wordsOf(tweak.encrypt(ivs(sector + done / SECTOR, count))), count, tweaks);
      const part = input.subarray(0, length);
      part.set(source.subarray(done, done + length));
      xor(wordsOf(part), tweaks);
      const words = wordsOf(work(part));
      xor(words, tweaks);
      target.set(new Uint8Array(words.buffer, words.byteOffset, length), done);
    }
  };
  return {
    encrypt(plain, sector) {
      const result = new Uint8Array(plain.length);
      run(data.encrypt, plain, result, sector);
      return result;
    },
    decrypt: (bytes, sector) => run(data.decrypt, bytes, bytes, sector),
  };
}

/** Each block's tweak is twice the one before, in little-endian words. */
function expandTweaks(first: Uint32Array, count: number, tweaks: Uint32Array): void {
  let at = 0;
  for (let sector = 0; sector < count; sector++) {
    let a = first[sector * 4] ?? 0;
    let b = first[sector * 4 + 1] ?? 0;
    let c = first[sector * 4 + 2] ?? 0;
    let d = first[sector * 4 + 3] ?? 0;
    for (let block = 0; block < BLOCKS; block++) {
      tweaks[at++] = a;
      tweaks[at++] = b;
      tweaks[at++] = c;
      tweaks[at++] = d;
      const lost = d >>> 31;
      d = (d << 1) | (c >>> 31);
      c = (c << 1) | (b >>> 31);
      b = (b << 1) | (a >>> 31);
      a = (a << 1) ^ (lost * FEEDBACK);
    }
  }
}

function xor(words: Uint32Array, tweaks: Uint32Array): void {
  for (let i = 0; i < words.length; i++) words[i] = (words[i] ?? 0) ^ (tweaks[i] ?? 0);
}
