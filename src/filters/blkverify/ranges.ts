/** A set of bytes as ranges that do not touch, in ascending order. */
export interface Range {
  readonly start: number;
  readonly end: number;
}

/** More ranges than this are joined to larger ones, so that memory is bounded. */
const RANGES_MAX = 1 << 16;

export class Ranges {
  #ranges: Range[] = [];

  get empty(): boolean {
    return this.#ranges.length === 0;
  }

  add(start: number, end: number): void {
    if (end <= start) return;
    const [from, to] = this.#touching(start, end);
    const first = this.#ranges[from];
    const last = this.#ranges[to - 1];
    const joined =
      first === undefined || last === undefined || from === to
        ? { start, end }
        : { start: Math.min(start, first.start), end: Math.max(end, last.end) };
    this.#ranges.splice(from, to - from, joined);
    if (this.#ranges.length > RANGES_MAX) this.#coarsen();
  }

  remove(start: number, end: number): void {
    const [from, to] = this.#touching(start, end);
    const kept: Range[] = [];
    for (const range of this.#ranges.slice(from, to)) {
      if (range.start < start) kept.push({ start: range.start, end: Math.min(range.end, start) });
      if (range.end > end) kept.push({ start: Math.max(range.start, end), end: range.end });
    }
    this.#ranges.splice(from, to - from, ...kept);
  }

  /** The parts of a range that are not in the set, in ascending order. */
  gaps(start: number, end: number): Range[] {
    const gaps: Range[] = [];
    let at = start;
    const [from, to] = this.#touching(start, end);
    for (const range of this.#ranges.slice(from, to)) {
      if (range.start > at) gaps.push({ start: at, end: Math.min(range.start, end) });
      at = Math.max(at, range.end);
    }
    if (at < end) gaps.push({ start: at, end });
    return gaps;
  }

  /** Indexes of the ranges that overlap or touch the given one. */
  #touching(start: number, end: number): [number, number] {
    let low = 0;
    let high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#ranges[middle]?.end ?? 0) < start) low = middle + 1;
      else high = middle;
    }
    let to = low;
    while (to < this.#ranges.length && (this.#ranges[to]?.start ?? 0) <= end) to++;
    return [low, to];
  }

  /** Joins each two neighbours. */
  #coarsen(): void {
    const joined: Range[] = [];
    for (let i = 0; i < this.#ranges.length; i += 2) {
      const [a, b] = [this.#ranges[i], this.#ranges[i + 1]];
      if (a !== undefined) joined.push({ start: a.start, end: (b ?? a).end });
    }
    this.#ranges = joined;
  }
}
