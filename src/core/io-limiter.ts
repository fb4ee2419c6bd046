/** I/O limits as the core sees them: what a member of a throttle group is to a disk (BL-MISC-2). */
import type { RequestEvent } from './events.ts';

/** Whatever changes the disk counts as a write: zero writes and discards too, with the length of their range. */
export type LimitedKind = 'read' | 'write';

/** Per second: bytes (`bps`) and requests (`iops`). 0: no limit. */
export type IoLimits = {
  readonly [K in `${'bps' | 'iops'}-${'total' | 'read' | 'write'}`]: { readonly average: number };
};

/** What makes the requests of a device wait: a member of a throttle group. */
export interface IoLimiter {
  /** Whose limits they are. */
  readonly group: { readonly name: string; readonly limits: IoLimits };
  /** Asks to pass with a request of `bytes`. Undefined: now; else resolves when it may. Requests of a kind pass in order. */
  wait(kind: LimitedKind, bytes: number): Promise<void> | undefined;
  /** Whether a request may pass now; one that then does is to be told to {@link count}. */
  mayPass(kind: LimitedKind): boolean;
  /** Counts a request that passed without asking. */
  count(kind: LimitedKind, bytes: number): void;
  /** Lets what waits pass at once, and what comes until as many calls of {@link enable}; it counts all the same. */
  disable(): void;
  enable(): void;
  /** What waits passes at once, and what comes is not limited. Further calls do nothing. */
  leave(): void;
}

/** What limits count a request as; others pass. */
const LIMITED: Partial<Record<RequestEvent['kind'], LimitedKind>> = {
  read: 'read',
  write: 'write',
  zero: 'write',
  discard: 'write',
};

/** The requests of one user, as far as limits hold them back. */
export class LimitedRequests {
  limiter: IoLimiter | undefined;
  /** Each resolves when its request has begun. */
  readonly #held = new Set<Promise<unknown>>();

  /** Begins a request, at once or when its turn comes. Resolves when it has ended. */
  run(kind: RequestEvent['kind'], bytes: number, begin: () => Promise<void>): Promise<void> {
    const limited = LIMITED[kind];
    const turn = limited && this.limiter?.wait(limited, bytes);
    return turn === undefined ? begin() : this.#hold(turn, begin);
  }

  async #hold(turn: Promise<void>, begin: () => Promise<void>): Promise<void> {
    const begun = turn.then(() => ({ end: begin() }));
    this.#held.add(begun);
    try {
      const { end } = await begun;
      await end;
    } finally {
      this.#held.delete(begun);
    }
  }

  get areHeld(): boolean {
    return this.#held.size > 0;
  }

  /** Lets begin what waits, whatever the limits. */
  async letPass(): Promise<void> {
    this.limiter?.disable();
    await Promise.allSettled(this.#held);
    this.limiter?.enable();
  }
}
