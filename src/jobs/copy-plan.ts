/** The order of work of a copy: pieces to copy and pieces to zero, planned one at a time as they are asked for. */
import type { Source, SourcePart, SourceRun } from './source.ts';
import { chunkEnd } from './zero-runs.ts';

/** Longest read and write, bytes. Pieces end at multiples of it. */
export const CHUNK = 2 * 1024 * 1024;
/** Zeroes need no buffer and go in larger pieces, small enough to stop between them. */
export const ZERO_CHUNK = 1024 * 1024 * 1024;
/** So many runs are counted beforehand for an even progress; with more, all bytes count alike. */
const COUNTED_RUNS = 100_000;

export interface Piece {
  readonly part: SourcePart;
  readonly offset: number;
  readonly length: number;
  readonly zero: boolean;
}

export interface PlanOptions {
  /** Ranges that status tells to be zero need no reading. */
  readonly trustZero: boolean;
  /** They need no writing either. */
  readonly skipZero: boolean;
  /** From this byte on they never do. */
  readonly zeroFrom: number;
}

export class CopyPlan {
  readonly #source: Source;
  readonly #options: PlanOptions;
  #offset = 0;
  #run: SourceRun | undefined;
  #planning: Promise<unknown> = Promise.resolve();
  /** Runs that {@link total} asked for, in ascending order: they are not asked for again. */
  #counted: SourceRun[] = [];
  #nextCounted = 0;
  /** Planned, but not done. */
  #returned: readonly Piece[] = [];

  constructor(source: Source, options: PlanOptions) {
    this.#source = source;
    this.#options = options;
  }

  /** The next piece in ascending order; undefined at the end. May be called again before it resolves. */
  next(): Promise<Piece | undefined> {
    const planned = this.#planning.then(async () => {
      for (;;) {
        const now = this.nextNow();
        if (now !== 'unknown') return now;
        this.#run = await this.#source.run(this.#offset);
      }
    });
    this.#planning = planned.catch(() => {});
    return planned;
  }

  /** Pieces that come again, before all others: those planned last. */
  putBack(pieces: readonly Piece[]): void {
    this.#returned = [...pieces, ...this.#returned];
  }

  /** The same at once, while no {@link next} is under way: `unknown` where the status must be waited for. */
  nextNow(): Piece | undefined | 'unknown' {
    if (this.#returned.length > 0) {
      const [returned, ...others] = this.#returned;
      this.#returned = others;
      return returned;
    }
    const { trustZero, skipZero, zeroFrom } = this.#options;
    while (this.#offset < this.#source.length) {
      const offset = this.#offset;
      // Asked once a run: finding its end can cost as much as its length.
      let run = this.#run;
      if (run === undefined || offset >= run.end) {
        run = this.#countedAt(offset) ?? this.#source.tryRunNow(offset);
        if (run === undefined) return 'unknown';
        this.#run = run;
      }
      const { part, absent } = run;
      const end = run.zero && offset < zeroFrom ? Math.min(run.end, zeroFrom) : run.end;
      const zero = run.zero && trustZero;
      if ((zero && skipZero) || absent || (run.zero && offset >= zeroFrom)) {
        this.#offset = end;
        continue;
      }
      this.#offset = zero ? Math.min(end, offset + ZERO_CHUNK) : chunkEnd(offset, end, CHUNK);
      return { part, offset, length: this.#offset - offset, zero };
    }
    return undefined;
  }

  #countedAt(offset: number): SourceRun | undefined {
    const run = this.#counted[this.#nextCounted];
    if (run?.offset !== offset) return undefined;
    this.#nextCounted++;
    return run;
  }

  /** Bytes of all pieces, asked for before the first; undefined where that cannot be told quickly. */
  total(): number | undefined {
    const counted: SourceRun[] = [];
    let total = 0;
    let offset = 0;
    for (let runs = 0; offset < this.#source.length; runs++) {
      const run = runs < COUNTED_RUNS ? this.#source.tryRunNow(offset) : undefined;
      if (run === undefined) return undefined;
      if (!(run.zero && this.#options.trustZero && this.#options.skipZero)) total += run.end - offset;
      offset = run.end;
      counted.push(run);
    }
    this.#counted = counted;
    return total;
  }
}
