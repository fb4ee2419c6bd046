import { describe, expect, test } from 'vitest';
import { clearBit, findBit, hasBit, newBits, setBit } from './bits.ts';

describe('bits', () => {
  test('are set, told and cleared one by one', () => {
    const bits = newBits(70);
    for (const index of [0, 31, 32, 63, 69]) setBit(bits, index);
    expect(Array.from({ length: 70 }, (_, i) => i).filter((i) => hasBit(bits, i))).toEqual([0, 31, 32, 63, 69]);
    clearBit(bits, 31);
    clearBit(bits, 30);
    expect(hasBit(bits, 31)).toBe(false);
    expect(hasBit(bits, 32)).toBe(true);
  });

  test('beyond the end are not set', () => {
    expect(hasBit(newBits(1), 1000)).toBe(false);
  });
});

describe('findBit', () => {
  const bits = newBits(100);
  for (const index of [3, 4, 31, 32, 64, 99]) setBit(bits, index);

  test('agrees with a look at each', () => {
    for (let from = 0; from <= 100; from++) {
      for (const end of [from, from + 1, 33, 65, 99, 100]) {
        for (const wanted of [true, false]) {
          let expected = -1;
          for (let i = from; i < end && expected < 0; i++) if (hasBit(bits, i) === wanted) expected = i;
          expect(findBit(bits, wanted, from, end), `${wanted} from ${from} to ${end}`).toBe(expected);
        }
      }
    }
  });

  test('finds unset bits behind the last word', () => {
    expect(findBit(newBits(32).fill(0xffffffff), false, 0, 100)).toBe(32);
  });
});
