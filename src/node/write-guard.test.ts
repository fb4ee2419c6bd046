import { expect, test } from 'vitest';
import { WriteGuard } from './write-guard.ts';

test('WriteGuard pauses for 100 ms after an attempt of more than 2 ms, and not after a quick one', () => {
  let now = 1000;
  const guard = new WriteGuard(() => now);
  const attempt = (cost: number) => {
    const start = guard.start();
    if (start < 0) return false;
    now += cost;
    guard.done(start);
    return true;
  };
  expect(attempt(2)).toBe(true);
  expect(attempt(2.1)).toBe(true);
  expect(attempt(0)).toBe(false);
  now += 99.9;
  expect(attempt(0)).toBe(false);
  now += 0.1;
  expect(attempt(0)).toBe(true);
});
