import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ByteQueue } from './byte-queue.ts';

test('whatever comes in whatever pieces is taken in order, as it came (N-152)', () => {
  const steps = fc.array(
    fc.record({
      act: fc.constantFrom('push', 'peek', 'piece', 'take', 'into', 'skip'),
      count: fc.integer({ min: 0, max: 12 }),
    }),
    { maxLength: 60 },
  );
  fc.assert(
    fc.property(steps, (all) => {
      const queue = new ByteQueue();
      let model: number[] = [];
      let next = 0;
      for (const { act, count } of all) {
        const first = model.length < count ? undefined : model.slice(0, count);
        const list = (bytes: Uint8Array | undefined) => (bytes === undefined ? undefined : [...bytes]);
        if (act === 'push') {
          const bytes = Uint8Array.from({ length: count }, () => next++ & 255);
          model.push(...bytes);
          queue.push(bytes);
        } else if (act === 'peek') expect(list(queue.peek(count))).toEqual(first);
        else if (act === 'piece') {
          const piece = queue.pieceOf(count);
          expect(list(piece?.subarray(queue.start, queue.start + count))).toEqual(first);
        } else if (act === 'take') {
          expect(list(queue.take(count))).toEqual(first);
          if (first !== undefined) model = model.slice(count);
        } else if (act === 'into') {
          const target = new Uint8Array(count);
          const taken = queue.takeInto(target);
          expect([...target.subarray(0, taken)]).toEqual(model.slice(0, count));
          model = model.slice(taken);
        } else {
          expect(queue.skip(count)).toBe(Math.min(count, model.length));
          model = model.slice(count);
        }
        expect(queue.length).toBe(model.length);
      }
    }),
  );
});

test('no copy is made of what lies in one piece', () => {
  const queue = new ByteQueue();
  const piece = Uint8Array.of(1, 2, 3, 4, 5, 6);
  queue.push(piece);
  expect(queue.take(2)?.buffer).toBe(piece.buffer);
  expect(queue.pieceOf(3)).toBe(piece);
  expect(queue.start).toBe(2);
  expect(queue.take(4)).toEqual(Uint8Array.of(3, 4, 5, 6));
});
