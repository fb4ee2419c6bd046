import { expect, test } from 'vitest';
import { SimHost } from '../testing/index.ts';
import { rateLimit } from './rate-limit.ts';

test('on average no more than the limit, after a short burst', async () => {
  const { clock } = new SimHost();
  const limit = rateLimit(1_000_000, clock, undefined);
  const start = clock.now();
  for (let piece = 0; piece < 100; piece++) await limit.take(100_000);
  const seconds = (clock.now() - start) / 1000;
  expect(seconds).toBeGreaterThan(9.7);
  expect(seconds).toBeLessThanOrEqual(10);
});

test('time in which nothing is written is not saved up', async () => {
  const { clock } = new SimHost();
  const limit = rateLimit(1_000_000, clock, undefined);
  await limit.take(1);
  await clock.sleep(60_000);
  const start = clock.now();
  for (let piece = 0; piece < 20; piece++) await limit.take(100_000);
  expect(clock.now() - start).toBeGreaterThan(1700);
});

test('an abort ends the waiting', async () => {
  const { clock } = new SimHost();
  const controller = new AbortController();
  const limit = rateLimit(10, clock, controller.signal);
  await limit.take(1000);
  const waiting = limit.take(1);
  controller.abort('enough');
  await expect(waiting).rejects.toBe('enough');
});
