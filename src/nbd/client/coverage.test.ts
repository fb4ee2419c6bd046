import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Coverage } from './coverage.ts';

test('chunks in any order cover a range once, as a plain array says (N-133, N-134)', () => {
  const range = fc.tuple(fc.nat(40), fc.integer({ min: 1, max: 12 }));
  fc.assert(
    fc.property(fc.array(range, { maxLength: 30 }), (ranges) => {
      const coverage = new Coverage();
      const model = new Uint8Array(64);
      for (const [start, length] of ranges) {
        const free = model.subarray(start, start + length).every((byte) => byte === 0);
        // A range that is refused ends the connection; what is covered then does not matter.
        if (!free) {
          expect(coverage.add(start, start + length)).toBe(false);
          return;
        }
        model.fill(1, start, start + length);
        expect(coverage.add(start, start + length)).toBe(true);
        expect(coverage.covered).toBe(model.reduce((sum, byte) => sum + byte, 0));
      }
    }),
  );
});

test('so many splinters are no answer (N-134)', () => {
  const coverage = new Coverage();
  let taken = 0;
  while (coverage.add(2 * taken, 2 * taken + 1)) taken++;
  expect(taken).toBe(16384);
  coverage.clear();
  expect(coverage.covered).toBe(0);
  expect(coverage.add(0, 10)).toBe(true);
});
