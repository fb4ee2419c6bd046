/** A limit on bytes per second. */
import type { HostClock } from '../core/host.ts';

export interface RateLimit {
  /** Resolves when `bytes` more may go; at most one caller need wait at a time. */
  take(bytes: number): Promise<void>;
}

/** Lets bursts of up to a tenth of a second through, then keeps to `bytesPerSecond` on average. */
export function rateLimit(bytesPerSecond: number, clock: HostClock, signal: AbortSignal | undefined): RateLimit {
  const burst = 100;
  /** When all that was let through so far is paid for, in the clock's milliseconds. */
  let paid = clock.now();
  return {
    async take(bytes) {
      const now = clock.now();
      const start = Math.max(paid, now - burst);
      paid = start + (bytes / bytesPerSecond) * 1000;
      if (start > now) await clock.sleep(start - now, signal);
    },
  };
}
