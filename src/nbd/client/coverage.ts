/** Which bytes of a read have come (N-133, N-134): chunks may come in any order, but none twice. */

/** Pieces that lie apart at a time; no server that means well makes so many. */
const PIECES_MAX = 16384;

export class Coverage {
  /** Ends of disjoint pieces in ascending order, start and end by turns; touching ones are joined. */
  readonly #ends: number[] = [];
  #covered = 0;

  get covered(): number {
    return this.#covered;
  }

  /** False: some of the range was there already, or there are too many pieces. */
  add(start: number, end: number): boolean {
    const ends = this.#ends;
    const at = this.#firstPieceEndingAtOrAfter(start);
    const [nextStart, nextEnd] = [ends[at], ends[at + 1]];
    // The piece may only touch the range with its end.
    const touchesBefore = nextEnd === start && nextStart !== undefined;
    const after = touchesBefore ? at + 2 : at;
    const afterStart = ends[after];
    if (afterStart !== undefined && afterStart < end) return false;
    const touchesAfter = afterStart === end;
    if (touchesBefore && touchesAfter) ends.splice(at + 1, 2);
    else if (touchesBefore) ends[at + 1] = end;
    else if (touchesAfter) ends[after] = start;
    else ends.splice(at, 0, start, end);
    this.#covered += end - start;
    return ends.length <= 2 * PIECES_MAX;
  }

  clear(): void {
    this.#ends.length = 0;
    this.#covered = 0;
  }

  /** Its place in the list; pieces mostly come in order, so that the last is tried first. */
  #firstPieceEndingAtOrAfter(start: number): number {
    const ends = this.#ends;
    const last = ends.at(-1);
    if (last === undefined || last < start) return ends.length;
    let low = 0;
    let high = ends.length / 2;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((ends[2 * middle + 1] ?? 0) < start) low = middle + 1;
      else high = middle;
    }
    return 2 * low;
  }
}
