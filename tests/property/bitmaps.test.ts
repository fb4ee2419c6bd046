/** Hierarchical bitmaps against models that are too plain to be wrong (BL-HB-1 to BL-HB-7). */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { HierarchicalBitmap } from '../../src/bitmaps/hierarchical-bitmap.ts';
import { SeededRandom } from '../../src/bytes/random.ts';
import { areas, granules } from '../support/bitmaps.ts';

/** Granules of a page. */
const LEAF = 2 ** 15;

/** A plain model: a boolean for each granule. */
class Model {
  readonly granularity: number;
  size: number;
  bits: boolean[];
  constructor(size: number, granularity: number) {
    this.granularity = granularity;
    this.size = size;
    this.bits = new Array(Math.ceil(size / granularity)).fill(false);
  }
  fill(offset: number, length: number, dirty: boolean) {
    if (length === 0) return;
    for (let i = Math.floor(offset / this.granularity); i * this.granularity < offset + length; i++)
      this.bits[i] = dirty;
  }
  truncate(size: number) {
    this.size = size;
    const count = Math.ceil(size / this.granularity);
    while (this.bits.length < count) this.bits.push(false);
    this.bits.length = count;
  }
  merge(other: Model) {
    for (const [i, dirty] of other.bits.entries()) {
      const start = i * other.granularity;
      if (dirty) this.fill(start, Math.min(other.granularity, this.size - start), true);
    }
  }
  areas(): [number, number][] {
    const found: [number, number][] = [];
    for (const [i, dirty] of this.bits.entries()) {
      if (!dirty) continue;
      const start = i * this.granularity;
      const end = Math.min(this.size, start + this.granularity);
      const last = found.at(-1);
      if (last?.[1] === start) last[1] = end;
      else found.push([start, end]);
    }
    return found;
  }
}

const share = fc.double({ min: 0, max: 1, noNaN: true });
const exponent = fc.integer({ min: 0, max: 5 });

describe('like a plain array of booleans', () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('set' as const), from: share, to: share }),
    fc.record({ kind: fc.constant('reset' as const), from: share, to: share }),
    fc.record({ kind: fc.constant('clear' as const) }),
    fc.record({ kind: fc.constant('truncate' as const), size: fc.integer({ min: 0, max: 3000 }) }),
    fc.record({
      kind: fc.constant('merge' as const),
      exponent,
      areas: fc.array(fc.tuple(share, share), { maxLength: 4 }),
    }),
    fc.record({ kind: fc.constant('reload' as const), cuts: fc.array(share, { maxLength: 4 }) }),
    fc.record({ kind: fc.constant('load' as const), from: share, bytes: fc.uint8Array({ maxLength: 40 }) }),
  );

  /** A range of whole granules, or up to the end, near the shares given. */
  function range(size: number, unit: number, from: number, to: number): [number, number] {
    const [low, high] = from < to ? [from, to] : [to, from];
    const start = Math.floor((low * size) / unit) * unit;
    const end = Math.min(size, Math.ceil((high * size) / unit) * unit);
    return [start, end - start];
  }

  function reload(bitmap: HierarchicalBitmap, cuts: readonly number[]): HierarchicalBitmap {
    const { size, granularity } = bitmap;
    const unit = granularity * 64;
    const places = [0, ...cuts.map((cut) => Math.floor((cut * size) / unit) * unit).sort((a, b) => a - b), size];
    const loaded = new HierarchicalBitmap(size, granularity);
    loaded.set(0, size);
    for (const [index, start] of places.slice(0, -1).entries()) {
      const length = (places[index + 1] ?? size) - start;
      loaded.deserialise(start, length, bitmap.serialise(start, length));
    }
    return loaded;
  }

  function check(bitmap: HierarchicalBitmap, model: Model) {
    expect(areas(bitmap)).toEqual(model.areas());
    const dirty = model.bits.flatMap((bit, index) => (bit ? [index * model.granularity] : []));
    expect(granules(bitmap)).toEqual(dirty);
    expect([bitmap.count, bitmap.empty, bitmap.size]).toEqual([
      dirty.length * model.granularity,
      dirty.length === 0,
      model.size,
    ]);
  }

  test('all operations, with merges of differing granularity and reloads in random chunks', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 3000 }),
        exponent,
        fc.array(step, { maxLength: 20 }),
        share,
        (size, power, steps, place) => {
          let bitmap = new HierarchicalBitmap(size, 2 ** power);
          const model = new Model(size, 2 ** power);
          for (const each of steps) {
            if (each.kind === 'set') {
              const [offset, length] = range(model.size, 1, each.from, each.to);
              bitmap.set(offset, length);
              model.fill(offset, length, true);
            } else if (each.kind === 'reset') {
              const [offset, length] = range(model.size, model.granularity, each.from, each.to);
              bitmap.reset(offset, length);
              model.fill(offset, length, false);
            } else if (each.kind === 'clear') {
              bitmap.clear();
              model.fill(0, model.size, false);
            } else if (each.kind === 'truncate') {
              bitmap.truncate(each.size);
              model.truncate(each.size);
            } else if (each.kind === 'merge') {
              const source = new HierarchicalBitmap(model.size, 2 ** each.exponent);
              const sourceModel = new Model(model.size, 2 ** each.exponent);
              for (const [from, to] of each.areas) {
                const [offset, length] = range(model.size, 1, from, to);
                source.set(offset, length);
                sourceModel.fill(offset, length, true);
              }
              bitmap.merge(source);
              model.merge(sourceModel);
              check(source, sourceModel);
            } else if (each.kind === 'reload') bitmap = reload(bitmap, each.cuts);
            else {
              const [offset] = range(model.size, model.granularity * 64, each.from, 1);
              const length = Math.min(model.size - offset, Math.floor(each.bytes.length / 8) * 64 * model.granularity);
              const bytes = each.bytes.subarray(0, bitmap.serialisedLength(offset, length));
              bitmap.deserialise(offset, length, bytes);
              for (let i = 0; i * model.granularity < length; i++) {
                const dirty = ((bytes[i >> 3] ?? 0) & (1 << (i & 7))) !== 0;
                model.fill(offset + i * model.granularity, 1, dirty);
              }
            }
            check(bitmap, model);
          }
          const offset = Math.floor(place * model.size);
          if (offset === model.size) return;
          const dirty = model.bits[Math.floor(offset / model.granularity)] === true;
          expect(bitmap.get(offset)).toBe(dirty);
          const others = model.bits.flatMap((bit, index) =>
            bit !== dirty && index * model.granularity > offset ? [index * model.granularity] : [],
          );
          const length = (others[0] ?? model.size) - offset;
          expect(bitmap.status(offset, model.size - offset)).toEqual({ dirty, length });
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe('like a list of runs, on huge disks', () => {
  type Runs = [number, number][];
  const MAX = 2 ** 41;

  function without(runs: Runs, start: number, end: number): Runs {
    return runs.flatMap(([from, to]): Runs => {
      const before: Runs = from < start ? [[from, Math.min(to, start)]] : [];
      const after: Runs = to > end ? [[Math.max(from, end), to]] : [];
      return [...before, ...after];
    });
  }
  function joined(runs: Runs): Runs {
    const found: Runs = [];
    for (const [from, to] of [...runs].sort((a, b) => a[0] - b[0])) {
      const last = found.at(-1);
      if (last !== undefined && from <= last[1]) last[1] = Math.max(last[1], to);
      else found.push([from, to]);
    }
    return found;
  }
  const total = (runs: Runs) => runs.reduce((sum, [from, to]) => sum + to - from, 0);

  /** Granules near the ends of words, pages and branches. */
  const place = fc
    .tuple(
      fc.constantFrom(32, LEAF, 2 ** 23, 2 ** 31, 2 ** 39, MAX),
      fc.integer({ min: 0, max: 5 }),
      fc.integer({ min: -40, max: 40 }),
    )
    .map(([unit, times, extra]) => Math.max(0, Math.min(MAX, unit * times + extra)));

  test('sets, resets, truncates and merges across the ends of pages and branches', () => {
    const step = fc.record({
      kind: fc.constantFrom('set', 'set', 'set', 'reset', 'truncate', 'merge'),
      a: place,
      b: place,
    });
    fc.assert(
      fc.property(place, fc.array(step, { maxLength: 16 }), (start, steps) => {
        let size = start;
        let runs: Runs = [];
        const bitmap = new HierarchicalBitmap(size, 1);
        for (const { kind, a, b } of steps) {
          const from = Math.min(a, b, size);
          const to = Math.min(Math.max(a, b), size);
          if (kind === 'truncate') {
            size = a;
            bitmap.truncate(size);
            runs = without(runs, size, MAX);
          } else if (kind === 'reset') {
            bitmap.reset(from, to - from);
            if (from < to) runs = without(runs, from, to);
          } else if (kind === 'set') {
            bitmap.set(from, to - from);
            if (from < to) runs = joined([...runs, [from, to]]);
          } else {
            const source = new HierarchicalBitmap(size, 1);
            source.set(from, to - from);
            if (from < to) source.set(0, 1);
            bitmap.merge(source);
            if (from < to) runs = joined([...runs, [from, to], [0, 1]]);
          }
          expect(areas(bitmap)).toEqual(runs);
          expect(bitmap.count).toBe(total(runs));
        }
        for (const at of steps.map(({ a }) => Math.min(a, size))) {
          const within = runs.find(([from, to]) => from <= at && at < to);
          const clean = within === undefined ? at : within[1];
          expect(bitmap.nextClean(at)).toBe(clean < size ? clean : -1);
        }
      }),
      { numRuns: 300 },
    );
  });

  test('merges between granularities 1 and 2^12', () => {
    const power = fc.integer({ min: 0, max: 12 });
    const area = fc.tuple(place, place);
    fc.assert(
      fc.property(power, power, fc.array(area, { maxLength: 6 }), place, (to, from, ranges, size) => {
        const source = new HierarchicalBitmap(size, 2 ** from);
        const target = new HierarchicalBitmap(size, 2 ** to);
        const expected = new HierarchicalBitmap(size, 2 ** to);
        for (const [a, b] of ranges) {
          const start = Math.min(a, b, size);
          source.set(start, Math.min(size, Math.max(a, b)) - start);
        }
        target.merge(source);
        for (const [start, end] of areas(source)) expected.set(start, end - start);
        expect(areas(target)).toEqual(areas(expected));
        expect(target.count).toBe(expected.count);
      }),
      { numRuns: 200 },
    );
  });
});

test('random content over several pages is saved and loaded in any chunks, and counted (BL-HB-7)', () => {
  const cuts = fc.array(fc.integer({ min: 0, max: 2000 }), { maxLength: 5 });
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 4 * LEAF }),
      fc.integer(),
      fc.integer({ min: 0, max: 9 }),
      cuts,
      cuts,
      (...given) => {
        const [size, seed, density, loads, saves] = given;
        const random = new SeededRandom(seed);
        const bytes = new Uint8Array(Math.ceil(size / 8));
        const whole = density === 0 ? 0 : 255;
        for (let at = 0; at < bytes.length; at++) bytes[at] = random.below(9) < density ? random.below(256) : whole;
        if (size % 8 !== 0) bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) & ((1 << (size % 8)) - 1);
        const places = (list: readonly number[]) =>
          [0, ...list.map((chunk) => Math.min(size, chunk * 64)), size].sort((a, b) => a - b);
        const bitmap = new HierarchicalBitmap(size, 1);
        eachChunk(places(loads), (from, to) => {
          bitmap.deserialise(from, to - from, bytes.subarray(Math.ceil(from / 8), Math.ceil(to / 8)));
        });
        const saved = new Uint8Array(bytes.length);
        eachChunk(places(saves), (from, to) => saved.set(bitmap.serialise(from, to - from), from / 8));
        expect(saved).toEqual(bytes);
        expect(bitmap.count).toBe(areas(bitmap).reduce((sum, [from, to]) => sum + to - from, 0));
        expect(bitmap.count).toBe(bytes.reduce((sum, byte) => sum + (byte.toString(2).match(/1/g)?.length ?? 0), 0));
      },
    ),
    { numRuns: 60 },
  );
});

function eachChunk(places: readonly number[], visit: (from: number, to: number) => void) {
  for (const [index, from] of places.slice(0, -1).entries()) {
    const to = places[index + 1] ?? from;
    if (from < to) visit(from, to);
  }
}
