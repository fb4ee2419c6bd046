/** Virtual time: it moves only when nothing else can run, straight to the next event. */
import type { HostClock } from '../core/host.ts';

interface Sleeper {
  readonly at: number;
  /** Time does not go on for it. */
  readonly resting: boolean;
  wake(): void;
}

/** A macrotask: every promise that can settle at the present time does so before it runs. */
const whenIdle: (callback: () => void) => unknown =
  typeof globalThis.setImmediate === 'function'
    ? (callback) => globalThis.setImmediate(callback)
    : (callback) => globalThis.setTimeout(callback, 0);

export class SimClock implements HostClock {
  #now = 0;
  readonly #wallStart: number;
  /** Latest first; of equal times the one that came first is nearest the end, which wakes next. */
  readonly #sleepers: Sleeper[] = [];
  #scheduled = false;
  /** Sleepers that time goes on for. */
  #waited = 0;

  /** `wallStart`: milliseconds since 1970 at virtual time 0. */
  constructor(wallStart = Date.UTC(2024, 0, 1)) {
    this.#wallStart = wallStart;
  }

  now(): number {
    return this.#now;
  }

  wall(): number {
    return this.#wallStart + Math.floor(this.#now);
  }

  sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
    return this.#sleep(milliseconds, signal, false);
  }

  rest(milliseconds: number, signal?: AbortSignal): Promise<void> {
    return this.#sleep(milliseconds, signal, true);
  }

  #sleep(milliseconds: number, signal: AbortSignal | undefined, resting: boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const onAbort = () => {
        const index = this.#sleepers.indexOf(sleeper);
        if (index >= 0) this.#remove(index);
        reject(signal?.reason);
      };
      const sleeper: Sleeper = {
        at: this.#now + Math.max(0, milliseconds),
        resting,
        wake() {
          signal?.removeEventListener('abort', onAbort);
          resolve();
        },
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#insert(sleeper);
    });
  }

  #insert(sleeper: Sleeper): void {
    let index = this.#sleepers.length;
    while (index > 0 && (this.#sleepers[index - 1]?.at ?? 0) <= sleeper.at) index--;
    this.#sleepers.splice(index, 0, sleeper);
    if (!sleeper.resting) this.#waited++;
    this.#schedule();
  }

  #remove(index: number): Sleeper | undefined {
    const [sleeper] = this.#sleepers.splice(index, 1);
    if (sleeper?.resting === false) this.#waited--;
    return sleeper;
  }

  #schedule(): void {
    if (this.#scheduled || this.#waited === 0) return;
    this.#scheduled = true;
    whenIdle(() => {
      this.#scheduled = false;
      const next = this.#waited === 0 ? undefined : this.#remove(this.#sleepers.length - 1);
      if (next !== undefined) {
        this.#now = Math.max(this.#now, next.at);
        next.wake();
      }
      this.#schedule();
    });
  }
}
