import { describe, expect, test } from 'vitest';
import { newBits, setBit } from './bits.ts';
import { releasedRuns, Slots } from './slots.ts';

function slots(capacity: number, ...taken: number[]): Slots {
  const bits = newBits(capacity);
  for (const slot of taken) setBit(bits, slot);
  return new Slots(capacity, bits, taken.length, Math.max(0, ...taken.map((slot) => slot + 1)));
}

describe('taking slots', () => {
  test('V-22: takes gaps first, lowest first, then new ones, and no more than there can be', () => {
    const it = slots(6, 1, 3);
    expect(it.available).toBe(4);
    expect([it.takeAny(), it.takeAny(), it.takeAny(), it.takeAny(), it.takeAny()]).toEqual([0, 2, 4, 5, -1]);
    expect([it.free, it.end, it.available]).toEqual([0, 6, 0]);
  });

  test('takes a certain one if it is free or the next', () => {
    const it = slots(6, 1);
    expect([it.take(0), it.take(0), it.take(1), it.take(3), it.take(2), it.take(3)]).toEqual([
      true,
      false,
      false,
      false,
      true,
      true,
    ]);
    expect([it.free, it.end]).toEqual([0, 4]);
  });

  test('below a limit takes gaps only', () => {
    const it = slots(8, 2, 5);
    expect([it.takeFreeBelow(3), it.takeFreeBelow(3), it.takeFreeBelow(3)]).toEqual([0, 1, -1]);
    expect(it.takeFreeBelow(8)).toBe(3);
  });

  test('from a slot on leaves gaps before it, and may go past the number of blocks', () => {
    const it = slots(3, 0, 2);
    expect([it.takeFrom(2), it.takeFrom(6), it.takeFrom(2)]).toEqual([3, 6, 4]);
    // 1 and 5 are free.
    expect([it.free, it.end]).toEqual([2, 7]);
    expect([it.takeAny(), it.takeAny(), it.takeAny()]).toEqual([1, 5, 7]);
  });
});

test('those in use are all below the end but free and pending ones', () => {
  const slots = new Slots(8, new Uint32Array([0b10101]), 3, 5);
  expect(slots.used).toBe(3);
  slots.release(2);
  slots.take(1);
  slots.takeAny();
  expect([slots.used, slots.end, slots.free, slots.pending]).toEqual([4, 5, 0, 1]);
  slots.giveBack(4);
  expect([slots.used, slots.end]).toEqual([3, 4]);
});

describe('giving slots up', () => {
  test('V-26: one that was never named is free at once, and the end comes back', () => {
    const it = slots(8, 0);
    const [a, b] = [it.takeAny(), it.takeAny()];
    it.giveBack(a);
    expect([it.end, it.free]).toEqual([3, 1]);
    it.giveBack(b);
    expect([it.end, it.free]).toEqual([1, 0]);
  });

  test('V-27: one that was named is not free before it is settled', () => {
    const it = slots(3, 0, 1, 2);
    it.release(1);
    expect([it.pending, it.available, it.takeAny()]).toEqual([1, 0, -1]);
    const released = it.takeReleased();
    expect(it.takeReleased()).toBeUndefined();
    expect(it.takeAny()).toBe(-1);
    if (released !== undefined) it.settle(released);
    expect([it.pending, it.available, it.takeAny()]).toEqual([0, 1, 1]);
  });

  test('what is released while others are on their way is not settled with them', () => {
    const it = slots(5, 0, 1, 2, 3, 4);
    it.release(0);
    const first = it.takeReleased();
    it.release(2);
    if (first !== undefined) it.settle(first);
    expect([it.pending, it.takeAny(), it.takeAny()]).toEqual([1, 0, -1]);
  });

  test('what could not be made durable joins what was released since', () => {
    const it = slots(70, ...Array.from({ length: 70 }, (_, i) => i));
    it.release(1);
    it.release(2);
    const failed = it.takeReleased();
    it.release(65);
    if (failed !== undefined) it.putBack(failed);
    const all = it.takeReleased();
    expect(all?.count).toBe(3);
    expect(all && [...releasedRuns(all)]).toEqual([
      { slot: 1, count: 2 },
      { slot: 65, count: 1 },
    ]);
    if (all !== undefined) it.settle(all);
    expect([it.pending, it.free, it.end]).toEqual([0, 3, 70]);
  });

  test('V-65: settled slots at the end are no longer before it', () => {
    const it = slots(6, 0, 1, 2, 3);
    for (const slot of [3, 1, 2]) it.release(slot);
    const released = it.takeReleased();
    if (released !== undefined) it.settle(released);
    expect([it.end, it.free, it.takeAny()]).toEqual([1, 0, 1]);
  });
});
