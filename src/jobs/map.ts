/** What is where: the runs of a disk (T-MAP-1). */
import type { Disk } from '../core/disk.ts';
import { BlockError, withErrno } from '../core/errors.ts';
import { type BlockStatus, holdStatus } from '../core/status.ts';

/** The part of the disk that {@link mapDisk} goes through. */
export interface MapOptions {
  /** Bytes. Default 0. */
  readonly start?: number;
  /** Bytes. Default: to the end. */
  readonly length?: number;
  readonly signal?: AbortSignal | undefined;
}

/** A run of like status; neighbours differ in something. Offsets and lengths in bytes. */
export interface MapEntry {
  /** Bytes from the start of the disk. */
  readonly start: number;
  /** Bytes. */
  readonly length: number;
  /** Layer that decides: 0 is the top. */
  readonly depth: number;
  /** Allocated in the chain. */
  readonly present: boolean;
  /** Reads as zeroes. */
  readonly zero: boolean;
  /** Has stored bytes to read. */
  readonly data: boolean;
  /** Where the bytes are plainly stored, and in which file. */
  readonly offset?: number;
  readonly filename?: string;
}

/** Entries handed over at a time: so few that they die young. */
const BATCH = 512;
/** So many runs in a row, then the event loop may turn. */
const RUN_OF_RUNS = 65536;

/**
 * The runs from `start` on, in ascending order, in batches: a walk of a million runs costs no promise each.
 * An empty range gives one entry of length 0 with all flags false. Throws BlockError `Could not read file metadata: …`.
 */
export async function* map(disk: Disk, options: MapOptions = {}): AsyncGenerator<readonly MapEntry[], void, void> {
  const start = options.start ?? 0;
  const end = Math.min(disk.length, start + (options.length ?? Number.POSITIVE_INFINITY));
  if (start >= end) {
    yield [{ start, length: 0, depth: 0, present: false, zero: false, data: false }];
    return;
  }
  const release = holdStatus(disk.node);
  try {
    yield* runsOf(disk, start, end, options.signal);
  } finally {
    release();
  }
}

async function* runsOf(disk: Disk, start: number, end: number, signal: AbortSignal | undefined) {
  const merger = new Merger();
  let runs = 0;
  for (let offset = start; offset < end; runs++) {
    const now = disk.tryStatusNow(offset, end - offset);
    const status = now ?? (await statusOf(disk, offset, end - offset).catch((error: unknown) => ({ error })));
    if ('error' in status) {
      // What came before is told all the same.
      if (merger.ready.length > 0) yield merger.take();
      throw status.error;
    }
    merger.add(offset, status);
    offset += status.length;
    if (merger.ready.length >= BATCH) yield merger.take();
    if (runs % RUN_OF_RUNS === RUN_OF_RUNS - 1) {
      signal?.throwIfAborted();
      await disk.graph.host.clock.sleep(0);
    }
  }
  signal?.throwIfAborted();
  merger.finish();
  yield merger.take();
}

async function statusOf(disk: Disk, offset: number, length: number): Promise<BlockStatus> {
  try {
    return await disk.status(offset, length);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw withErrno(error.code, 'Could not read file metadata', { cause: error });
  }
}

/** Joins neighbours when all flags, depth and file agree and offsets, if any, continue. */
class Merger {
  ready: MapEntry[] = [];
  #start = 0;
  #length = 0;
  #status: BlockStatus | undefined;

  add(offset: number, status: BlockStatus): void {
    const known = this.#status;
    if (known !== undefined && continues(known, this.#length, status)) {
      this.#length += status.length;
      return;
    }
    this.finish();
    this.#start = offset;
    this.#length = status.length;
    this.#status = status;
  }

  finish(): void {
    const status = this.#status;
    if (status === undefined) return;
    const { depth, allocated: present, zero, data, at } = status;
    const [start, length] = [this.#start, this.#length];
    if (at === undefined) this.ready.push({ start, length, depth, present, zero, data });
    else this.ready.push({ start, length, depth, present, zero, data, offset: at.offset, filename: at.filename });
    this.#status = undefined;
  }

  take(): MapEntry[] {
    const taken = this.ready;
    this.ready = [];
    return taken;
  }
}

function continues(a: BlockStatus, length: number, b: BlockStatus): boolean {
  if (a.zero !== b.zero || a.data !== b.data || a.allocated !== b.allocated || a.depth !== b.depth) return false;
  if (a.at === undefined || b.at === undefined) return a.at === b.at;
  return a.at.offset + length === b.at.offset && a.at.filename === b.at.filename;
}
