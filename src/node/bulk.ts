/** Bulk work on this machine: the main thread and a worker, each reading and writing by itself. */

import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import type { Worker } from 'node:worker_threads';
import { transferBuffer } from '../bytes/transfer-buffer.ts';
import type { HostFile } from '../core/host.ts';
import type {
  BulkComparePiece,
  BulkCopy,
  BulkCopyPiece,
  BulkLanes,
  BulkPiece,
  BulkPieces,
  BulkWatch,
} from '../core/host-bulk.ts';
import { NodeFile } from './file.ts';
import {
  isEqual,
  Lane,
  type LanePiece,
  type LaneRead,
  type LaneWork,
  LONGEST_PIECE,
  NO_MORE,
  NOT_YET,
  newLaneWork,
} from './lane.ts';
import { monotonic } from './monotonic.ts';

/** How long the main thread waits for a lane at a time; then the event loop turns. */
const SHORT_WAIT_MS = 1;
/** Pieces are planned when fewer than the least are left to take, up to the most: a millisecond's planning at a time. */
const LEAST_AHEAD = 32;
const MOST_AHEAD = 96;
/** The event loop turns at least so often. */
const TURN_MS = 5;

/** The worker's program, from this module's place in the build or in the sources; undefined where it is not built. */
function workerProgram(): string | undefined {
  const { resolve } = createRequire(import.meta.url);
  for (const place of ['./lane-worker.cjs', '../../lane-worker.cjs', '../../dist/lane-worker.cjs']) {
    try {
      return resolve(place);
    } catch {
      // Not there.
    }
  }
  return undefined;
}

/** A worker thread that runs lanes. */
class LaneThread {
  readonly #worker: Worker;
  #waiting: (() => void) | undefined;
  #lost = false;

  /** `online`: called when it has begun to run. */
  constructor(program: string, online: () => void) {
    const threads = process.getBuiltinModule('node:worker_threads');
    // It prints nothing; streams that are not passed on need not be made.
    const streams = { stdin: false, stdout: true, stderr: true };
    this.#worker = new threads.Worker(program, { ...streams, env: threads.SHARE_ENV, trackUnmanagedFds: false });
    this.#worker.on('online', online);
    this.#worker.on('message', () => this.#over());
    this.#worker.on('error', () => this.#lose());
    this.#worker.on('exit', () => this.#lose());
    this.#worker.unref();
  }

  /** Resolves when the thread takes no further part in the work. */
  run(work: LaneWork): Promise<void> {
    if (this.#lost) return Promise.resolve();
    this.#worker.ref();
    return new Promise((resolve) => {
      this.#waiting = () => {
        // A thread that is lost in the middle leaves a piece that nobody may wait for.
        if (this.#lost) new Lane(work).stop();
        resolve();
      };
      this.#worker.postMessage(work);
    });
  }

  /** It ends when it has done what it was given; nobody waits for that. */
  close(): void {
    this.#lost = true;
    this.#worker.postMessage(undefined);
  }

  #lose(): void {
    this.#lost = true;
    this.#over();
  }

  #over(): void {
    this.#worker.unref();
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.();
  }
}

/** Started by {@link expectBulkWork}, and not taken yet. */
let expected: LaneThread | undefined;
/** Whether {@link bulkLanes} was asked for, so that nobody takes a thread that is only expected. */
let asked = false;

/**
 * Starts the thread that {@link bulkLanes} takes, for programs that are about to work on large files: it takes tens of
 * milliseconds to come. One that nobody takes ends with the program. `online`: called when it is there.
 */
export function expectBulkWork(online: () => void): void {
  if (!asked) expected ??= startThread(online);
}

/** Undefined on machines with one processor, without the worker's program, or where no thread can be started. */
export function bulkLanes(): BulkLanes | undefined {
  const thread = expected ?? startThread();
  expected = undefined;
  asked = true;
  return thread && new NodeLanes(thread);
}

function startThread(online = () => {}): LaneThread | undefined {
  const program = availableParallelism() > 1 ? workerProgram() : undefined;
  if (program === undefined) return undefined;
  try {
    return new LaneThread(program, online);
  } catch {
    return undefined;
  }
}

class NodeLanes implements BulkLanes {
  readonly #thread: LaneThread;
  #buffer: Uint8Array | undefined;

  constructor(thread: LaneThread) {
    this.#thread = thread;
  }

  reaches(file: HostFile): boolean {
    return file instanceof NodeFile && file.bulkFd() >= 0;
  }

  numbers(count: number): Int32Array {
    return new Int32Array(new SharedArrayBuffer(count * Int32Array.BYTES_PER_ELEMENT));
  }

  async copy({ pieces, target, base, units, sparse }: BulkCopy, watch: BulkWatch): Promise<number> {
    const file = ownFile(target);
    const { size: unit = 0, limit = 0 } = units ?? {};
    const place = { fd: file.bulkFd(), reserves: file.bulkReserves, base, sparse, unit, limit };
    const work = newLaneWork(pieces.most, place, units?.numbers, units?.next);
    const files = new Files();
    const described = ({ from, length, position, unit }: BulkCopyPiece) => {
      return { fd: files.fd(from.file), from: from.offset, length, at: position, other: unit };
    };
    try {
      return await this.#run(work, pieces, described, watch, (lane, index, buffer) =>
        copyPiece(lane, index, buffer, files, file),
      );
    } finally {
      await file.refresh();
    }
  }

  compare(pieces: BulkPieces<BulkComparePiece>, watch: BulkWatch): Promise<number> {
    const files = new Files();
    const described = ({ from, length, other }: BulkComparePiece) => {
      const fd = files.fd(from.file);
      const [at, against] = other === undefined ? [0, -1] : [other.offset, files.fd(other.file)];
      return { fd, from: from.offset, length, at, other: against };
    };
    return this.#run(newLaneWork(pieces.most), pieces, described, watch, (lane, index, buffer) =>
      comparePiece(lane.piece(index), buffer, files),
    );
  }

  close(): void {
    this.#thread.close();
  }

  /** Plans, and runs the main thread's lane beside the worker's. */
  async #run<P extends BulkPiece>(
    work: LaneWork,
    pieces: BulkPieces<P>,
    described: (piece: P) => LanePiece,
    { signal, progress }: BulkWatch,
    step: (lane: Lane, index: number, buffer: Uint8Array) => Promise<boolean>,
  ): Promise<number> {
    const lane = new Lane(work);
    this.#buffer ??= transferBuffer(LONGEST_PIECE);
    let more = true;
    const plan = async () => {
      while (more && lane.ahead < MOST_AHEAD) {
        const next = lane.planned < pieces.most ? pieces.next() : undefined;
        const piece = next instanceof Promise ? await next : next;
        more = piece !== undefined;
        if (piece === undefined) lane.complete();
        else lane.add(described(piece));
      }
    };
    await plan();
    if (lane.planned === 0) return 0;
    const other = this.#thread.run(work);
    let done = 0;
    let turned = monotonic();
    try {
      for (;;) {
        if (more && lane.ahead < LEAST_AHEAD) await plan();
        const index = lane.take(0);
        if (index === NO_MORE) break;
        if (index === NOT_YET) continue;
        if (signal?.aborted || !(await step(lane, index, this.#buffer))) {
          lane.stop();
          break;
        }
        lane.finish(index);
        while (done < lane.planned && lane.isDone(done)) done++;
        if (monotonic() - turned < TURN_MS) continue;
        progress(done);
        await turn();
        turned = monotonic();
      }
    } catch (error) {
      lane.stop();
      throw error;
    } finally {
      await other;
    }
    while (done < lane.planned && lane.isDone(done)) done++;
    progress(done);
    return done;
  }
}

/** Files by their descriptors, of which there are few. */
class Files {
  readonly #files = new Map<number, NodeFile>();
  #last: HostFile | undefined;
  #fd = -1;

  /** The descriptor of one, which is kept. */
  fd(file: HostFile): number {
    if (file === this.#last) return this.#fd;
    const own = ownFile(file);
    this.#last = file;
    this.#fd = own.bulkFd();
    this.#files.set(this.#fd, own);
    return this.#fd;
  }

  get(fd: number): NodeFile | undefined {
    return this.#files.get(fd);
  }
}

function ownFile(file: HostFile): NodeFile {
  if (file instanceof NodeFile) return file;
  throw new TypeError('The file is not one of this host');
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

async function readFrom(file: NodeFile | undefined, offset: number, target: Uint8Array): Promise<boolean> {
  if (file === undefined) return false;
  const now = file.tryReadNow(offset, target);
  return (now >= 0 ? now : await file.read(offset, target).catch(() => -1)) === target.length;
}

async function copyPiece(
  lane: Lane,
  index: number,
  buffer: Uint8Array,
  sources: Files,
  target: NodeFile,
): Promise<boolean> {
  const piece = lane.piece(index);
  const bytes = buffer.subarray(0, piece.length);
  if (!(await readFrom(sources.get(piece.fd), piece.from, bytes))) return false;
  while (!lane.isTurn(index, SHORT_WAIT_MS)) {
    if (lane.stopped) return false;
    await turn();
  }
  const writes = lane.writes(piece, bytes);
  if (writes === undefined) return false;
  for (const { place, start, length } of writes) {
    if (!(await target.writeBulk(place, bytes.subarray(start, start + length)))) return false;
  }
  return true;
}

/** At once where both are cached, else by way of the thread pool. */
async function comparePiece(piece: LanePiece, buffer: Uint8Array, files: Files): Promise<boolean> {
  const readNow: LaneRead = (fd, offset, target) => files.get(fd)?.tryReadNow(offset, target) === target.length;
  if (isEqual(piece, buffer, readNow)) return true;
  // Not equal, or not cached: once read, it is.
  const bytes = buffer.subarray(0, piece.length);
  if (!(await readFrom(files.get(piece.fd), piece.from, bytes))) return false;
  if (piece.other >= 0 && !(await readFrom(files.get(piece.other), piece.at, bytes))) return false;
  return isEqual(piece, buffer, readNow);
}
