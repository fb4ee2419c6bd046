/** What lies over a base disk: pieces of a log, zeroes, or bytes, each in its place. Copies share what neither changes. */

/** A run of the disk, bytes; `at`: where its first byte is in the log, or in `bytes`. */
export interface Piece {
  readonly start: number;
  readonly end: number;
  readonly kind: 'log' | 'zero' | 'bytes';
  readonly at: number;
  readonly bytes?: Uint8Array;
}

/** A part of a range that was asked for: of one piece, or of the base. */
export interface Run {
  readonly start: number;
  readonly end: number;
  readonly piece: Piece | undefined;
}

/** About so many pieces are kept in one array. */
const CHUNK = 128;

export class PieceMap {
  #chunks: Piece[][] = [];
  /** Arrays that no copy has too, and which therefore may be changed. */
  #own = new Set<Piece[]>();

  /** A copy that goes its own way. */
  fork(): PieceMap {
    const copy = new PieceMap();
    copy.#chunks = this.#chunks.slice();
    this.#own = new Set();
    return copy;
  }

  /** Puts a piece over what is there. */
  put(piece: Piece): void {
    if (piece.end <= piece.start) return;
    const chunks = this.#chunks;
    let first = this.#firstEndingBehind(piece.start);
    let last = first;
    while (last < chunks.length && startOf(chunks[last]) < piece.end) last++;
    // Nothing is hit: it goes beside its neighbours.
    if (first === last && chunks.length > 0) {
      first = Math.min(first, chunks.length - 1);
      last = first + 1;
    }
    if (last - first > 1) this.#join(first, last);
    const chunk = this.#changeable(first);
    const low = countWhile(chunk, ({ end }) => end <= piece.start);
    const high = countWhile(chunk, ({ start }) => start < piece.end);
    const parts = [piece];
    const [left, right] = [chunk[low], chunk[high - 1]];
    if (low < high && left !== undefined && left.start < piece.start) parts.unshift(cut(left, left.start, piece.start));
    if (low < high && right !== undefined && right.end > piece.end) parts.push(cut(right, piece.end, right.end));
    chunk.splice(low, Math.max(0, high - low), ...parts);
    if (chunk.length > 2 * CHUNK) {
      const behind = chunk.splice(CHUNK);
      this.#own.add(behind);
      chunks.splice(first + 1, 0, behind);
    }
  }

  /** Makes one array of those from `first` to before `last`, whose middle a piece is about to replace. */
  #join(first: number, last: number): void {
    const ends = [...(this.#chunks[first] ?? []), ...(this.#chunks[last - 1] ?? [])];
    this.#chunks.splice(first, last - first, ends);
    this.#own.add(ends);
  }

  #changeable(index: number): Piece[] {
    const found = this.#chunks[index];
    if (found !== undefined && this.#own.has(found)) return found;
    const copy = found?.slice() ?? [];
    this.#chunks[index] = copy;
    this.#own.add(copy);
    return copy;
  }

  /** The whole range in ascending order. */
  *runs(start: number, end: number): Generator<Run, void> {
    let at = start;
    for (let i = this.#firstEndingBehind(start); i < this.#chunks.length && at < end; i++) {
      for (const piece of this.#chunks[i] ?? []) {
        if (piece.end <= at) continue;
        if (piece.start >= end) break;
        if (piece.start > at) yield { start: at, end: piece.start, piece: undefined };
        const from = Math.max(at, piece.start);
        at = Math.min(end, piece.end);
        yield { start: from, end: at, piece };
      }
      if (startOf(this.#chunks[i]) >= end) break;
    }
    if (at < end) yield { start: at, end, piece: undefined };
  }

  /** Where there are pieces, neighbours as one; ascending. */
  ranges(): { offset: number; length: number }[] {
    const found: { offset: number; length: number }[] = [];
    for (const { start, end } of this.#chunks.flat()) {
      const last = found.at(-1);
      if (last !== undefined && last.offset + last.length === start) last.length = end - last.offset;
      else found.push({ offset: start, length: end - start });
    }
    return found;
  }

  /** Index of the first array that has something behind `offset`. */
  #firstEndingBehind(offset: number): number {
    let low = 0;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#chunks[middle]?.at(-1)?.end ?? 0) > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

/** How many pieces from the first on fulfil a condition that none fulfils again after one that does not. */
function countWhile(pieces: readonly Piece[], condition: (piece: Piece) => boolean): number {
  let low = 0;
  let high = pieces.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const piece = pieces[middle];
    if (piece !== undefined && condition(piece)) low = middle + 1;
    else high = middle;
  }
  return low;
}

function startOf(chunk: readonly Piece[] | undefined): number {
  return chunk?.[0]?.start ?? 0;
}

/** The part of a piece that lies between `start` and `end`. */
function cut(piece: Piece, start: number, end: number): Piece {
  if (piece.start >= start && piece.end <= end) return piece;
  const from = Math.max(start, piece.start);
  return { ...piece, start: from, end: Math.min(end, piece.end), at: piece.at + (from - piece.start) };
}
