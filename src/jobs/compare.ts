/** Comparing the content of two disks (T-CMP). */

import { alignDown } from '../bytes/align.ts';
import { firstDifference, firstNonZero } from '../bytes/difference.ts';
import { transferBuffer } from '../bytes/transfer-buffer.ts';
import type { Disk } from '../core/disk.ts';
import type { Progress } from '../core/driver.ts';
import { BlockError, codeOf, withErrno } from '../core/errors.ts';
import type { BulkLanes } from '../core/host-bulk.ts';
import type { BlockStatus } from '../core/status.ts';
import { type ComparedPiece, compareInBulk } from './bulk-compare.ts';
import { startLanes } from './bulk-lanes.ts';
import { withHeldStatus } from './held-status.ts';

/** Options of {@link compareDisks}. */
export interface CompareOptions {
  /** Sizes and block status must agree too, run by run (T-CMP-2). */
  readonly strict?: boolean;
  readonly signal?: AbortSignal | undefined;
  readonly progress?: Progress | undefined;
  /** Called when the sizes differ and the common part is equal, before the longer one's rest is looked at. */
  readonly sizesDiffer?: () => void;
}

/** Whether two disks have the same content, and where they first differ. */
export type Comparison =
  | { readonly kind: 'identical' }
  /** First differing sector, bytes. */
  | { readonly kind: 'content'; readonly offset: number }
  /** Strict only. */
  | { readonly kind: 'size' }
  /** Strict only: first place of unlike status, bytes. */
  | { readonly kind: 'status'; readonly offset: number };

/** Longest piece read at a time, bytes (T-CMP-1). */
const PIECE = 2 * 1024 * 1024;
/** Pieces under way at a time; each has a buffer for both disks. */
const PARALLEL = 4;
const SECTOR = 512;
/** Errors about status begin so; a program tells them from others by it. */
export const STATUS_FAILURE = 'Sector allocation test failed for';

/**
 * Whether two disks have the same content; what the longer one has more must be zero. Throws BlockError when one of
 * them cannot be read (`Error while reading offset …`) or asked for its status (see {@link STATUS_FAILURE}).
 */
export function compare(a: Disk, b: Disk, options: CompareOptions = {}): Promise<Comparison> {
  return withHeldStatus([a, b], async () => {
    const lanes = startLanes([a, b]);
    try {
      return await compareAll(a, b, lanes, options);
    } finally {
      lanes?.close();
    }
  });
}

async function compareAll(
  a: Disk,
  b: Disk,
  lanes: BulkLanes | undefined,
  options: CompareOptions,
): Promise<Comparison> {
  if (options.strict === true && a.length !== b.length) return { kind: 'size' };
  const common = Math.min(a.length, b.length);
  const total = Math.max(a.length, b.length);
  options.progress?.(0, total);
  const first = await new Comparer([a, b], 0, common, total, options).run(lanes);
  if (first.kind !== 'identical' || common === total) return first;
  options.sizesDiffer?.();
  return new Comparer([a.length > common ? a : b], common, total, total, options).run(lanes);
}

/** What a disk has from where planning is, or before, to `end`. */
interface Run {
  readonly status: BlockStatus;
  readonly end: number;
}

/** What must be the same of both when comparing strictly. */
const DIFFERENCES: readonly ((status: BlockStatus) => boolean)[] = [
  (status) => status.data,
  (status) => status.zero,
  (status) => status.allocated,
  (status) => status.at !== undefined,
];

/** Compares one range of two disks with each other, or of one disk with zeroes. */
class Comparer {
  readonly #disks: readonly Disk[];
  readonly #end: number;
  readonly #total: number;
  readonly #options: CompareOptions;
  readonly #runs: Run[] = [];
  #offset: number;
  #planning: Promise<unknown> = Promise.resolve();
  #found: Comparison | undefined;
  #failure: { readonly error: unknown } | undefined;
  #done: number;
  /** Planned, but not looked at. */
  #returned: readonly ComparedPiece[] = [];

  constructor(disks: readonly Disk[], start: number, end: number, total: number, options: CompareOptions) {
    this.#disks = disks;
    this.#offset = start;
    this.#done = start;
    this.#end = end;
    this.#total = total;
    this.#options = options;
  }

  async run(lanes: BulkLanes | undefined): Promise<Comparison> {
    if (lanes !== undefined) await this.#compareInBulk(lanes);
    await Promise.all(Array.from({ length: PARALLEL }, () => this.#worker()));
    // A difference counts even if reading further on failed: pieces are taken in order, so it lies before.
    if (this.#found !== undefined) return this.#found;
    if (this.#failure !== undefined) throw this.#failure.error;
    this.#options.progress?.(this.#end, this.#total);
    return { kind: 'identical' };
  }

  /** What the host can do by itself. */
  #compareInBulk(lanes: BulkLanes): Promise<void> {
    return compareInBulk<ComparedPiece>({
      lanes,
      signal: this.#options.signal,
      next: () => this.#next(),
      nextNow: () => this.#nextNow(),
      putBack: (pieces) => {
        this.#returned = [...pieces, ...this.#returned];
      },
      advance: (piece) => this.#advance(piece),
    });
  }

  #advance({ offset, length }: ComparedPiece): void {
    this.#done = Math.max(this.#done, offset + length);
    this.#options.progress?.(this.#done, this.#total);
  }

  async #worker(): Promise<void> {
    const buffers: Uint8Array[] = [];
    try {
      for (;;) {
        this.#options.signal?.throwIfAborted();
        const piece = await this.#next();
        if (piece === undefined) return;
        const at = await this.#differs(piece, buffers);
        if (at !== undefined) this.#report({ kind: 'content', offset: at });
        this.#advance(piece);
      }
    } catch (error) {
      this.#failure ??= { error };
    }
  }

  /** Keeps the difference that comes first. */
  #report(found: Exclude<Comparison, { kind: 'identical' | 'size' }>): void {
    const known = this.#found;
    if (known === undefined || !('offset' in known) || found.offset < known.offset) this.#found = found;
  }

  #next(): Promise<ComparedPiece | undefined> {
    const planned = this.#planning.then(async () => {
      for (;;) {
        const now = this.#nextNow();
        if (now !== 'unknown') return now;
        for (const [index, disk] of this.#disks.entries()) {
          if (this.#runNow(index) === undefined) this.#runs[index] = await this.#ask(disk, this.#offset);
        }
      }
    });
    this.#planning = planned.catch(() => {});
    return planned;
  }

  /** The next piece at once, while no {@link #next} is under way; `unknown` where a status must be waited for. */
  #nextNow(): ComparedPiece | undefined | 'unknown' {
    if (this.#returned.length > 0) {
      const [returned, ...others] = this.#returned;
      this.#returned = others;
      return returned;
    }
    while (this.#offset < this.#end && this.#found === undefined && this.#failure === undefined) {
      const offset = this.#offset;
      const stored: Disk[] = [];
      let end = this.#end;
      for (let index = 0; index < this.#disks.length; index++) {
        const run = this.#runNow(index);
        if (run === undefined) return 'unknown';
        end = Math.min(end, run.end);
        if (!run.status.zero) stored.push(this.#disks[index] as Disk);
      }
      if (this.#options.strict === true && this.#statusDiffers()) {
        this.#report({ kind: 'status', offset });
        return undefined;
      }
      this.#offset = stored.length === 0 ? end : Math.min(end, alignDown(offset, PIECE) + PIECE);
      if (stored.length > 0) return { offset, length: this.#offset - offset, stored };
    }
    return undefined;
  }

  /** The run that a disk has where planning is, if it can be told at once. */
  #runNow(index: number): Run | undefined {
    const offset = this.#offset;
    const known = this.#runs[index];
    if (known !== undefined && offset < known.end) return known;
    const status = this.#disks[index]?.tryStatusNow(offset, this.#end - offset);
    if (status === undefined) return undefined;
    const run = { status, end: offset + status.length };
    this.#runs[index] = run;
    return run;
  }

  async #ask(disk: Disk, offset: number): Promise<Run> {
    try {
      const status = await disk.status(offset, this.#end - offset);
      return { status, end: offset + status.length };
    } catch (error) {
      throw withErrno(codeOf(error), `${STATUS_FAILURE} ${disk.filename}`, { cause: error });
    }
  }

  /** Data, zero, allocated, and whether there is an offset (T-CMP-2). */
  #statusDiffers(): boolean {
    const [a, b] = this.#runs;
    if (a === undefined || b === undefined) return false;
    return DIFFERENCES.some((of) => of(a.status) !== of(b.status));
  }

  /** Offset of the first sector that differs. */
  async #differs(piece: ComparedPiece, buffers: Uint8Array[]): Promise<number | undefined> {
    const { offset, length, stored } = piece;
    const contents = stored.map((_disk, index) => {
      buffers[index] ??= transferBuffer(PIECE);
      return buffers[index].subarray(0, length);
    });
    const results = await Promise.allSettled(
      stored.map((disk, index) => readOf(disk, offset, contents[index] ?? new Uint8Array(0))),
    );
    for (const result of results) if (result.status === 'rejected') throw result.reason;
    const [a, b] = contents;
    if (a === undefined) return undefined;
    const index = b === undefined ? firstNonZero(a) : firstDifference(a, b);
    return index < 0 ? undefined : offset + alignDown(index, SECTOR);
  }
}

async function readOf(disk: Disk, offset: number, target: Uint8Array): Promise<void> {
  try {
    await disk.read(offset, target);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw withErrno(error.code, `Error while reading offset ${offset} of ${disk.filename}`, { cause: error });
  }
}
