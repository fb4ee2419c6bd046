import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { StatusWindow } from './status-window.ts';

describe('what is kept of status (N-133)', () => {
  test('only while a job runs, and never from one to the next', () => {
    const window = new StatusWindow();
    window.keep(0, [100, 3], window.age);
    expect(window.find(0)).toBeUndefined();
    const release = window.hold();
    expect(window.open).toBe(true);
    window.keep(1000, [100, 3, 50, 0], window.age);
    expect([window.find(999), window.find(1000), window.find(1099), window.find(1100), window.find(1150)]).toEqual([
      undefined,
      { length: 100, flags: 3 },
      { length: 1, flags: 3 },
      { length: 50, flags: 0 },
      undefined,
    ]);
    // Another job may not be told what was before it.
    const other = window.hold();
    expect(window.find(1000)).toBeUndefined();
    window.keep(0, [10, 1], window.age);
    release();
    release();
    expect(window.open).toBe(true);
    other();
    expect(window.open).toBe(false);
    expect(window.find(0)).toBeUndefined();
  });

  test('what was asked for before a write is not kept', () => {
    const window = new StatusWindow();
    window.hold();
    const { age } = window;
    window.touch(5000, 1);
    window.keep(0, [100, 3], age);
    expect(window.find(0)).toBeUndefined();
  });

  test('of what own writes touch nothing is told, and what is told is true', () => {
    const extents = fc.array(fc.tuple(fc.integer({ min: 1, max: 9 }), fc.nat(3)), { minLength: 1, maxLength: 12 });
    const writes = fc.array(fc.tuple(fc.nat(70), fc.integer({ min: 1, max: 9 })), { maxLength: 6 });
    fc.assert(
      fc.property(fc.nat(10), extents, writes, (start, runs, touched) => {
        const window = new StatusWindow();
        window.hold();
        window.keep(start, runs.flat(), window.age);
        const model: (number | undefined)[] = new Array<undefined>(start).fill(undefined);
        for (const [length, flags] of runs) for (let at = 0; at < length; at++) model.push(flags);
        const dirty = new Set<number>();
        for (const [offset, length] of touched) {
          window.touch(offset, length);
          for (let at = offset; at < offset + length; at++) dirty.add(at);
        }
        for (let at = 0; at < 90; at++) {
          const found = window.find(at);
          if (found === undefined) continue;
          for (let index = at; index < at + found.length; index++) {
            expect(dirty.has(index)).toBe(false);
            expect(model[index]).toBe(found.flags);
          }
        }
        if (touched.length === 0) expect(window.find(start)?.flags).toBe(runs[0]?.[1]);
      }),
    );
  });
});
