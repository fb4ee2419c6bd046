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
import type { BulkCopyPiece, BulkLanes, BulkUnits, BulkWatch, FilePlace } from '../core/host-bulk.ts';
import type { PartRun } from '../core/new-storage.ts';
import { BATCH } from './bulk-lanes.ts';
import { CHUNK, type CopyPlan, type Piece } from './copy-plan.ts';
import type { SparseRule } from './zero-runs.ts';

export interface BulkCopyOptions {
  readonly lanes: BulkLanes;
  readonly plan: CopyPlan;
  readonly target: Disk;
  readonly rule: SparseRule;
  readonly signal: AbortSignal | undefined;
  /** Called for each piece that is copied. */
  readonly advance: (piece: Piece) => void;
}

/** Copies from the plan's beginning on as far as it goes. Throws the signal's reason, or what planning throws. */
export async function copyInBulk(options: BulkCopyOptions): Promise<void> {
  const { target } = options;
  if (!target.maySkipRequests || !takesPlainWrites(target.node)) return;
  await new BulkCopy(options).run();
}

/** A piece that is plainly in a file of the lanes. */
interface PlainPiece extends Piece {
  readonly from: FilePlace;
}

class BulkCopy {
  readonly #options: BulkCopyOptions;
  /** The next piece is none that can be copied so, or there is none. */
  #over = false;

  constructor(options: BulkCopyOptions) {
    this.#options = options;
  }

  async run(): Promise<void> {
    const { plan, target, signal } = this.#options;
    while (!this.#over) {
      const first = await this.#next();
      if (first === undefined) return;
      plan.putBack([first]);
      const { given, done } = await pastNode(target.node, () => this.#copy());
      plan.putBack(given.slice(done));
      signal?.throwIfAborted();
      if (done < given.length || done === 0) return;
    }
  }

  /** The next piece, at once where that can be; undefined at the first that is not plainly in a file. */
  #next(): PlainPiece | undefined | Promise<PlainPiece | undefined> {
    const { plan } = this.#options;
    const piece = plan.nextNow();
    if (piece !== 'unknown') return this.#plain(piece);
    // What cannot be planned is found out, and told, by who plans on.
    return plan.next().then(
      (next) => this.#plain(next),
      () => this.#plain(undefined),
    );
  }

  #plain(piece: Piece | undefined): PlainPiece | undefined {
    const from = piece === undefined || piece.zero ? undefined : this.#placeOf(piece);
    if (piece !== undefined && from !== undefined) {
      const { part, offset, length } = piece;
      return { part, offset, length, zero: false, from };
    }
    this.#over = true;
    if (piece !== undefined) this.#options.plan.putBack([piece]);
    return undefined;
  }

  #placeOf({ part, offset, length }: Piece): FilePlace | undefined {
    if (!part.disk.maySkipRequests) return undefined;
    const place = filePlace(part.disk.node, offset - part.start, length);
    return place && this.#options.lanes.reaches(place.file) ? place : undefined;
  }

  /** The pieces that were given to the lanes, and how many of them, from the first on, were copied. */
  async #copy(): Promise<{ readonly given: readonly PlainPiece[]; readonly done: number }> {
    const { target, rule, lanes } = this.#options;
    const given: PlainPiece[] = [];
    const storage = await newFileStorage(target.node);
    const place = storage?.place ?? writePlace(target.node, target.length);
    if (place === undefined || !lanes.reaches(place.file)) return { given, done: 0 };
    const parts = storage && new Parts(storage, lanes);
    const give = (piece: PlainPiece | undefined): BulkCopyPiece | undefined => {
      const unit = piece === undefined ? undefined : parts === undefined ? -1 : parts.add(piece);
      if (piece === undefined || unit === undefined) {
        if (piece !== undefined) this.#options.plan.putBack([piece]);
        return undefined;
      }
      given.push(piece);
      const { from, offset, length } = piece;
      return { from, length, position: offset, unit };
    };
    const next = () => {
      const piece = this.#next();
      return piece instanceof Promise ? piece.then(give) : give(piece);
    };
    const work = { pieces: { most: BATCH, next }, target: place.file, base: place.offset, sparse: rule };
    const done = await lanes.copy({ ...work, units: parts?.units }, this.#watch(given));
    const last = given[done - 1];
    if (parts !== undefined && last !== undefined) await storage?.adopt(parts.added(last));
    return { given, done };
  }

  #watch(given: readonly Piece[]): BulkWatch {
    const { signal, advance } = this.#options;
    let told = 0;
    const progress = (count: number) => {
      for (; told < count; told++) advance(given[told] as Piece);
    };
    return { signal, progress };
  }
}

/** Parts that follow one another; the first of them is number `index` of all. */
interface PartRange extends PartRun {
  count: number;
  readonly index: number;
}

/** The parts of a target that pieces touch, if its storage is given out by parts. */
class Parts {
  readonly units: BulkUnits;
  readonly #storage: NewFileStorage;
  /** Numbers of their storage before anything is copied, -1 for none. */
  readonly #before: Int32Array;
  readonly #ranges: PartRange[] = [];
  #count = 0;

  constructor(storage: NewFileStorage, lanes: BulkLanes) {
    const { unit, next, limit } = storage;
    // A piece may begin and end within a part.
    const most = Math.min(limit - next, BATCH * (Math.ceil(CHUNK / unit) + 1));
    this.#storage = storage;
    this.units = { size: unit, numbers: lanes.numbers(most), next, limit };
    this.#before = new Int32Array(most);
  }

  /**
   * Adds those of a piece behind all others; the index of its first. Undefined where there may be no storage for it, should
   * all of it be new, or where it cannot be told.
   */
  add({ offset, length }: Piece): number | undefined {
    const { unit } = this.#storage;
    const first = Math.floor(offset / unit);
    const end = Math.ceil((offset + length) / unit);
    const range = this.#ranges.at(-1);
    // The last part of the piece before may be this one's first.
    const known = range === undefined ? 0 : range.first + range.count;
    const from = Math.max(first, known);
    const count = end - from;
    const index = this.#count;
    if (index + count > this.units.numbers.length) return undefined;
    if (count > 0) {
      const before = this.#before.subarray(index, index + count);
      if (!this.#storage.numbers(from, before)) return undefined;
      this.units.numbers.set(before, index);
      if (range !== undefined && from === known) range.count += count;
      else this.#ranges.push({ first: from, count, index });
      this.#count += count;
    }
    return index - (from - first);
  }

  /** Those, up to the end of a piece, that had no storage and have some now. */
  added({ offset, length }: Piece): PartRun[] {
    const end = Math.ceil((offset + length) / this.#storage.unit);
    const { numbers } = this.units;
    const before = this.#before;
    const runs: PartRun[] = [];
    for (const { first, count, index } of this.#ranges) {
      const stop = index + Math.min(count, end - first);
      for (let at = index; at < stop; ) {
        const start = at;
        while (at < stop && (before[at] ?? 0) < 0 && (numbers[at] ?? -1) >= 0) at++;
        if (at > start) runs.push({ first: first + start - index, count: at - start });
        else at++;
      }
    }
    return runs;
  }
}
