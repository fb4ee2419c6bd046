/**
 * Decides when a synchronous write into the page cache is worth trying. Such a write takes microseconds, but when much
 * is dirty the kernel makes writers wait for the disk, which would stop the event loop. So each one is measured, and
 * after a slow one none is tried for a while: at worst one stall of a few milliseconds in each pause.
 */

const SLOW_MS = 2;
const PAUSE_MS = 100;

export class WriteGuard {
  readonly #now: () => number;
  #pausedUntil = Number.NEGATIVE_INFINITY;

  constructor(now: () => number) {
    this.#now = now;
  }

  /** The start time of an attempt, or -1: not now. */
  start(): number {
    const now = this.#now();
    return now < this.#pausedUntil ? -1 : now;
  }

  /** Tells how an attempt went, by its start time. */
  done(start: number): void {
    const now = this.#now();
    if (now - start > SLOW_MS) this.#pausedUntil = now + PAUSE_MS;
  }
}
