/** Requests of one connection that are not answered yet, and the limits on them (N-74). */

/** Past these the input is left where it is. */
const REQUESTS_MAX = 128;
const BYTES_MAX = 64 * 1024 * 1024;

export class InFlight {
  #requests = 0;
  #bytes = 0;
  #idle: (() => void)[] = [];
  readonly #ended: () => void;

  /** `ended` is called when one request has ended. */
  constructor(ended: () => void) {
    this.#ended = ended;
  }

  get requests(): number {
    return this.#requests;
  }

  /** Whether a further request with so many bytes of payload may begin; one always may when there is no other. */
  hasRoomFor(bytes: number): boolean {
    return this.#requests < REQUESTS_MAX && (this.#bytes === 0 || this.#bytes + bytes <= BYTES_MAX);
  }

  /** A payload's buffer is there before its request begins. */
  hold(bytes: number): void {
    this.#bytes += bytes;
  }

  release(bytes: number): void {
    this.#bytes -= bytes;
  }

  /** Counts `work` until it ends; it must not fail. `bytes`: of payload that it holds. */
  run(bytes: number, work: () => Promise<void>): void {
    this.#requests++;
    this.#bytes += bytes;
    void work().finally(() => {
      this.#requests--;
      this.#bytes -= bytes;
      this.#ended();
      if (this.#requests > 0) return;
      const waiting = this.#idle;
      this.#idle = [];
      for (const resolve of waiting) resolve();
    });
  }

  /** Resolves when all requests are answered. */
  async whenIdle(): Promise<void> {
    while (this.#requests > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }
}
