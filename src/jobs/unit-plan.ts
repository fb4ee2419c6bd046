/** The order of work of a copy whose target is written in whole units, such as clusters that are compressed. */
import { alignDown, alignUp } from '../bytes/align.ts';
import { CHUNK, type Piece, type PlanOptions, ZERO_CHUNK } from './copy-plan.ts';
import type { Source, SourceRun } from './source.ts';
import { chunkEnd } from './zero-runs.ts';

/** Pieces begin at multiples of the unit, a power of two up to {@link CHUNK}, and end there or with the source. */
export class UnitPlan {
  readonly #source: Source;
  readonly #options: PlanOptions;
  readonly #unit: number;
  #offset = 0;
  #run: SourceRun | undefined;
  #planning: Promise<unknown> = Promise.resolve();

  constructor(source: Source, options: PlanOptions, unit: number) {
    this.#source = source;
    this.#options = options;
    this.#unit = unit;
  }

  /** The next piece in ascending order; undefined at the end. May be called again before it resolves. */
  next(): Promise<Piece | undefined> {
    const planned = this.#planning.then(() => this.#next());
    this.#planning = planned.catch(() => {});
    return planned;
  }

  async #next(): Promise<Piece | undefined> {
    while (this.#offset < this.#source.length) {
      const offset = this.#offset;
      const { kind, end, part } = await this.#stretch(offset);
      if (kind === 'data') {
        this.#offset = await this.#endOfData(offset, end);
        return { part, offset, length: this.#offset - offset, zero: false };
      }
      this.#offset = kind === 'left out' ? end : Math.min(end, offset + ZERO_CHUNK);
      if (kind === 'zero') return { part, offset, length: this.#offset - offset, zero: true };
    }
    return undefined;
  }

  /** Data go on as long as there are any, up to the end of a chunk. */
  async #endOfData(offset: number, known: number): Promise<number> {
    const limit = chunkEnd(offset, this.#source.length, CHUNK);
    let end = Math.min(known, limit);
    while (end < limit) {
      const next = await this.#stretch(end);
      if (next.kind !== 'data') break;
      end = Math.min(next.end, limit);
    }
    return end;
  }

  /** Units from `offset` on that are alike, as far as one run of the source tells. A unit that holds several kinds is data. */
  async #stretch(offset: number) {
    // Asked once a run: finding its end can cost as much as its length.
    this.#run =
      this.#run && this.#run.offset <= offset && offset < this.#run.end ? this.#run : await this.#source.run(offset);
    const { part, end, zero, absent } = this.#run;
    const { trustZero, skipZero, zeroFrom } = this.#options;
    const { length } = this.#source;
    const isHidden = zero && offset >= zeroFrom;
    const isLeftOut = isHidden || absent === true || (zero && trustZero && skipZero);
    if (!isLeftOut && !(zero && trustZero)) {
      return { part, end: Math.min(length, alignUp(end, this.#unit)), kind: 'data' as const };
    }
    const alike = zero && !isHidden ? Math.min(end, zeroFrom) : end;
    const whole = alike === length ? length : alignDown(alike, this.#unit);
    if (whole > offset) return { part, end: whole, kind: isLeftOut ? ('left out' as const) : ('zero' as const) };
    return { part, end: Math.min(length, offset + this.#unit), kind: 'data' as const };
  }
}
