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
    const pieces = storage === undefined ? planned : planned.slice(0, fittingPieces(planned, storage));
    const given = pieces.length;
    const nothing = { given, done: 0 };
    if (given === 0) return nothing;
    const place = storage?.place ?? writePlace(target.node, target.length);
    const parts = new Parts(storage);
    if (place === undefined || !lanes.reaches(place.file)) return nothing;
    if (!pieces.every(({ from }) => lanes.reaches(from.file))) return nothing;
    const work = pieces.map(({ from, offset, length }) => {
      return { from, length, position: offset, unit: parts.add(offset, length) };
    });
    const numbers = parts.numbers();
    if (numbers === undefined) return nothing;
    const units = storage && { size: storage.unit, numbers: numbers.slice(), next: storage.next, limit: storage.limit };
    const copy = { pieces: work, target: place.file, base: place.offset, units, sparse: rule };
    const done = await lanes.copy(copy, this.#watch(pieces));
    const last = work[done - 1];
    if (storage !== undefined && units !== undefined && last !== undefined) {
      const count = parts.add(last.position + last.length - 1, 1) + 1;
      await storage.adopt(
        parts.list
          .slice(0, count)
          .filter((_part, index) => (numbers[index] ?? 0) < 0 && (units.numbers[index] ?? -1) >= 0),
      );
    }
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

/** How many pieces there is storage for, should all of it be new. */
function fittingPieces(pieces: readonly Piece[], { unit, next, limit }: NewFileStorage): number {
  let left = limit - next;
  const over = pieces.findIndex(({ offset, length }) => {
    left -= Math.floor((offset + length - 1) / unit) - Math.floor(offset / unit) + 1;
    return left < 0;
  });
  return over < 0 ? pieces.length : over;
}

/** The parts of a target that pieces touch, ascending, if its storage is given out by parts. */
class Parts {
  readonly list: number[] = [];
  readonly #storage: NewFileStorage | undefined;

  constructor(storage: NewFileStorage | undefined) {
    this.#storage = storage;
  }

  /** Adds those of a range that does not begin before the last one; the index of its first. */
  add(offset: number, length: number): number {
    const unit = this.#storage?.unit;
    if (unit === undefined) return -1;
    const first = Math.floor(offset / unit);
    const known = this.list.at(-1) ?? -1;
    for (let part = Math.max(first, known + 1); part * unit < offset + length; part++) this.list.push(part);
    return this.list.lastIndexOf(first);
  }

  /** Numbers of their storage, -1 for none; undefined where one cannot be told. */
  numbers(): Int32Array | undefined {
    const numbers = this.list.map((part) => this.#storage?.numberOf(part));
    return numbers.every((number) => number !== undefined) ? Int32Array.from(numbers) : undefined;
  }
}

function placeOf({ part, offset, length }: Piece): FilePlace | undefined {
  return part.disk.maySkipRequests ? filePlace(part.disk.node, offset - part.start, length) : undefined;
}
