import { expect, test } from 'vitest';
import { Slots } from './slots.ts';

test('so many calls run at a time, in the order asked, also past failures', async () => {
  const slots = new Slots(2);
  const begun: number[] = [];
  const ends: ((error?: Error) => void)[] = [];
  const calls = [0, 1, 2, 3].map((index) =>
    slots.run(() => {
      begun.push(index);
      return new Promise<number>((resolve, reject) => {
        ends[index] = (error) => (error === undefined ? resolve(index) : reject(error));
      });
    }),
  );
  expect(begun).toEqual([0, 1]);
  ends[1]?.(new Error('failed'));
  await expect(calls[1]).rejects.toThrow('failed');
  expect(begun).toEqual([0, 1, 2]);
  ends[0]?.();
  expect(await calls[0]).toBe(0);
  expect(begun).toEqual([0, 1, 2, 3]);
  for (const end of ends) end();
  expect(await Promise.all([calls[2], calls[3], slots.run(async () => 4)])).toEqual([2, 3, 4]);
});
