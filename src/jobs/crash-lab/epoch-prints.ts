/** Tells equal crash states from different ones, by what they change of the start state: no state is read for it. */
import { isZero } from '../../bytes/zero.ts';
import { contentPrints, type Print } from './content-print.ts';
import type { Change } from './crash-log.ts';
import { type Kept, keptRanges } from './outcomes.ts';

type Reader = (offset: number, target: Uint8Array) => Promise<unknown>;

export interface EpochSource {
  /** The epoch's number, for what content does not tell. */
  readonly epoch: number;
  readonly changes: readonly Change[];
  /** Bytes that are told apart: all offsets and lengths are multiples. */
  readonly grain: number;
  readonly atomic: number;
  /** The disk as it was when the epoch began. */
  readonly before: Reader;
  readonly log: Reader;
}

/** Cells of the writes of one epoch that are looked into; an epoch of more is told apart by what was lost of it. */
const CELLS_MAX = 1 << 20;
/** A discard of more is told apart by whether it was done, where nothing is written. */
const DISCARD_CELLS_MAX = 1 << 14;
/** Data are looked at in pieces of this many bytes. */
const PIECE = 1 << 20;

/** Prints of all that one epoch's changes put where. */
export class EpochPrints {
  readonly #source: EpochSource;
  /** Cells that writes touch, in ascending order. */
  readonly #cells: Float64Array;
  readonly #before: Uint32Array;
  /** For each write, the prints of its cells. */
  readonly #written: readonly (Uint32Array | undefined)[];
  readonly #zero: Uint32Array;

  private constructor(
    source: EpochSource,
    parts: { cells: Float64Array; before: Uint32Array; written: (Uint32Array | undefined)[] },
  ) {
    this.#source = source;
    this.#cells = parts.cells;
    this.#before = parts.before;
    this.#written = parts.written;
    this.#zero = contentPrints(new Uint8Array(source.grain), source.grain);
  }

  /** Undefined for an epoch that is too large to look into. */
  static async load(source: EpochSource, signal: AbortSignal | undefined): Promise<EpochPrints | undefined> {
    const { changes, grain } = source;
    const cellsOf = (change: Change) => (isLarge(change, grain) ? 0 : change.length / grain);
    if (changes.reduce((sum, change) => sum + cellsOf(change), 0) > CELLS_MAX) return undefined;
    const touched = new Set<number>();
    const small = changes.filter((change) => !isLarge(change, grain));
    for (const { offset, length } of small) {
      for (let cell = offset / grain; cell < (offset + length) / grain; cell++) touched.add(cell);
    }
    const cells = Float64Array.from(touched).sort();
    const written: (Uint32Array | undefined)[] = [];
    for (const { kind, length, dataAt } of changes) {
      signal?.throwIfAborted();
      written.push(kind === 'write' ? await printsOf(source.log, dataAt, length, grain) : undefined);
    }
    const before = new Uint32Array(cells.length * 2);
    for (let i = 0; i < cells.length; ) {
      let run = 1;
      while (cells[i + run] === (cells[i] ?? 0) + run && run * grain < PIECE) run++;
      before.set(await printsOf(source.before, (cells[i] ?? 0) * grain, run * grain, grain), i * 2);
      i += run;
    }
    return new EpochPrints(source, { cells, before, written });
  }

  /** Takes the print from the epoch's start to a state within it: what is kept of its first changes. */
  apply(print: Print, kept: readonly Kept[]): void {
    const { changes, grain, atomic, epoch } = this.#source;
    const now = new Uint32Array(this.#before);
    for (const [i, kind] of kept.entries()) {
      const change = changes[i];
      if (change === undefined || kind === false) continue;
      const prints = this.#written[i];
      if (prints === undefined) {
        this.#zeroCells(now, change);
        // Outside of what is written, its content is not looked at: it stands for itself.
        if (isLarge(change, grain)) print.toggle(-1 - epoch, change.entry, 0);
        continue;
      }
      for (const { start, end } of keptRanges(change, kind, atomic)) {
        const from = ((start - change.offset) / grain) * 2;
        now.set(prints.subarray(from, from + ((end - start) / grain) * 2), this.#indexOf(start / grain) * 2);
      }
    }
    for (let i = 0; i < now.length; i += 2) {
      const [a = 0, b = 0] = [now[i], now[i + 1]];
      const [oldA = 0, oldB = 0] = [this.#before[i], this.#before[i + 1]];
      if (a === oldA && b === oldB) continue;
      const cell = this.#cells[i / 2] ?? 0;
      print.toggle(cell, oldA, oldB);
      print.toggle(cell, a, b);
    }
  }

  #zeroCells(now: Uint32Array, { offset, length }: Change): void {
    const end = this.#indexOf((offset + length) / this.#source.grain);
    for (let i = this.#indexOf(offset / this.#source.grain); i < end; i++) now.set(this.#zero, i * 2);
  }

  /** The place of a cell among those that are touched, or of the next one. */
  #indexOf(cell: number): number {
    let low = 0;
    let high = this.#cells.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#cells[middle] ?? 0) >= cell) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

function isLarge({ kind, length }: Change, grain: number): boolean {
  return kind === 'discard' && length / grain > DISCARD_CELLS_MAX;
}

async function printsOf(read: Reader, offset: number, length: number, grain: number): Promise<Uint32Array> {
  const prints = new Uint32Array((length / grain) * 2);
  const step = Math.max(grain, PIECE);
  for (let done = 0; done < length; done += step) {
    const bytes = new Uint8Array(Math.min(step, length - done));
    await read(offset + done, bytes);
    const zero = isZero(bytes, 0, bytes.length) ? contentPrints(new Uint8Array(grain), grain) : undefined;
    const part = zero ? repeated(zero, bytes.length / grain) : contentPrints(bytes, grain);
    prints.set(part, (done / grain) * 2);
  }
  return prints;
}

function repeated(pair: Uint32Array, count: number): Uint32Array {
  const all = new Uint32Array(count * 2);
  for (let i = 0; i < all.length; i += 2) all.set(pair, i);
  return all;
}
