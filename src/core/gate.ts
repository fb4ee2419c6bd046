/** Lets requests through together, work that moves blocks alone, and tells when the requests of a moment are over. */

/** Requests that entered between two barriers. */
export interface Ticket {
  count: number;
  /** Set when someone waits for the last of them to leave. */
  whenEmpty: (() => void) | undefined;
}

export class Gate {
  #closed = false;
  #current: Ticket = { count: 0, whenEmpty: undefined };
  /** Resolved when all earlier tickets are empty. */
  #earlier: Promise<void> = Promise.resolve();
  #waiting: (() => void)[] = [];

  get closed(): boolean {
    return this.#closed;
  }

  /** Counts a request in, while the gate is open. Each is handed back to {@link leave}. */
  enter(): Ticket {
    this.#current.count++;
    return this.#current;
  }

  async enterWhenOpen(): Promise<Ticket> {
    while (this.#closed) await this.opened();
    return this.enter();
  }

  leave(ticket: Ticket): void {
    ticket.count--;
    if (ticket.count === 0) ticket.whenEmpty?.();
  }

  /** Resolves when all requests that are inside now have left. Later ones do not hold it up. */
  barrier(): Promise<void> {
    const ticket = this.#current;
    if (ticket.count > 0) {
      const left = new Promise<void>((resolve) => {
        ticket.whenEmpty = resolve;
      });
      this.#current = { count: 0, whenEmpty: undefined };
      const earlier = this.#earlier;
      this.#earlier = earlier.then(() => left);
    }
    return this.#earlier;
  }

  /** Resolves the next time the gate opens; it may be closed again by the time one looks. */
  opened(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Holds new requests back, and resolves when those inside have left. */
  close(): Promise<void> {
    this.#closed = true;
    return this.barrier();
  }

  open(): void {
    this.#closed = false;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}

/** One after the other, in the order of asking. */
export class Mutex {
  #last: Promise<unknown> = Promise.resolve();
  #count = 0;
  readonly #leave = () => {
    this.#count--;
  };

  /** Someone has it, or waits for it. */
  get busy(): boolean {
    return this.#count > 0;
  }

  run<T>(work: () => Promise<T>): Promise<T> {
    this.#count++;
    const turn = this.#last.then(work);
    this.#last = turn.then(this.#leave, this.#leave);
    return turn;
  }
}

/** Waits for all, then throws the first failure: no piece is still under way when the request has ended. */
export async function settled(pieces: readonly Promise<unknown>[]): Promise<void> {
  for (const result of await Promise.allSettled(pieces)) if (result.status === 'rejected') throw result.reason;
}
