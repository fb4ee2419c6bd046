/**
 * The crash lab: makes the disks that a power cut could have left at any moment of a recorded run, and has each checked.
 * What was done before the last flush is there; of what came since, each write may be there, lost or torn.
 */
import type { Disk } from '../../core/disk.ts';
import type { Progress } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import type { Graph } from '../../core/graph.ts';
import { type CrashLog, readCrashLog } from './crash-log.ts';
import { minimise } from './minimise.ts';
import type { Kept } from './outcomes.ts';
import { type LostChange, lostChanges } from './report.ts';
import { StateGraph } from './state-driver.ts';
import { type Candidate, contentOf, crashStates, planStates, type Scene } from './states.ts';

/** Options of {@link crashLab}. */
export interface CrashLabOptions {
  /** Whose drivers and host the states are opened with. */
  readonly graph: Graph;
  /** The log of the run, in the format of dm-log-writes. */
  readonly log: Disk;
  /** The disk as it was before the log's first entry; shorter than what the log reaches: it grows. */
  readonly base: Disk;
  /** Throws when a state is not acceptable. The disk is its own to write: nothing of it stays. */
  check(disk: Disk, state: CrashState): unknown;
  /** How a state is opened. Default `raw`. One that cannot be opened fails. */
  readonly format?: string | undefined;
  /** Bytes that the disk writes whole or not at all: a power of two from 512 on. Default 512. */
  readonly atomic?: number | undefined;
  /** States that are tried, at most. Default 1000. */
  readonly states?: number | undefined;
  /** Chooses among states where there are more. Default 1. */
  readonly seed?: number | undefined;
  /** Checks that run side by side. Default 1. */
  readonly jobs?: number | undefined;
  /** A check that takes longer, in milliseconds, has failed. Default: none does. */
  readonly timeoutMs?: number | undefined;
  /** Try all states, also after one failed. Default false. */
  readonly keepGoing?: boolean | undefined;
  /** Checks that are spent on cutting a failure down, at most. Default 500. */
  readonly minimiseTries?: number | undefined;
  readonly progress?: Progress | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What a check is told of the state it gets. */
export interface CrashState {
  /** From 0, in the order they are tried; undefined while a failure is cut down. */
  readonly index: number | undefined;
  /** Entries of the log before the power cut. */
  readonly cut: number;
  /** Marks of the log before it, in their order. */
  readonly marks: readonly string[];
  readonly lost: readonly LostChange[];
  /** Where the state may differ from the base, bytes; ascending. */
  changes(): { readonly offset: number; readonly length: number }[];
  /** Aborted when nobody waits for the check any more. */
  readonly signal: AbortSignal;
}

/** What a crash lab tried, and found. */
export interface CrashReport {
  readonly seed: number;
  readonly atomic: number;
  /** Entries of the log; those that change the disk; groups of these between flushes. */
  readonly entries: number;
  readonly changes: number;
  readonly epochs: number;
  /** States that were checked, up to the first that failed unless it was to go on. */
  readonly tried: number;
  /** States that were left out because an equal one was checked. */
  readonly repeated: number;
  readonly failed: number;
  /** There are no states but those that were planned. */
  readonly exhaustive: boolean;
  /** The first state that failed, cut down. */
  readonly failure?: CrashFinding;
}

/** A state that the check did not accept, cut down. */
export interface CrashFinding {
  readonly state: number;
  readonly cut: number;
  readonly marks: readonly string[];
  /** The fewest losses with which the check fails at this moment; none: it fails though nothing is lost. */
  readonly lost: readonly LostChange[];
  /** Changes since the last flush, which all might have been lost. */
  readonly unflushed: number;
  /** No loss can be left out. */
  readonly minimal: boolean;
  /** What the check threw. */
  readonly cause: unknown;
  /** The state as a raw disk, for looking into it while log and base are open. */
  open(): Promise<Disk>;
  /** Where it may differ from the base, bytes. */
  changes(): { readonly offset: number; readonly length: number }[];
}

/** Thrown by a check that could not be made at all: the lab then stops with the cause. */
export class CannotCheck extends Error {
  override readonly name = 'CannotCheck';
}

interface Failure {
  readonly cause: unknown;
}

/**
 * Tries the states and reports. Throws BlockError for a log that is damaged, the cause of a {@link CannotCheck}, the
 * signal's reason, RangeError for options out of range. One log, one base, one seed: one report, whatever `jobs` is.
 */
export async function crashLab(options: CrashLabOptions): Promise<CrashReport> {
  const lab = await Lab.open(options);
  return lab.run();
}

class Lab {
  readonly #options: CrashLabOptions;
  readonly #log: CrashLog;
  readonly #graph: StateGraph;
  readonly #seed: number;
  readonly #atomic: number;
  readonly #states: number;
  readonly #failures = new Map<number, { candidate: Candidate; failure: Failure }>();
  #firstFailure = Number.POSITIVE_INFINITY;
  #last: Candidate | undefined;

  private constructor(options: CrashLabOptions, log: CrashLog) {
    const { graph, log: logDisk, base, seed = 1, atomic = 512, states = 1000 } = options;
    this.#options = options;
    this.#log = log;
    this.#graph = new StateGraph(graph, { base, log: logDisk });
    this.#seed = seed;
    this.#atomic = atomic;
    this.#states = states;
  }

  static async open(options: CrashLabOptions): Promise<Lab> {
    const { log, atomic = 512, states = 1000, jobs = 1 } = options;
    if (!(atomic >= 512 && Number.isInteger(Math.log2(atomic)))) {
      throw new RangeError(`atomic must be a power of two from 512 on, not ${atomic}`);
    }
    for (const [name, value] of Object.entries({ states, jobs })) {
      if (!(Number.isSafeInteger(value) && value >= 1)) throw new RangeError(`${name} must be 1 or more, not ${value}`);
    }
    const source = { length: () => log.length, read: (offset: number, target: Uint8Array) => log.read(offset, target) };
    return new Lab(options, await readCrashLog(source, options.signal));
  }

  async run(): Promise<CrashReport> {
    const { log, base, jobs = 1, signal, progress, keepGoing = false } = this.#options;
    const stateOptions = { seed: this.#seed, atomic: this.#atomic, states: this.#states, signal };
    const plan = planStates(this.#log, stateOptions);
    const states = crashStates(this.#log, { base, log }, plan, stateOptions);
    const stop = new AbortController();
    const running = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]);
    let done = 0;
    let trouble: { readonly error: unknown } | undefined;
    const worker = async () => {
      while (!stop.signal.aborted) {
        if (!keepGoing && this.#firstFailure < Number.POSITIVE_INFINITY) return;
        const next = await states.next();
        if (next.done) return;
        await this.#tryCandidate(next.value, running);
        progress?.(++done, plan.total);
      }
    };
    const workers = Array.from({ length: jobs }, () =>
      worker().catch((error) => {
        trouble ??= { error };
        stop.abort();
      }),
    );
    await Promise.all(workers);
    await states.return(undefined);
    signal?.throwIfAborted();
    if (trouble !== undefined) throw trouble.error;
    return this.#report(plan.exhaustive, keepGoing);
  }

  async #tryCandidate(candidate: Candidate, signal: AbortSignal): Promise<void> {
    if (this.#last === undefined || candidate.index > this.#last.index) this.#last = candidate;
    const { index, scene, kept } = candidate;
    const failure = await this.#check(scene, kept, index, signal);
    if (failure === undefined) return;
    this.#failures.set(index, { candidate, failure });
    this.#firstFailure = Math.min(this.#firstFailure, index);
  }

  /** What the check of a state says against it. */
  async #check(
    scene: Scene,
    kept: readonly Kept[],
    index: number | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Failure | undefined> {
    const { format = 'raw', timeoutMs, graph } = this.#options;
    const over = new AbortController();
    const both = signal === undefined ? over.signal : AbortSignal.any([signal, over.signal]);
    const content = contentOf(scene, kept);
    const changes = () => content.pieces.ranges();
    const state: CrashState = { ...this.#describe(scene, kept), index, changes, signal: both };
    const work = async () => {
      const disk = await this.#graph.open(content, format);
      try {
        await this.#options.check(disk, state);
      } finally {
        // What it had still to write is of no use to anybody.
        await disk.close().catch(() => {});
      }
    };
    try {
      const late = timeoutMs === undefined ? undefined : this.#deadline(graph, timeoutMs, both);
      await (late === undefined ? work() : Promise.race([work(), late]));
      return undefined;
    } catch (cause) {
      if (cause instanceof CannotCheck) throw cause.cause;
      signal?.throwIfAborted();
      return { cause };
    } finally {
      over.abort();
    }
  }

  async #deadline(graph: Graph, milliseconds: number, signal: AbortSignal): Promise<never> {
    await graph.host.clock.sleep(milliseconds, signal);
    throw new BlockError('ETIMEDOUT', `The check did not end within ${milliseconds} ms`);
  }

  #describe({ moment, changes }: Scene, kept: readonly Kept[]) {
    const marks = this.#log.marks.slice(0, moment.marks).map(({ name }) => name);
    return { cut: moment.cut, marks, lost: lostChanges(changes, kept, this.#atomic) };
  }

  async #report(exhaustive: boolean, keepGoing: boolean): Promise<CrashReport> {
    const { entries, changes, epochs } = this.#log;
    const first = this.#failures.get(this.#firstFailure);
    const last = keepGoing || first === undefined ? this.#last : first.candidate;
    return {
      seed: this.#seed,
      atomic: this.#atomic,
      entries,
      changes: changes.length,
      epochs: epochs.filter(({ start, end }) => end > start).length,
      tried: (last?.index ?? -1) + 1,
      repeated: last?.repeated ?? 0,
      failed: keepGoing ? this.#failures.size : first === undefined ? 0 : 1,
      exhaustive,
      ...(first === undefined ? {} : { failure: await this.#finding(first.candidate, first.failure) }),
    };
  }

  async #finding({ index, scene, kept: failing }: Candidate, failure: Failure): Promise<CrashFinding> {
    const { minimiseTries = 500, signal } = this.#options;
    const fails = async (kept: readonly Kept[]) => {
      signal?.throwIfAborted();
      return this.#check(scene, kept, undefined, signal);
    };
    const { kept, failure: smaller, minimal } = await minimise(failing, fails, minimiseTries);
    return {
      state: index,
      ...this.#describe(scene, kept),
      unflushed: scene.loseable.filter(({ certain }) => !certain).length,
      minimal,
      cause: (smaller ?? failure).cause,
      open: () => this.#graph.open(contentOf(scene, kept), 'raw'),
      changes: () => contentOf(scene, kept).pieces.ranges(),
    };
  }
}
