/** Answers at once, as long as the event loop turns now and then: timers and signals must not starve. */

/** Requests up to this many bytes are tried at once before they go to the host's threads. */
export const NOW_MAX = 64 * 1024;
/** A few milliseconds of work, counted as one for each request and each 4 KiB of it. */
const NOW_CREDIT = 2048;

export class Turns {
  #credit = NOW_CREDIT;
  /** The request is under way that gives new credit. */
  #turning = false;

  /** Whether a request of `length` bytes may be answered at once. Once the credit is used up, all take the long way. */
  mayAnswerNow(length: number): boolean {
    if (this.#credit <= 0) return false;
    this.#credit -= 1 + (length >>> 12);
    return true;
  }

  /** Runs a request that goes the long way; the first that does so without credit gives new credit when it is through. */
  async run(work: () => Promise<void>): Promise<void> {
    if (this.#credit > 0 || this.#turning) return work();
    this.#turning = true;
    try {
      await work();
    } finally {
      this.#turning = false;
      this.#credit = NOW_CREDIT;
    }
  }
}
