/**
 * One lane of bulk work: takes pieces from a list that several threads share, reads them, looks at them, and writes them.
 * What differs between a worker, which may wait for a disk, and the main thread, which may not, is who calls the steps.
 */
import fs from 'node:fs';
import { firstDifference, firstNonZero } from '../bytes/difference.ts';
import type { BulkSparseRule } from '../core/host-bulk.ts';
import { sparseRuns } from '../jobs/zero-runs.ts';
import type { Syscalls } from './syscalls.ts';

/** Longest piece, bytes. */
export const LONGEST_PIECE = 2 * 1024 * 1024;
/** Pieces of two files are compared in parts of this many bytes, both of which stay in a core's own cache. */
const COMPARED_PART = 256 * 1024;
/** How long a thread that waits for another sleeps at most before it looks again whether all stop. */
const LONGEST_WAIT_MS = 1000;

/** Numbers of a piece in {@link LaneWork.pieces}. */
export const FIELDS = 5;
/** `at`: where in the target's disk, or in the other file. `other`: first unit, or the other file's descriptor; -1: none. */
const Field = { fd: 0, from: 1, length: 2, at: 3, other: 4 } as const;
/** Words of {@link LaneWork.control}. `planned`: so many pieces are there; `complete`: there will be no more. */
const Control = { next: 0, turn: 1, units: 2, stop: 3, planned: 4, complete: 5 } as const;

/** Instead of a piece: all are taken, or all stop; none is planned yet. */
export const NO_MORE = -1;
export const NOT_YET = -2;

export interface LaneTarget {
  readonly fd: number;
  /** Storage is reserved before large writes. */
  readonly reserves: boolean;
  readonly base: number;
  readonly sparse: BulkSparseRule;
  /** Bytes of a unit; 0: the target has none. */
  readonly unit: number;
  readonly limit: number;
}

/** All that lanes share; the arrays are on shared memory. */
export interface LaneWork {
  readonly control: Int32Array;
  readonly pieces: Float64Array;
  readonly done: Uint8Array;
  readonly units: Int32Array;
  readonly target: LaneTarget | undefined;
}

export interface LanePiece {
  readonly fd: number;
  readonly from: number;
  readonly length: number;
  readonly at: number;
  readonly other: number;
}

/** A part of a buffer and its place in the target. */
interface LaneWrite {
  readonly place: number;
  readonly start: number;
  length: number;
}

/** For at most so many pieces; `next`: the number of the next new storage. */
export function newLaneWork(
  most: number,
  target?: LaneTarget,
  units: Int32Array = new Int32Array(0),
  next = 0,
): LaneWork {
  const shared = <T>(make: new (buffer: SharedArrayBuffer) => T, bytes: number) =>
    new make(new SharedArrayBuffer(bytes));
  const control = shared(Int32Array, 24);
  control[Control.units] = next;
  return { control, pieces: shared(Float64Array, most * FIELDS * 8), done: shared(Uint8Array, most), units, target };
}

/** A lane's hold on shared work. */
export class Lane {
  readonly #work: LaneWork;

  constructor(work: LaneWork) {
    this.#work = work;
  }

  /** Gives out a piece; only one lane does. */
  add({ fd, from, length, at, other }: LanePiece): void {
    const { control, pieces } = this.#work;
    const start = this.planned * FIELDS;
    if (start >= pieces.length) throw new RangeError('more pieces than there are places for');
    pieces[start + Field.fd] = fd;
    pieces[start + Field.from] = from;
    pieces[start + Field.length] = length;
    pieces[start + Field.at] = at;
    pieces[start + Field.other] = other;
    Atomics.add(control, Control.planned, 1);
    Atomics.notify(control, Control.planned);
  }

  /** There will be no more pieces. */
  complete(): void {
    Atomics.store(this.#work.control, Control.complete, 1);
    Atomics.notify(this.#work.control, Control.planned);
  }

  /** Index of a piece that is this lane's alone, or {@link NO_MORE}, or {@link NOT_YET}, having waited for so long. */
  take(milliseconds: number): number {
    const { control } = this.#work;
    while (!this.stopped) {
      const complete = Atomics.load(control, Control.complete) === 1;
      const { planned } = this;
      const next = Atomics.load(control, Control.next);
      if (next < planned) {
        if (Atomics.compareExchange(control, Control.next, next, next + 1) === next) return next;
      } else if (complete) return NO_MORE;
      else {
        if (milliseconds > 0) Atomics.wait(control, Control.planned, planned, milliseconds);
        return NOT_YET;
      }
    }
    return NO_MORE;
  }

  get planned(): number {
    return Atomics.load(this.#work.control, Control.planned);
  }

  /** How many pieces nobody has taken yet. */
  get ahead(): number {
    return this.planned - Atomics.load(this.#work.control, Control.next);
  }

  piece(index: number): LanePiece {
    const start = index * FIELDS;
    const field = (name: keyof typeof Field) => this.#work.pieces[start + Field[name]] ?? 0;
    return { fd: field('fd'), from: field('from'), length: field('length'), at: field('at'), other: field('other') };
  }

  get stopped(): boolean {
    return Atomics.load(this.#work.control, Control.stop) !== 0;
  }

  /** No lane takes a piece any more, or waits for another. */
  stop(): void {
    Atomics.store(this.#work.control, Control.stop, 1);
    Atomics.notify(this.#work.control, Control.turn);
    Atomics.notify(this.#work.control, Control.planned);
  }

  finish(index: number): void {
    Atomics.store(this.#work.done, index, 1);
  }

  isDone(index: number): boolean {
    return Atomics.load(this.#work.done, index) === 1;
  }

  /** Whether storage may be given to this piece: it was to all before. Waits for that at most `milliseconds`. */
  isTurn(index: number, milliseconds: number): boolean {
    const { control, target } = this.#work;
    if (target?.unit === 0) return true;
    const turn = Atomics.load(control, Control.turn);
    if (turn === index) return true;
    if (!this.stopped) Atomics.wait(control, Control.turn, turn, milliseconds);
    return Atomics.load(control, Control.turn) === index;
  }

  /** What to write of a piece that is in `bytes`; in its turn. Undefined: there is no more storage. */
  writes(piece: LanePiece, bytes: Uint8Array): LaneWrite[] | undefined {
    const { control, target, units } = this.#work;
    if (target === undefined) return undefined;
    const data = sparseRuns(bytes, piece.at, target.sparse).filter((run) => !run.zero);
    if (target.unit === 0) {
      return data.map(({ offset, length }) => ({ place: target.base + piece.at + offset, start: offset, length }));
    }
    const { unit, base, limit } = target;
    const firstUnit = Math.floor(piece.at / unit);
    const writes: LaneWrite[] = [];
    // Nobody else takes storage before the next turn.
    let next = Atomics.load(control, Control.units);
    for (const { offset, length } of data) {
      for (let done = 0; done < length; ) {
        const start = offset + done;
        const index = piece.other + Math.floor((piece.at + start) / unit) - firstUnit;
        let number = units[index] ?? -1;
        if (number < 0) {
          if (next >= limit) return undefined;
          number = next++;
          units[index] = number;
        }
        const within = (piece.at + start) % unit;
        const part = Math.min(unit - within, length - done);
        append(writes, base + number * unit + within, start, part);
        done += part;
      }
    }
    Atomics.store(control, Control.units, next);
    Atomics.add(control, Control.turn, 1);
    Atomics.notify(control, Control.turn);
    return writes;
  }
}

/** Joins what lies side by side in the buffer and in the file. */
function append(writes: LaneWrite[], place: number, start: number, length: number): void {
  const last = writes.at(-1);
  const joins = last !== undefined && last.start + last.length === start && last.place + last.length === place;
  if (joins) last.length += length;
  else writes.push({ place, start, length });
}

/** Reads all of `target`, or false: an error, or the file ends before. */
export type LaneRead = (fd: number, offset: number, target: Uint8Array) => boolean;

/** Reads that may wait. */
const readWaiting: LaneRead = (fd, offset, target) => {
  try {
    for (let done = 0; done < target.length; ) {
      const count = fs.readSync(fd, target, done, target.length - done, offset + done);
      if (count === 0) return false;
      done += count;
    }
    return true;
  } catch {
    return false;
  }
};

/** Writes all of `source`, or false. */
function writeWaiting(fd: number, offset: number, source: Uint8Array): boolean {
  try {
    for (let done = 0; done < source.length; ) {
      const count = fs.writeSync(fd, source, done, source.length - done, offset + done);
      if (count === 0) return false;
      done += count;
    }
    return true;
  } catch {
    return false;
  }
}

/** Whether a piece reads as what it should equal; false too where it cannot be read so. */
export function isEqual(piece: LanePiece, buffer: Uint8Array, read: LaneRead): boolean {
  for (let done = 0; done < piece.length; done += COMPARED_PART) {
    const part = Math.min(COMPARED_PART, piece.length - done);
    const a = buffer.subarray(0, part);
    if (!read(piece.fd, piece.from + done, a)) return false;
    if (piece.other < 0) {
      if (firstNonZero(a) >= 0) return false;
      continue;
    }
    const b = buffer.subarray(COMPARED_PART, COMPARED_PART + part);
    if (!read(piece.other, piece.at + done, b) || firstDifference(a, b) >= 0) return false;
  }
  return true;
}

/** Works until nothing is left, waiting for disks and other lanes. At the first trouble all lanes stop. */
export function runLane(work: LaneWork, buffer: Uint8Array, syscalls: Syscalls): void {
  const lane = new Lane(work);
  for (let index = lane.take(LONGEST_WAIT_MS); index !== NO_MORE; index = lane.take(LONGEST_WAIT_MS)) {
    if (index === NOT_YET) continue;
    const piece = lane.piece(index);
    const done =
      work.target === undefined
        ? isEqual(piece, buffer, readWaiting)
        : copies(lane, work.target, index, buffer, syscalls);
    if (done) lane.finish(index);
    else lane.stop();
  }
}

function copies(lane: Lane, target: LaneTarget, index: number, buffer: Uint8Array, syscalls: Syscalls): boolean {
  const piece = lane.piece(index);
  const bytes = buffer.subarray(0, piece.length);
  if (!readWaiting(piece.fd, piece.from, bytes)) return false;
  while (!lane.isTurn(index, LONGEST_WAIT_MS)) if (lane.stopped) return false;
  const writes = lane.writes(piece, bytes);
  return (
    writes?.every(({ place, start, length }) => {
      if (target.reserves) syscalls.reserve(target.fd, place, length);
      return writeWaiting(target.fd, place, bytes.subarray(start, start + length));
    }) === true
  );
}
