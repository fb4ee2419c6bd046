/**
 * Status that was told for more than was asked (N-133): kept while jobs run that may be told of the state at their beginning,
 * and never past that, since others may write.
 */

/** One run: a length in bytes, and the server's flags. */
export interface StatusRun {
  readonly length: number;
  readonly flags: number;
}

export class StatusWindow {
  #jobs = 0;
  /** Changes whenever what is being asked for may be out of date already. */
  #age = 0;
  #ends: number[] = [];
  #flags: number[] = [];
  #start = 0;
  /** Runs before this one are no longer there. */
  #first = 0;

  /** Whether a job runs for which answers are kept. */
  get open(): boolean {
    return this.#jobs > 0;
  }

  /** To be given to {@link keep}. */
  get age(): number {
    return this.#age;
  }

  /** A job begins; call what is returned when it ends. */
  hold(): () => void {
    this.#jobs++;
    this.forget();
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.#jobs--;
      this.forget();
    };
  }

  forget(): void {
    this.#age++;
    this.#ends = [];
    this.#flags = [];
    this.#first = 0;
  }

  /** What was told from `start` on, asked for at that age: lengths and flags by turns. */
  keep(start: number, extents: readonly number[], age: number): void {
    if (!this.open || age !== this.#age) return;
    this.#start = start;
    this.#ends = [];
    this.#flags = [];
    this.#first = 0;
    let end = start;
    for (let at = 0; at < extents.length; at += 2) {
      end += extents[at] ?? 0;
      this.#ends.push(end);
      this.#flags.push(extents[at + 1] ?? 0);
    }
  }

  find(offset: number): StatusRun | undefined {
    const index = this.#indexOf(offset);
    const end = this.#ends[index];
    const flags = this.#flags[index];
    return end === undefined || flags === undefined ? undefined : { length: end - offset, flags };
  }

  /** A write of ours, or what may have been one: of the two sides of it the longer one is kept. */
  touch(offset: number, length: number): void {
    this.#age++;
    const end = this.#ends.at(-1) ?? this.#start;
    if (offset >= end || offset + length <= this.#start) return;
    const [before, after] = [offset - this.#start, end - (offset + length)];
    if (before <= 0 && after <= 0) this.forget();
    else if (before > after) {
      const last = this.#indexOf(offset);
      this.#ends.length = last + 1;
      this.#flags.length = last + 1;
      this.#ends[last] = offset;
    } else {
      this.#first = this.#indexOf(offset + length);
      this.#start = offset + length;
    }
  }

  #indexOf(offset: number): number {
    const ends = this.#ends;
    if (offset < this.#start || offset >= (ends.at(-1) ?? this.#start)) return -1;
    let low = this.#first;
    let high = ends.length - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((ends[middle] ?? 0) <= offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
