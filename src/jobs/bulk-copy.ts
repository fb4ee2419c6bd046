/**
 * The part of a copy that the host does by itself, on several processors: data that are plainly in its files, into plain
 * files or new storage. It ends at the first piece that is anything else, or at any trouble; the rest is for the copy.
 */
import {
  filePlace,
  type NewFileStorage,
  newFileStorage,
  pastNode,
  takesPlainWrites,
  writePlace,
} from '../core/bulk.ts';
import type { Disk } from '../core/disk.ts';
import type { BulkLanes, BulkWatch, FilePlace } from '../core/host-bulk.ts';
import { BATCH } from './bulk-lanes.ts';
import type { CopyPlan, Piece } from './copy-plan.ts';
import type { SparseRule } from './zero-runs.ts';

export interface BulkCopyOptions {
  readonly lanes: BulkLanes;
  readonly plan: CopyPlan;
  readonly target: Disk;
  readonly rule: SparseRule;
  readonly signal: AbortSignal | undefined;
  /** Called with the first pieces that are planned, before any is copied. */
  readonly planned: (pieces: readonly Piece[]) => void;
  /** Called for each piece that is copied. */
  readonly advance: (piece: Piece) => void;
}

/** Copies from the plan's beginning on as far as it goes. Throws the signal's reason, or what planning throws. */
export async function copyInBulk(options: BulkCopyOptions): Promise<void> {
  const { target } = options;
  if (!target.maySkipRequests || !takesPlainWrites(target.node)) return;
  await new BulkCopy(options).run();
}

/** A piece that is plainly in a file. */
interface PlainPiece extends Piece {
  readonly from: FilePlace;
}

class BulkCopy {
  readonly #options: BulkCopyOptions;

  constructor(options: BulkCopyOptions) {
    this.#options = options;
  }

  async run(): Promise<void> {
    const { plan, planned, target, signal } = this.#options;
    let pieces = await this.#plainPieces();
    planned(pieces);
    for (;;) {
      const { given, done } = await pastNode(target.node, () => this.#copy(pieces));
      signal?.throwIfAborted();
      if (done < given || done === 0) return plan.putBack(pieces.slice(done));
      pieces = done < pieces.length ? pieces.slice(done) : await this.#plainPieces();
    }
  }

  /** The next pieces, up to one that is not plainly in a file. */
  async #plainPieces(): Promise<PlainPiece[]> {
    const { plan, signal } = this.#options;
    const pieces: PlainPiece[] = [];
    while (pieces.length < BATCH) {
      signal?.throwIfAborted();
      // What cannot be planned is found out, and told, by who plans on.
      let piece = plan.nextNow();
      if (piece === 'unknown') piece = await plan.next().catch(() => undefined);
      if (piece === undefined) break;
      const from = piece.zero ? undefined : placeOf(piece);
      if (from === undefined) {
        plan.putBack([piece]);
        break;
      }
      const { part, offset, length } = piece;
      pieces.push({ part, offset, length, zero: false, from });
    }
    return pieces;
  }

  /** How many of the pieces were given to the lanes, and copied by them, from the first on. */
  async #copy(planned: readonly PlainPiece[]): Promise<{ readonly given: number; readonly done: number }> {
    const { target, rule, lanes } = this.#options;
    const storage = await newFileStorage(target.node);
    const parts = partsOf(planned, storage);
    const pieces = planned.slice(0, parts.firsts.length);
    const given = pieces.length;
    const nothing = { given, done: 0 };
    const place = storage?.place ?? writePlace(target.node, target.length);
    if (given === 0 || place === undefined || !lanes.reaches(place.file)) return nothing;
    if (!pieces.every(({ from }) => lanes.reaches(from.file))) return nothing;
    const numbers = new Int32Array(parts.count);
    const told = parts.ranges.every(
      ({ first, count, index }) => storage?.numbers(first, numbers.subarray(index, index + count)) !== false,
    );
    if (!told) return nothing;
    const work = pieces.map(({ from, offset, length }, index) => {
      return { from, length, position: offset, unit: parts.firsts[index] ?? -1 };
    });
    const units = storage && { size: storage.unit, numbers: numbers.slice(), next: storage.next, limit: storage.limit };
    const copy = { pieces: work, target: place.file, base: place.offset, units, sparse: rule };
    const done = await lanes.copy(copy, this.#watch(pieces));
    if (units !== undefined && done > 0) await storage?.adopt(newParts(parts, pieces[done - 1], numbers, units));
    return { given, done };
  }

  #watch(pieces: readonly Piece[]): BulkWatch {
    const { signal, advance } = this.#options;
    let told = 0;
    const progress = (count: number) => {
      for (const piece of pieces.slice(told, count)) advance(piece);
      told = count;
    };
    return { signal, progress };
  }
}

/** The parts of a target that pieces touch, if its storage is given out by parts. */
interface Parts {
  /** Those that follow one another; the first of them is number `index` of all. */
  readonly ranges: readonly PartRange[];
  /** Which of them is each piece's first, by its number; -1 where there are none. */
  readonly firsts: readonly number[];
  readonly count: number;
}

interface PartRange {
  readonly first: number;
  count: number;
  readonly index: number;
}

/** Of so many pieces, from the first on, as there is storage for, should all of it be new. */
function partsOf(pieces: readonly Piece[], storage: NewFileStorage | undefined): Parts {
  if (storage === undefined) return { ranges: [], firsts: pieces.map(() => -1), count: 0 };
  const { unit, next, limit } = storage;
  const ranges: PartRange[] = [];
  const firsts: number[] = [];
  let range: PartRange = { first: 0, count: 0, index: 0 };
  let count = 0;
  for (const { offset, length } of pieces) {
    const first = Math.floor(offset / unit);
    const end = Math.ceil((offset + length) / unit);
    // The last part of the piece before may be this one's first.
    const known = range.first + range.count;
    const from = Math.max(first, known);
    if (count + end - from > limit - next) break;
    firsts.push(count - (from - first));
    if (end === from) continue;
    if (from > known || ranges.length === 0) {
      range = { first: from, count: 0, index: count };
      ranges.push(range);
    }
    range.count += end - from;
    count += end - from;
  }
  return { ranges, firsts, count };
}

/** Parts, up to the end of the last piece that was copied, that had no storage and have some now. */
function newParts(
  { ranges }: Parts,
  last: Piece | undefined,
  before: Int32Array,
  { size, numbers }: { readonly size: number; readonly numbers: Int32Array },
): number[] {
  const end = last === undefined ? 0 : Math.ceil((last.offset + last.length) / size);
  const parts: number[] = [];
  for (const { first, count, index } of ranges) {
    for (let at = 0; at < count && first + at < end; at++) {
      if ((before[index + at] ?? 0) < 0 && (numbers[index + at] ?? -1) >= 0) parts.push(first + at);
    }
  }
  return parts;
}

function placeOf({ part, offset, length }: Piece): FilePlace | undefined {
  return part.disk.maySkipRequests ? filePlace(part.disk.node, offset - part.start, length) : undefined;
}
