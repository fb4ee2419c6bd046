/**
 * Coding of many clusters on all processors. The event loop does jobs itself, for a millisecond at a time, and starts threads
 * when there is much to do: handing one cluster over and hearing of it can take as long as decoding it.
 */
import { availableParallelism } from 'node:os';
import type { Worker } from 'node:worker_threads';
import { bindCoder, type Coder, Coding } from './coders.ts';
import { FIRST_TAKER, JobOwner, type JobTaker, PlaceState, takerOf } from './coding-jobs.ts';
import { startCodingThread } from './coding-thread.ts';
import { type Koffi, koffiFiles } from './koffi.ts';
import { monotonic } from './monotonic.ts';

/** Besides the event loop. */
const MOST_THREADS = 3;
const IDLE_MS = 10_000;
/** How long the event loop codes before it turns. */
const TURN_MS = 1;
/** Costs are in nanoseconds, about: so many for a byte that is not coded, by {@link Coding}. */
const BYTE_COSTS = [2, 18, 1, 6] as const;
/** Jobs that cost more are none for the event loop, where there can be threads. */
const LONG_JOB = 8e6;
/** A thread is started after jobs of this cost, about its own, if so many for each thread are still to be begun. */
const THREAD_COST = 40e6;
const LEFT_COST = 0.5e6;

const NOTHING = new Uint8Array(0);

/** Clusters that are coded together, and what came of each. */
interface Batch {
  readonly coding: Coding;
  readonly sources: readonly Uint8Array[];
  readonly targets: readonly Uint8Array[];
  readonly results: number[];
  left: number;
  readonly resolve: (results: readonly number[]) => void;
}

/** One of them. */
interface Job {
  readonly batch: Batch;
  readonly index: number;
  readonly cost: number;
}

export interface CodingPoolOptions {
  /** Most threads besides the event loop. Default: one less than there are processors, at most 3. */
  readonly threads?: number;
  /** Files that threads may load koffi from. */
  readonly koffiFiles?: readonly string[];
  /** How long a thread without a job lives, in milliseconds. */
  readonly idleMs?: number;
}

export class CodingPool {
  readonly #koffi: Koffi;
  readonly #owner = new JobOwner();
  readonly #self: JobTaker;
  readonly #coders: (Coder | undefined)[] = [];
  /** Jobs by their places in the ring, in the order of these. */
  readonly #jobs = new Map<number, Job>();
  /** Jobs for which there was no place. */
  readonly #outside: Job[] = [];
  readonly #threads = new Map<number, Worker>();
  readonly #options: CodingPoolOptions;
  #mostThreads: number;
  #nextTaker = FIRST_TAKER + 1;
  /** Cost of all jobs so far, and of those in the ring. */
  #spent = 0;
  #costInside = 0;
  #pumping = false;
  #held = false;

  constructor(koffi: Koffi, options: CodingPoolOptions = {}) {
    this.#koffi = koffi;
    this.#options = options;
    this.#mostThreads = options.threads ?? Math.min(MOST_THREADS, availableParallelism() - 1);
    this.#self = takerOf(this.#owner.shared, FIRST_TAKER, (coding) => this.#coder(coding));
  }

  /** Threads there are now. */
  get threads(): number {
    return this.#threads.size;
  }

  /** Whether there is a library that can do it. */
  can(coding: Coding): boolean {
    try {
      this.#coder(coding);
      return true;
    } catch {
      return false;
    }
  }

  /**
   * Codes each source into its own target; resolves with what {@link Coder} answers for each. Until then memory must stay where
   * it is, and what is in it.
   */
  run(coding: Coding, sources: readonly Uint8Array[], targets: readonly Uint8Array[]): Promise<readonly number[]> {
    if (sources.length === 0) return Promise.resolve([]);
    const encodes = coding === Coding.deflate || coding === Coding.encodeZstd;
    return new Promise((resolve) => {
      const batch = { coding, sources, targets, results: [], left: sources.length, resolve };
      for (const [index, { length }] of (encodes ? sources : targets).entries()) {
        const job = { batch, index, cost: length * BYTE_COSTS[coding] };
        this.#spent += job.cost;
        if (this.#outside.length > 0 || !this.#put(job)) this.#outside.push(job);
      }
      this.#pumpSoon();
    });
  }

  #coder(coding: Coding): Coder {
    this.#coders[coding] ??= bindCoder(this.#koffi, coding);
    return this.#coders[coding];
  }

  #put(job: Job): boolean {
    const { batch, index, cost } = job;
    const source = batch.sources[index] ?? NOTHING;
    const target = batch.targets[index] ?? NOTHING;
    const places = [this.#address(source), source.length, this.#address(target), target.length] as const;
    const place = this.#owner.put([batch.coding, ...places, cost]);
    if (place < 0) return false;
    this.#jobs.set(place, job);
    this.#costInside += cost;
    return true;
  }

  #address(bytes: Uint8Array): number {
    return Number(this.#koffi.address(bytes));
  }

  #pumpSoon(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    setImmediate(() => {
      this.#pumping = false;
      this.#pump();
    });
  }

  /** Does jobs for a while, ends those that are done, and sees to it that the others will be. */
  #pump(): void {
    const until = monotonic() + TURN_MS;
    let place: number;
    do {
      place = this.#self.take(this.#mostThreads > 0 ? LONG_JOB : Number.POSITIVE_INFINITY);
      if (place >= 0) this.#self.run(place);
    } while (place >= 0 && monotonic() < until);
    this.#collect();
    const waiting = this.#costOfWaiting();
    if (waiting > 0) this.#addThread(place < 0, waiting);
    if (place >= 0 && waiting > 0) this.#pumpSoon();
    else if (this.#jobs.size > 0) this.#waitForOne();
    this.#hold(this.#jobs.size > 0);
  }

  /** Ends the jobs that are done, and puts others in their places. */
  #collect(): void {
    for (const [place, { batch, index, cost }] of this.#jobs) {
      const state = this.#owner.stateOf(place);
      if (state === PlaceState.waiting) break;
      if (state !== PlaceState.done) continue;
      this.#jobs.delete(place);
      this.#costInside -= cost;
      batch.results[index] = this.#owner.end(place);
      if (--batch.left === 0) batch.resolve(batch.results);
    }
    while (this.#outside[0] !== undefined && this.#put(this.#outside[0])) this.#outside.shift();
  }

  /** About what the jobs cost that nobody has taken. */
  #costOfWaiting(): number {
    return this.#jobs.size === 0 ? 0 : (this.#costInside / this.#jobs.size) * this.#owner.waiting;
  }

  #waitForOne(): void {
    this.#owner.wait();
    // What was done just before was not told.
    for (const place of this.#jobs.keys()) if (this.#owner.stateOf(place) === PlaceState.done) this.#pumpSoon();
  }

  /** Starts a thread if it pays, or if the next job is too long for the event loop. */
  #addThread(tooLong: boolean, waiting: number): void {
    const { size } = this.#threads;
    if (size >= this.#mostThreads) return;
    const pays = this.#spent >= THREAD_COST && waiting >= LEFT_COST * (size + 1);
    if (!pays && !(tooLong && size === 0)) return;
    const taker = this.#nextTaker++;
    try {
      const { koffiFiles: files = koffiFiles(), idleMs = IDLE_MS } = this.#options;
      const thread = startCodingThread({
        jobs: this.#owner.shared,
        taker,
        koffiFiles: files,
        idleMs,
        told: () => this.#pump(),
        ended: (failed) => this.#lose(taker, failed),
      });
      if (this.#held) thread.ref();
      this.#threads.set(taker, thread);
    } catch {
      this.#mostThreads = size;
    }
  }

  #lose(taker: number, failed: boolean): void {
    this.#threads.delete(taker);
    if (failed) {
      this.#mostThreads = this.#threads.size;
      for (const place of this.#jobs.keys()) if (this.#owner.stateOf(place) === taker) this.#self.run(place);
    }
    if (this.#jobs.size > 0) this.#pumpSoon();
  }

  /** Whether threads keep the program running. */
  #hold(held: boolean): void {
    if (held === this.#held) return;
    this.#held = held;
    for (const thread of this.#threads.values()) {
      if (held) thread.ref();
      else thread.unref();
    }
  }
}
