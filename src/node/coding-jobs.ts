/** Jobs of coding in memory that threads share: a ring, from which whoever is free takes the next one. */
import type { Coder, Coding } from './coders.ts';

/** Places in the ring; a power of two. */
const PLACES = 1024;
/** Numbers of a job: coding, address and length of its source, address of its target and room there; its cost, then its result. */
const NUMBERS = 6;
/** States of a place; above these it is the number of who took the job. */
export const PlaceState = { free: 0, done: 1, waiting: 2 } as const;
export const FIRST_TAKER = 3;

export interface SharedJobs {
  /** Jobs that were put in and taken out so far, both modulo 2^32; threads that sleep; whether the owner waits for a job to be done. */
  readonly control: Int32Array;
  readonly states: Int32Array;
  readonly numbers: Float64Array;
}

function newSharedJobs(): SharedJobs {
  return {
    control: new Int32Array(new SharedArrayBuffer(4 * 4)),
    states: new Int32Array(new SharedArrayBuffer(PLACES * 4)),
    numbers: new Float64Array(new SharedArrayBuffer(PLACES * NUMBERS * 8)),
  };
}

/** The side of those who do jobs. */
export interface JobTaker {
  /** Takes the next job, unless it costs more: its place, or -1. */
  take(mostCost: number): number;
  /** Does a job that was taken. */
  run(place: number): void;
  /** Does jobs until there was none for `idleMs` milliseconds. `tell` is called when the owner waits. */
  runAll(idleMs: number, tell: () => void): void;
}

/** Uses nothing from outside but what it is given: its text is part of a thread's program. */
export function takerOf(
  { control, states, numbers }: SharedJobs,
  taker: number,
  coderOf: (coding: Coding) => Coder,
): JobTaker {
  // Read one by one: destructuring takes longer than all else that is done about a job.
  const number = (place: number, which: number) => numbers[place * 6 + which] ?? 0;
  const take = (mostCost: number): number => {
    for (;;) {
      const taken = Atomics.load(control, 1);
      if (((Atomics.load(control, 0) - taken) | 0) <= 0) return -1;
      const place = taken & (states.length - 1);
      if (number(place, 5) > mostCost) return -1;
      if (Atomics.compareExchange(control, 1, taken, (taken + 1) | 0) !== taken) continue;
      Atomics.store(states, place, taker);
      return place;
    }
  };
  const run = (place: number): void => {
    const code = coderOf(number(place, 0) as Coding);
    numbers[place * 6 + 5] = code(number(place, 1), number(place, 2), number(place, 3), number(place, 4));
    Atomics.store(states, place, 1);
  };
  const runAll = (idleMs: number, tell: () => void): void => {
    for (;;) {
      const put = Atomics.load(control, 0);
      const place = take(Number.POSITIVE_INFINITY);
      if (place >= 0) {
        run(place);
        if (Atomics.exchange(control, 3, 0) === 1) tell();
        continue;
      }
      Atomics.add(control, 2, 1);
      const outcome = Atomics.wait(control, 0, put, idleMs);
      Atomics.sub(control, 2, 1);
      if (outcome === 'timed-out') return;
    }
  };
  return { take, run, runAll };
}

/** The side of the thread that all jobs are of. */
export class JobOwner {
  readonly shared = newSharedJobs();

  /** Puts a job in: its place, or -1, if there is none. */
  put(job: readonly [coding: Coding, ...Parameters<Coder>, cost: number]): number {
    const { control, states, numbers } = this.shared;
    const put = Atomics.load(control, 0);
    const place = put & (PLACES - 1);
    if (Atomics.load(states, place) !== PlaceState.free) return -1;
    for (let i = 0; i < NUMBERS; i++) numbers[place * NUMBERS + i] = job[i] ?? 0;
    Atomics.store(states, place, PlaceState.waiting);
    Atomics.store(control, 0, (put + 1) | 0);
    if (Atomics.load(control, 2) > 0) Atomics.notify(control, 0, 1);
    return place;
  }

  /** Jobs that nobody has taken. */
  get waiting(): number {
    const { control } = this.shared;
    return (Atomics.load(control, 0) - Atomics.load(control, 1)) | 0;
  }

  /** One of {@link PlaceState}, or who took the job. */
  stateOf(place: number): number {
    return Atomics.load(this.shared.states, place);
  }

  /** The result of a job that is done, whose place is free then. */
  end(place: number): number {
    const { states, numbers } = this.shared;
    const result = numbers[place * NUMBERS + 5] ?? -1;
    Atomics.store(states, place, PlaceState.free);
    return result;
  }

  /** Whoever does a job from now on tells of it, once. */
  wait(): void {
    Atomics.store(this.shared.control, 3, 1);
  }
}
