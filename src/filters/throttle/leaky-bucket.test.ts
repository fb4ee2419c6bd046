import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type BucketLimits, delay, emptyBucket, leak, pour } from './leaky-bucket.ts';

/** Milliseconds at which `count` requests of `units` each pass that all come at time 0. */
function passTimes(limits: BucketLimits, count: number, units = 1): number[] {
  const bucket = emptyBucket(0);
  const times: number[] = [];
  for (let now = 0; times.length < count; ) {
    leak(bucket, limits, now);
    const wait = delay(bucket, limits);
    now += wait;
    if (wait > 0) continue;
    times.push(Math.round(now));
    pour(bucket, limits, units);
  }
  return times;
}

// Times that qemu-io 7.2 shows for requests issued together.
describe('leaky bucket: requests that come together pass when they do in QEMU', () => {
  test.each<[string, Partial<BucketLimits>, number, number[]]>([
    ['10 per second', { average: 10 }, 1, [0, 0, 100, 200, 300, 400]],
    ['5 per second', { average: 5 }, 1, [0, 100, 300, 500, 700]],
    ['15 per second', { average: 15 }, 1, [0, 0, 33, 100, 167, 233]],
    ['10 per second, each counted twice', { average: 10 }, 2, [0, 100, 300, 500, 700]],
    ['10 per second, each counted one and a half times', { average: 10 }, 1.5, [0, 50, 200, 350]],
    ['10240 bytes, larger than the bucket', { average: 10240 }, 4096, [0, 300, 700]],
    ['10240 bytes, as large as a second', { average: 10240 }, 10240, [0, 900, 1900]],
    ['10240 bytes, four times a second', { average: 10240 }, 40960, [0, 3900]],
    ['10240 bytes, small ones', { average: 10240 }, 512, [0, 0, 0, 50, 100, 150]],
    ['burst over two seconds', { average: 10, max: 20, maxLength: 2 }, 1, [0, 0, 0, 50, 100, 150]],
    ['burst over two seconds, odd', { average: 10, max: 15, maxLength: 2 }, 1, [0, 0, 33, 100, 167]],
  ])('%s', (_name, given, units, expected) => {
    expect(passTimes({ max: 0, maxLength: 1, average: 1, ...given }, expected.length, units)).toEqual(expected);
  });

  test('max is what may pass at once, with a burst length of one second', () => {
    const times = passTimes({ average: 10, max: 20, maxLength: 1 }, 24);
    expect(times.filter((time) => time === 0)).toHaveLength(21);
    expect(times.slice(-3)).toEqual([100, 200, 300]);
  });

  test('a long burst runs at max until max times its length is full, then at the average', () => {
    const times = passTimes({ average: 10, max: 20, maxLength: 2 }, 100);
    const full = times.findIndex((time, index) => index > 3 && time - (times[index - 1] ?? 0) > 60);
    // 3 at once, then 20 a second: 40 above what leaked out after 3.8 s; qemu-io shows the same.
    expect(times.slice(full - 2, full + 2)).toEqual([3750, 3800, 3900, 4000]);
    expect(times.slice(full + 1).every((time, index) => time - (times[full + index] ?? 0) === 100)).toBe(true);
  });
});

describe('leaky bucket', () => {
  test('an average of 0 is no limit, whatever was poured in', () => {
    const bucket = emptyBucket(0);
    const limits = { average: 0, max: 0, maxLength: 1 };
    pour(bucket, limits, 1e15);
    expect(delay(bucket, limits)).toBe(0);
    expect(bucket.level).toBe(0);
  });

  test('a clock that stands still or goes back leaks nothing', () => {
    const limits = { average: 10, max: 0, maxLength: 1 };
    const bucket = emptyBucket(1000);
    pour(bucket, limits, 5);
    leak(bucket, limits, 1000);
    leak(bucket, limits, 0);
    expect(bucket.level).toBe(5);
  });

  test('a wait too short to be measured is none, so that no timer is set for it', () => {
    const limits = { average: 3, max: 0, maxLength: 1 };
    const bucket = { level: 0.3 + 1e-9, burstLevel: 0, at: 0 };
    expect(delay(bucket, limits)).toBe(0);
  });

  test('over any time, no more passes than the capacity, the leak and one request', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1000 }),
        fc.integer({ min: 0, max: 3 }),
        fc.integer({ min: 1, max: 4 }),
        fc.array(fc.record({ units: fc.integer({ min: 1, max: 500 }), pause: fc.integer({ min: 0, max: 300 }) }), {
          minLength: 1,
          maxLength: 40,
        }),
        (average, factor, length, requests) => {
          const max = average * factor;
          const limits = { average, max, maxLength: max === 0 ? 1 : length };
          const capacity = max === 0 ? average / 10 : max * limits.maxLength;
          const bucket = emptyBucket(0);
          let now = 0;
          let passed = 0;
          for (const { units, pause } of requests) {
            now += pause;
            leak(bucket, limits, now);
            for (let wait = delay(bucket, limits); wait > 0; wait = delay(bucket, limits)) {
              now += wait;
              leak(bucket, limits, now);
            }
            // Before the request: it alone may go over.
            expect(passed).toBeLessThanOrEqual(capacity + (average * now) / 1000 + 0.01 * average);
            if (limits.maxLength > 1) expect(passed).toBeLessThanOrEqual(max / 10 + (max * now) / 1000 + 0.01 * max);
            pour(bucket, limits, units);
            passed += units;
          }
        },
      ),
    );
  });
});
