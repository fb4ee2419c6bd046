import { describe, expect, test } from 'vitest';
import { SeededRandom } from './random.ts';

describe('SeededRandom', () => {
  test('a seed always gives the same numbers, another seed others', () => {
    const draw = (seed: number) => {
      const random = new SeededRandom(seed);
      return [random.uint32(), random.uint32(), random.uint32()];
    };
    expect(draw(1)).toEqual(draw(1));
    expect(draw(1)).not.toEqual(draw(2));
    expect(draw(2 ** 40)).not.toEqual(draw(0));
  });

  test('numbers stay in their range and reach both ends', () => {
    const random = new SeededRandom(3);
    const seen = new Set(Array.from({ length: 500 }, () => random.between(5, 9)));
    expect([...seen].sort()).toEqual([5, 6, 7, 8, 9]);
    for (let i = 0; i < 1000; i++) expect(random.below(2 ** 50)).toBeLessThan(2 ** 50);
  });

  test('bits are balanced', () => {
    const random = new SeededRandom(4);
    const bytes = new Uint8Array(1 << 16);
    random.fill(bytes);
    const counts = new Array<number>(256).fill(0);
    for (const byte of bytes) counts[byte] = (counts[byte] ?? 0) + 1;
    expect(Math.min(...counts)).toBeGreaterThan(180);
    expect(Math.max(...counts)).toBeLessThan(340);
  });

  test('draws of a fork do not shift those of its origin', () => {
    const a = new SeededRandom(5);
    const b = new SeededRandom(5);
    const fork = a.fork();
    b.fork();
    for (let i = 0; i < 10; i++) fork.uint32();
    expect(a.uint32()).toBe(b.uint32());
  });
});
