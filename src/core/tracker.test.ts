import { describe, expect, test } from 'vitest';
import { RequestTracker } from './tracker.ts';

describe('RequestTracker', () => {
  test('a change waits for an earlier one that it overlaps; reads wait for none, and none for them (N-73)', () => {
    const tracker = new RequestTracker();
    tracker.begin(0, 4096, false);
    const first = tracker.begin(0, 4096, true);
    const wait = [first, tracker.begin(4095, 10, true), tracker.begin(4105, 10, true), tracker.begin(0, 4096, false)];
    expect(wait.map((each) => tracker.mustWait(each))).toEqual([false, true, false, false]);
    tracker.end(first);
    expect(wait.map((each) => tracker.mustWait(each))).toEqual([false, false, false, false]);
  });

  test('while one is suspended, later changes overtake it, but for a serialising one (BD-31)', async () => {
    const tracker = new RequestTracker();
    const [first, aligned, other] = [0, 0, 8192].map((at) => tracker.begin(at, 4096, true));
    if (first === undefined || aligned === undefined || other === undefined) throw new Error('they are there');
    tracker.serialise(other, 8192, 12288);
    const late = tracker.begin(8192, 10, true);
    const waiting = tracker.wait(aligned);
    tracker.loosen();
    await waiting;
    expect([tracker.mustWait(aligned), tracker.mustWait(late)]).toEqual([false, true]);
    tracker.tighten();
    expect(tracker.mustWait(aligned)).toBe(true);
  });

  test('a serialising request waits for earlier overlapping ones, and later ones wait for it', async () => {
    const tracker = new RequestTracker();
    const first = tracker.begin(0, 4096, false);
    const second = tracker.begin(4000, 10, true);
    tracker.serialise(second, 3584, 4608);
    const third = tracker.begin(4600, 1, false);
    const apart = tracker.begin(4608, 1, false);
    expect([first, second, third, apart].map((each) => tracker.mustWait(each))).toEqual([false, true, true, false]);
    const order: string[] = [];
    const secondDone = tracker.wait(second).then(() => order.push('second'));
    const thirdDone = tracker.wait(third).then(() => order.push('third'));
    tracker.end(first);
    await secondDone;
    expect(order).toEqual(['second']);
    tracker.end(second);
    await thirdDone;
    expect(order).toEqual(['second', 'third']);
  });

  test('an immediate read is refused only beside a change, an immediate write beside anything', () => {
    const tracker = new RequestTracker();
    const reading = tracker.begin(100, 10, false);
    expect(tracker.overlaps(105, 1, false)).toBe(false);
    expect(tracker.overlaps(105, 1, true)).toBe(true);
    expect(tracker.overlaps(110, 1, true)).toBe(false);
    tracker.end(reading);
    tracker.begin(100, 10, true);
    expect(tracker.overlaps(99, 2, false)).toBe(true);
  });

  test('is idle again when all have ended, in whatever order', async () => {
    const tracker = new RequestTracker();
    const requests = [tracker.begin(0, 1, true), tracker.begin(1, 1, true), tracker.begin(2, 1, true)];
    let idle = false;
    const waiting = tracker.whenIdle().then(() => {
      idle = true;
    });
    for (const each of [requests[1], requests[0], requests[2]]) {
      expect(idle).toBe(false);
      if (each) tracker.end(each);
    }
    await waiting;
    expect(tracker.idle).toBe(true);
  });
});
