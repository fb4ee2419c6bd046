import { expect, test } from 'vitest';
import { WriteGuard } from './write-guard.ts';

function guarded() {
  let now = 1000;
  const guard = new WriteGuard(() => now);
  return {
    /** Whether an attempt was allowed; it then took `cost` milliseconds. */
    attempt(cost: number): boolean {
      const start = guard.start();
      if (start < 0) return false;
      now += cost;
      guard.done(start);
      return true;
    },
    pass(milliseconds: number): void {
      now += milliseconds;
    },
  };
}

test('quick writes go on for ever', () => {
  const { attempt } = guarded();
  for (let i = 0; i < 1000; i++) expect(attempt(1)).toBe(true);
});

test('a slow write now and then is no reason to stop', () => {
  const { attempt, pass } = guarded();
  for (let i = 0; i < 100; i++) {
    expect(attempt(4)).toBe(true);
    pass(40);
  }
});

test('after a write that stalls, none is tried until a tenth of the time has made up for it', () => {
  const { attempt, pass } = guarded();
  expect(attempt(50)).toBe(true);
  expect(attempt(0)).toBe(false);
  pass(299);
  expect(attempt(0)).toBe(false);
  pass(2);
  expect(attempt(0)).toBe(true);
});

test('many slow writes in a row come to a pause', () => {
  const { attempt } = guarded();
  let made = 0;
  while (attempt(4)) made++;
  expect(made).toBe(6);
});
