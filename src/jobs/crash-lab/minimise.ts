/** Cuts a failing state down to the fewest losses that fail: delta debugging (Zeller and Hildebrandt's ddmin), and all small sets. */
import { type Kept, simplified } from './outcomes.ts';

export interface Minimised<T> {
  readonly kept: readonly Kept[];
  /** What the failing of exactly this said; undefined: of the state that was given. */
  readonly failure: T | undefined;
  /** Nothing of it can be left out. False: the tries were used up. */
  readonly minimal: boolean;
  readonly tries: number;
}

/** Up to so many losses, each is tried alone, and each two of them. */
const ALONE_MAX = 64;
const PAIRS_MAX = 12;

/**
 * `fails` runs the check on other losses at the same moment: a value if it fails, undefined if it passes. Losses are
 * only given back, never added. `limit`: tries at most.
 */
export async function minimise<T>(
  failing: readonly Kept[],
  fails: (kept: readonly Kept[]) => Promise<T | undefined>,
  limit: number,
): Promise<Minimised<T>> {
  const search = new Search(failing, fails, limit);
  const minimal = await search.run();
  return { kept: search.best, failure: search.failure, minimal, tries: search.tries };
}

class Search<T> {
  best: readonly Kept[];
  failure: T | undefined;
  tries = 0;
  readonly #fails: (kept: readonly Kept[]) => Promise<T | undefined>;
  readonly #limit: number;
  readonly #known = new Map<string, boolean>();

  constructor(failing: readonly Kept[], fails: (kept: readonly Kept[]) => Promise<T | undefined>, limit: number) {
    this.best = failing;
    this.#fails = fails;
    this.#limit = limit;
  }

  /** False when the tries were used up. */
  async run(): Promise<boolean> {
    const lost = this.best.flatMap((kept, i) => (kept === true ? [] : [i]));
    const given = this.best;
    const losing = (set: readonly number[]) => given.map((kept, i) => (set.includes(i) ? kept : true));
    const test = (set: readonly number[]) => this.#test(losing(set));
    if (lost.length === 0 || (await test([]))) return true;
    if (lost.length <= ALONE_MAX) for (const i of lost) if (await test([i])) return this.#shrinkTorn();
    const few = await this.#ddmin(lost, test);
    if (few.length > ALONE_MAX) return false;
    if (few.length > 2 && few.length <= PAIRS_MAX) {
      for (const [i, first] of few.entries()) {
        for (const second of few.slice(i + 1)) if (await test([first, second])) return this.#shrinkTorn();
      }
    }
    return this.#shrinkTorn();
  }

  /** Of torn changes, as little is lost as it takes. */
  async #shrinkTorn(): Promise<boolean> {
    for (const [i, kept] of this.best.entries()) {
      if (typeof kept === 'boolean') continue;
      const lost = [...kept.keys()].filter((unit) => kept[unit] === 0);
      await this.#ddmin(lost, (set) => {
        const mask = new Uint8Array(kept.length).fill(1);
        for (const unit of set) mask[unit] = 0;
        return this.#test(this.best.map((other, at) => (at === i ? simplified(mask) : other)));
      });
    }
    return this.tries < this.#limit;
  }

  /** A set of which no part can be left out, and which `test` is true for. */
  async #ddmin(all: readonly number[], test: (set: readonly number[]) => Promise<boolean>): Promise<readonly number[]> {
    let set = all;
    let parts = 2;
    while (set.length > 1 && this.tries < this.#limit) {
      const size = Math.ceil(set.length / parts);
      let smaller: readonly number[] | undefined;
      for (let at = 0; at < set.length && smaller === undefined; at += size) {
        const part = set.slice(at, at + size);
        const rest = [...set.slice(0, at), ...set.slice(at + size)];
        if (await test(part)) {
          smaller = part;
          parts = 2;
        } else if (parts > 2 && (await test(rest))) {
          smaller = rest;
          parts = Math.max(2, parts - 1);
        }
      }
      if (smaller !== undefined) set = smaller;
      else if (parts >= set.length) break;
      else parts = Math.min(set.length, parts * 2);
    }
    return set;
  }

  /** Whether such a state fails; what was tried is not tried again. */
  async #test(kept: readonly Kept[]): Promise<boolean> {
    const key = kept
      .flatMap((each, i) => (each === true ? [] : [`${i}:${each === false ? '' : each.join('')}`]))
      .join();
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    if (this.tries >= this.#limit) return false;
    this.tries++;
    const failure = await this.#fails(kept);
    this.#known.set(key, failure !== undefined);
    if (failure !== undefined) {
      this.best = kept;
      this.failure = failure;
    }
    return failure !== undefined;
  }
}
