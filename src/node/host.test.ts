import diagnostics from 'node:diagnostics_channel';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { nodeHost } from './host.ts';

afterEach(() => {
  vi.restoreAllMocks();
});

describe('messages', () => {
  test('warnings go to standard error as they are; notices only when asked for', () => {
    const written: string[] = [];
    vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
      written.push(String(text));
      return true;
    });
    const host = nodeHost();
    host.warn('one\ntwo');
    host.notice('quiet');
    nodeHost({ verbose: true }).notice('loud');
    expect(written).toEqual(['one\ntwo\n', 'loud\n']);
  });

  test('both can be sent elsewhere', () => {
    const seen: string[] = [];
    const host = nodeHost({ warn: (text) => seen.push(`w ${text}`), notice: (text) => seen.push(`n ${text}`) });
    host.warn('a');
    host.notice('b');
    expect(seen).toEqual(['w a', 'n b']);
  });
});

describe('events', () => {
  test('are published through diagnostics_channel, and an unwatched channel is known', () => {
    const host = nodeHost();
    const seen: unknown[] = [];
    const listener = (message: unknown) => seen.push(message);
    expect(host.watched('diskwright:test')).toBe(false);
    host.publish('diskwright:test', { lost: true });
    diagnostics.subscribe('diskwright:test', listener);
    expect(host.watched('diskwright:test')).toBe(true);
    host.publish('diskwright:test', { number: 1 });
    diagnostics.unsubscribe('diskwright:test', listener);
    expect(host.watched('diskwright:test')).toBe(false);
    expect(seen).toEqual([{ number: 1 }]);
  });
});

describe('randomness', () => {
  test('fills buffers longer than one system request', () => {
    const target = new Uint8Array(200_000);
    nodeHost().random(target);
    // Each stretch of 64 zero bytes would be a miracle.
    for (let at = 0; at + 64 <= target.length; at += 64) {
      expect(target.subarray(at, at + 64).some((byte) => byte !== 0)).toBe(true);
    }
  });
});

describe('clock', () => {
  test('sleeps at least as long as asked, as its own now() tells', async () => {
    const { clock } = nodeHost();
    const { setTimeout } = globalThis;
    // Node's are up to a millisecond early.
    const early = vi.spyOn(globalThis, 'setTimeout');
    early.mockImplementation(((work: () => void, delay: number) => setTimeout(work, delay / 4)) as never);
    try {
      const start = clock.now();
      await clock.sleep(20);
      expect(clock.now() - start).toBeGreaterThanOrEqual(20);
    } finally {
      early.mockRestore();
    }
  });

  test('a sleep ends with the reason of the signal', async () => {
    const { clock } = nodeHost();
    const abort = new AbortController();
    const sleeping = clock.sleep(1e12, abort.signal);
    abort.abort(new TypeError('enough'));
    await expect(sleeping).rejects.toThrow('enough');
    await expect(clock.sleep(0, abort.signal)).rejects.toThrow('enough');
  });

  test('a sleep keeps the program running, a rest does not', async () => {
    const { clock } = nodeHost();
    const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length;
    const before = timers();
    const abort = new AbortController();
    const [sleeping, resting] = [clock.sleep(1e6, abort.signal), clock.rest?.(1e6, abort.signal)];
    expect(timers()).toBe(before + 1);
    abort.abort(new TypeError('enough'));
    await expect(sleeping).rejects.toThrow('enough');
    await expect(resting).rejects.toThrow('enough');
    await clock.rest?.(1);
  });
});
