/**
 * The engine of `convert`: copies what disks hold onto another, several large requests at a time, so that reading
 * and writing overlap. Status tells what need not be read, a look at the data what need not be written.
 */
import { alignUp } from '../bytes/align.ts';
import { transferBuffer } from '../bytes/transfer-buffer.ts';
import type { Disk } from '../core/disk.ts';
import type { Progress } from '../core/driver.ts';
import { BlockError, withErrno } from '../core/errors.ts';
import type { HostClock } from '../core/host.ts';
import type { BulkLanes } from '../core/host-bulk.ts';
import { copyInBulk } from './bulk-copy.ts';
import { CHUNK, CopyPlan, type Piece } from './copy-plan.ts';
import { withHeldStatus } from './held-status.ts';
import { type RateLimit, rateLimit } from './rate-limit.ts';
import { Source } from './source.ts';
import { UnitPlan } from './unit-plan.ts';
import { type SparseRule, sparseRule, sparseRuns } from './zero-runs.ts';

export interface CopyOptions {
  /** Read as one, each rounded up to 512 bytes. */
  readonly sources: readonly Disk[];
  /** At least as long as all sources together. */
  readonly target: Disk;
  /** Zero runs of at least this many bytes are not written as data; 0: all is written. */
  readonly sparseSize: number;
  /** The target reads as zeroes where nothing is written, so zeroes are left out. */
  readonly targetIsZero: boolean;
  /** Only what sources store themselves is copied: the target is based on what lies below them. */
  readonly topOnly: boolean;
  /** From this byte on the target reads as zeroes in any case. */
  readonly zeroFrom: number;
  /** Data are stored compressed, in whole units of so many bytes; a unit of zeroes counts as zero. Absent: they are not. */
  readonly compressUnit?: number | undefined;
  /** Requests under way at a time, 1 to 16; each holds a buffer of 2 MiB. */
  readonly parallel: number;
  /** Writes need not be begun in ascending order. */
  readonly outOfOrder: boolean;
  /** Bytes written per second; absent: no limit. */
  readonly rateLimit: number | undefined;
  /** Let the host copy what it can, unseen; what it cannot is read and written. */
  readonly copyOffload: boolean;
  /** Sectors that cannot be read become zeroes, with a warning each (T-CONV-6). */
  readonly salvage: boolean;
  readonly clock: HostClock;
  /** The host's threads, for what can be copied past requests. */
  readonly lanes: BulkLanes | undefined;
  readonly signal: AbortSignal | undefined;
  readonly progress: Progress | undefined;
  /** Progress is the place on the disk, so that nothing need be counted beforehand. */
  readonly roughProgress: boolean;
  readonly warn: (message: string) => void;
}

/** A piece's place in the order of writes: its turn comes when the one before has passed. */
interface Turn {
  readonly come: Promise<void>;
  pass(): void;
}

/** Copies. Throws BlockError in the words of T-CONV-6, or the signal's reason; then no request is under way. */
export async function copyDisks(options: CopyOptions): Promise<void> {
  await withHeldStatus(options.sources, () => new Copy(options).run());
}

class Copy {
  readonly #options: CopyOptions;
  readonly #source: Source;
  readonly #plan: CopyPlan | UnitPlan;
  readonly #rule: SparseRule | undefined;
  readonly #rate: RateLimit | undefined;
  #offload: boolean;
  #lastTurn: Promise<void> = Promise.resolve();
  #failure: { readonly error: unknown } | undefined;
  #done = 0;
  #total = 0;
  /** Whether `#total` is the bytes of all pieces, and not of the whole source with what is left out. */
  #counted = false;

  constructor(options: CopyOptions) {
    const { sparseSize, target, compressUnit: unit, clock, signal } = options;
    this.#options = options;
    this.#source = new Source(options.sources, options.salvage ? options.warn : undefined, options.topOnly);
    const trustZero = sparseSize > 0;
    const plan = { trustZero, skipZero: options.targetIsZero, zeroFrom: options.zeroFrom };
    this.#plan = unit === undefined ? new CopyPlan(this.#source, plan) : new UnitPlan(this.#source, plan, unit);
    const rule = unit === undefined ? sparseRule : () => ({ minimum: unit, granularity: unit });
    this.#rule = trustZero ? rule(sparseSize, target.limits.requestAlign) : undefined;
    this.#rate = options.rateLimit === undefined ? undefined : rateLimit(options.rateLimit, clock, signal);
    this.#offload = unit === undefined && (options.copyOffload || !trustZero);
  }

  async run(): Promise<void> {
    const { parallel, progress, roughProgress } = this.#options;
    const counts = progress !== undefined && !roughProgress && this.#plan instanceof CopyPlan;
    const total = counts ? this.#plan.total() : undefined;
    this.#counted = total !== undefined;
    this.#total = total ?? this.#source.length;
    progress?.(0, this.#total);
    await this.#copyInBulk();
    await Promise.all(Array.from({ length: parallel }, () => this.#worker()));
    if (this.#failure !== undefined) throw this.#failure.error;
    progress?.(this.#total, this.#total);
  }

  /** What the host can do by itself, unless every piece is to be looked after. */
  async #copyInBulk(): Promise<void> {
    const { lanes, target, targetIsZero, salvage, signal } = this.#options;
    if (lanes === undefined || !(this.#plan instanceof CopyPlan)) return;
    if (this.#rule === undefined || !targetIsZero || salvage || this.#rate !== undefined || this.#offload) return;
    const advance = (piece: Piece) => this.#advance(piece);
    await copyInBulk({ lanes, plan: this.#plan, target, rule: this.#rule, signal, advance });
  }

  async #worker(): Promise<void> {
    let buffer: Uint8Array | undefined;
    try {
      for (;;) {
        this.#options.signal?.throwIfAborted();
        const piece = await this.#plan.next();
        if (piece === undefined || this.#failure !== undefined) return;
        const turn = this.#takeTurn();
        try {
          if (piece.zero) await this.#writeZeroes(piece, turn);
          else {
            buffer ??= transferBuffer(CHUNK);
            await this.#copyData(piece, buffer.subarray(0, piece.length), turn);
          }
        } finally {
          turn.pass();
        }
        this.#advance(piece);
      }
    } catch (error) {
      this.#failure ??= { error };
    }
  }

  /** A place in the order of writes, which is that of the pieces. */
  #takeTurn(): Turn {
    if (this.#options.outOfOrder) return { come: Promise.resolve(), pass: () => {} };
    const come = this.#lastTurn;
    let pass = () => {};
    this.#lastTurn = new Promise((resolve) => {
      pass = resolve;
    });
    return { come, pass };
  }

  async #copyData(piece: Piece, buffer: Uint8Array, turn: Turn): Promise<void> {
    if (this.#offload && (await this.#copyInHost(piece, turn))) return;
    const { part, offset, length } = piece;
    if (offset + length <= part.end) await this.#source.read(part, offset, buffer);
    else await this.#source.readAcross(offset, buffer);
    const whole = { offset: 0, length: buffer.length, zero: false };
    const runs = this.#rule === undefined ? [whole] : sparseRuns(buffer, piece.offset, this.#rule);
    const stored = runs.reduce((sum, run) => sum + (run.zero ? 0 : run.length), 0);
    await this.#begin(stored, turn);
    for (const [index, run] of runs.entries()) {
      const at = piece.offset + run.offset;
      const writing = run.zero
        ? this.#zero(at, run.length)
        : this.#write(at, buffer.subarray(run.offset, run.offset + run.length));
      // The last write is begun, so the next piece's may be; the order on the target is decided by then.
      if (index === runs.length - 1) turn.pass();
      await writing;
    }
  }

  async #writeZeroes(piece: Piece, turn: Turn): Promise<void> {
    await this.#begin(0, turn);
    const writing = this.#zero(piece.offset, piece.length);
    turn.pass();
    await writing;
  }

  /** Waits for the turn to write, and for the rate limit, which counts the bytes of data. */
  async #begin(bytes: number, turn: Turn): Promise<void> {
    await turn.come;
    if (this.#failure !== undefined) throw this.#failure.error;
    if (bytes > 0) await this.#rate?.take(bytes);
    this.#options.signal?.throwIfAborted();
  }

  async #write(offset: number, bytes: Uint8Array): Promise<void> {
    const { target, compressUnit } = this.#options;
    try {
      if (compressUnit === undefined) await target.write(offset, bytes);
      else await writeUnits(target, compressUnit, offset, bytes);
    } catch (error) {
      throw writeFailure(offset, error);
    }
  }

  async #zero(offset: number, length: number): Promise<void> {
    if (this.#options.targetIsZero) return;
    try {
      await this.#options.target.writeZeroes(offset, length, { unmap: true });
    } catch (error) {
      throw writeFailure(offset, error);
    }
  }

  /** Whether the host copied all of the piece. A host that cannot is not asked again; errors show when it is copied by us. */
  async #copyInHost(piece: Piece, turn: Turn): Promise<boolean> {
    const { part, offset, length } = piece;
    const within = offset - part.start;
    if (within + length > part.disk.length) return false;
    await this.#begin(length, turn);
    try {
      for (let done = 0; done < length; ) {
        const copied = await this.#options.target.copyFrom(part.disk, within + done, offset + done, length - done);
        if (copied === 0) return false;
        done += copied;
      }
      return true;
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      if (error.code === 'ENOTSUP') this.#offload = false;
      return false;
    }
  }

  #advance(piece: Piece): void {
    const end = piece.offset + piece.length;
    this.#done = this.#counted ? this.#done + piece.length : Math.max(this.#done, end);
    this.#options.progress?.(this.#done, this.#total);
  }
}

/** The last unit is filled up with what the target has there already. */
async function writeUnits(target: Disk, unit: number, offset: number, bytes: Uint8Array): Promise<void> {
  const end = offset + bytes.length;
  const whole = Math.min(alignUp(end, unit), target.length);
  let units = bytes;
  if (whole > end) {
    units = new Uint8Array(whole - offset);
    units.set(bytes);
    await target.read(end, units.subarray(bytes.length));
  }
  await target.write(offset, units, { compressed: true });
}

function writeFailure(offset: number, error: unknown): unknown {
  if (!(error instanceof BlockError)) return error;
  return withErrno(error.code, `error while writing at byte ${offset}`, { cause: error });
}
