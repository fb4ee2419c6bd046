import { expect, test } from 'vitest';
import { BufferPool } from './buffer-pool.ts';

test('no more buffers are out than were allowed, and waiting is served in order', async () => {
  const pool = new BufferPool(2, 16);
  const [first, second] = [await pool.take(), await pool.take()];
  expect(first).not.toBe(second);
  const served: string[] = [];
  const third = pool.take().then((buffer) => {
    served.push('third');
    return buffer;
  });
  const fourth = pool.take().then((buffer) => {
    served.push('fourth');
    return buffer;
  });
  await Promise.resolve();
  expect(served).toEqual([]);
  pool.give(second);
  pool.give(first);
  expect([await third, await fourth]).toEqual([second, first]);
  expect(served).toEqual(['third', 'fourth']);
});

test('a buffer that came back is used again', async () => {
  const pool = new BufferPool(3, 16);
  const buffer = await pool.take();
  pool.give(buffer);
  expect(await pool.take()).toBe(buffer);
});
