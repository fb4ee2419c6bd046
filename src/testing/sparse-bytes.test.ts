import { describe, expect, test } from 'vitest';
import { SeededRandom } from '../bytes/random.ts';
import { differsAt } from './compare-bytes.ts';
import { PAGE_SIZE, SparseBytes } from './sparse-bytes.ts';

function all(bytes: SparseBytes): Uint8Array {
  const target = new Uint8Array(bytes.length);
  bytes.read(0, target);
  return target;
}

describe('SparseBytes', () => {
  test('behaves like plain bytes, and copies keep what they had', () => {
    const random = new SeededRandom(11);
    for (let round = 0; round < 60; round++) {
      let plain = new Uint8Array(random.below(40_000));
      let sparse = new SparseBytes(plain.length);
      const kept: [SparseBytes, Uint8Array][] = [];
      for (let step = 0; step < 40; step++) {
        const offset = random.below(plain.length + 5000);
        const length = random.below(12_000);
        const action = random.below(6);
        const grown = () => {
          const next = new Uint8Array(Math.max(plain.length, offset + length));
          next.set(plain);
          plain = next;
        };
        if (action === 0) {
          const data = new Uint8Array(length);
          random.fill(data);
          sparse.write(offset, data);
          if (length > 0) grown();
          plain.set(data, length > 0 ? offset : 0);
        } else if (action === 1) {
          sparse.punch(offset, length);
          plain.fill(0, offset, offset + length);
        } else if (action === 2) {
          sparse.truncate(offset);
          const next = new Uint8Array(offset);
          next.set(plain.subarray(0, offset));
          plain = next;
        } else if (action === 3 && length > 0) {
          sparse.zero(offset, length);
          grown();
          plain.fill(0, offset, offset + length);
        } else if (action === 4 && length > 0) {
          sparse.allocate(offset, length);
          grown();
        } else {
          kept.push([sparse, plain.slice()]);
          sparse = sparse.clone();
        }
      }
      for (const [copy, bytes] of [...kept, [sparse, plain] as const]) expect(differsAt(all(copy), bytes)).toBe(-1);
    }
  });

  test('runs tell stored pages from holes, however long', () => {
    const bytes = new SparseBytes(2 ** 40);
    bytes.write(2 ** 30 + 10, new Uint8Array([1]));
    expect(bytes.run(0, 2 ** 40)).toEqual({ kind: 'hole', length: 2 ** 30 });
    expect(bytes.run(2 ** 30, 2 ** 40)).toEqual({ kind: 'data', length: PAGE_SIZE });
    expect(bytes.run(2 ** 30 + 100, 50)).toEqual({ kind: 'data', length: 50 });
    expect(bytes.allocated).toBe(PAGE_SIZE);
    bytes.punch(0, 2 ** 40);
    expect(bytes.allocated).toBe(0);
  });

  test('tells how much storage a write would add', () => {
    const bytes = new SparseBytes(0);
    bytes.write(PAGE_SIZE, new Uint8Array(10));
    expect(bytes.missing(0, PAGE_SIZE * 3)).toBe(PAGE_SIZE * 2);
    expect(bytes.missing(PAGE_SIZE + 100, 10)).toBe(0);
    expect(bytes.missing(5, 0)).toBe(0);
  });
});
