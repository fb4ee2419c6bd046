/**
 * Decides when a synchronous write into the page cache is worth trying. Such a write takes microseconds, but when much
 * is dirty the kernel makes writers wait for the disk, which would stop the event loop. So slow ones are paid for from a
 * budget that fills up with time: none is tried while it is overdrawn. A process that only has to wait for its turn on a
 * busy machine keeps within it; one that the disk holds up does not.
 */

/** Attempts up to this long cost nothing. */
const QUICK_MS = 1;
/** What may be spent at once. */
const BUDGET_MS = 20;
/** How much of the time may be spent in the long run. */
const SHARE = 0.1;

export class WriteGuard {
  readonly #now: () => number;
  #budget = BUDGET_MS;
  /** When the budget was that much. */
  #counted = Number.NEGATIVE_INFINITY;
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
    const cost = now - start;
    if (cost <= QUICK_MS) return;
    this.#budget = Math.min(BUDGET_MS, this.#budget + (now - this.#counted) * SHARE) - cost;
    this.#counted = now;
    if (this.#budget < 0) this.#pausedUntil = now - this.#budget / SHARE;
  }
}
