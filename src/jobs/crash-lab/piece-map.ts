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

/** Pieces that are kept in one array; an array is never changed once it is there, so that copies may have it too. */
const CHUNK = 256;

export class PieceMap {
  #chunks: (readonly Piece[])[] = [];

  /** A copy that goes its own way. */
  fork(): PieceMap {
    const copy = new PieceMap();
    copy.#chunks = this.#chunks.slice();
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
    const touched = chunks.slice(first, last).flat();
    const before = touched
      .filter(({ start }) => start < piece.start)
      .map((other) => cut(other, other.start, piece.start));
    const after = touched.filter(({ end }) => end > piece.end).map((other) => cut(other, piece.end, other.end));
    const merged = [...before, piece, ...after];
    const parts: Piece[][] = [];
    const size = merged.length > 2 * CHUNK ? CHUNK : merged.length;
    for (let i = 0; i < merged.length; i += size) parts.push(merged.slice(i, i + size));
    chunks.splice(first, last - first, ...parts);
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

function startOf(chunk: readonly Piece[] | undefined): number {
  return chunk?.[0]?.start ?? 0;
}

/** The part of a piece that lies between `start` and `end`. */
function cut(piece: Piece, start: number, end: number): Piece {
  if (piece.start >= start && piece.end <= end) return piece;
  const from = Math.max(start, piece.start);
  return { ...piece, start: from, end: Math.min(end, piece.end), at: piece.at + (from - piece.start) };
}
