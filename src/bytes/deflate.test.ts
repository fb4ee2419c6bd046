import { constants, deflateRawSync, inflateRawSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { differsAt } from '../testing/compare-bytes.ts';
import { operationData } from '../testing/disk-operations.ts';
import { deflateRaw } from './deflate.ts';
import { inflateRaw } from './inflate.ts';

/** Words, as programs and texts have them: many short matches, some far away. */
function words(length: number, seed: number): Uint8Array {
  const noise = operationData(seed, length);
  const bytes = new Uint8Array(length);
  for (let at = 0, i = 0; at < length; i++) {
    const word = ((noise[i % length] ?? 0) % 23) + 3;
    for (let k = 0; k < word && at < length; k++) bytes[at++] = 97 + ((word * 7 + k * k) % 26);
    bytes[at++] = (noise[(i * 3) % length] ?? 0) % 60;
  }
  return bytes;
}

function compressed(source: Uint8Array): Uint8Array {
  const target = new Uint8Array(source.length + 1000);
  return target.subarray(0, deflateRaw(source, target));
}

/** In pieces of 64 bytes a reader keeps no more than its window. */
function withWindow(stream: Uint8Array, windowBits: number): Uint8Array {
  return inflateRawSync(stream, { windowBits, chunkSize: 64, finishFlush: constants.Z_SYNC_FLUSH });
}

describe('deflateRaw', () => {
  test('any bytes come back, by our reader and by zlib', () => {
    const piece = fc.oneof(
      fc.uint8Array({ maxLength: 300 }),
      fc.tuple(fc.nat(255), fc.nat(5000)).map(([byte, length]) => new Uint8Array(length).fill(byte)),
      fc.tuple(fc.nat(3000), fc.nat(1000)).map(([length, seed]) => words(length, seed + 1)),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 6 }), (pieces) => {
        const source = new Uint8Array(Buffer.concat(pieces));
        const stream = compressed(source);
        expect(differsAt(withWindow(stream, 12), source)).toBe(-1);
        const again = new Uint8Array(source.length);
        expect(inflateRaw(stream, again)).toBe(true);
        expect(differsAt(again, source)).toBe(-1);
      }),
      { numRuns: 150 },
    );
  });

  test('blocks that are long, and ones that are stored', () => {
    for (const source of [words(300_000, 3), operationData(4, 200_000), new Uint8Array(2 << 20)]) {
      const stream = compressed(source);
      expect(differsAt(withWindow(stream, 12), source)).toBe(-1);
      expect(stream.length).toBeLessThan(source.length + 100);
    }
  });

  test('Q-MAP-6: no distance is longer than 4096 bytes', () => {
    const once = operationData(9, 5000);
    const source = new Uint8Array(Buffer.concat([once, once, once.subarray(0, 4000), once.subarray(0, 4000)]));
    expect(differsAt(withWindow(compressed(source), 12), source)).toBe(-1);
    // What has longer ones is told apart by this.
    expect(() => withWindow(deflateRawSync(source), 12)).toThrow('invalid distance');
  });

  test("as small as zlib's, within a percent", () => {
    for (const [length, seed] of [
      [65536, 1],
      [65536, 2],
      [4096, 3],
    ] as const) {
      const source = words(length, seed);
      const theirs = deflateRawSync(source, { windowBits: 12, memLevel: 9 }).length;
      expect(compressed(source).length).toBeLessThan(theirs * 1.01);
    }
  });

  test('what does not fit is -1, and nothing is written behind the end', () => {
    const source = operationData(5, 5000);
    const memory = new Uint8Array(6000).fill(7);
    expect(deflateRaw(source, memory.subarray(0, 4999))).toBe(-1);
    expect(memory.subarray(4999).every((byte) => byte === 7)).toBe(true);
    const exact = deflateRaw(words(5000, 6), new Uint8Array(5000));
    expect(deflateRaw(words(5000, 6), new Uint8Array(exact))).toBe(exact);
    expect(deflateRaw(words(5000, 6), new Uint8Array(exact - 1))).toBe(-1);
  });
});
