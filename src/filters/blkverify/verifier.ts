/** The two sides of a blkverify node at work: every request goes to both, and results and contents are compared. */
import { firstDifference } from '../../bytes/difference.ts';
import type { Progress, TruncateOptions, ZeroFlags } from '../../core/driver.ts';
import { codeOf } from '../../core/errors.ts';
import type { Host } from '../../core/host.ts';
import type { Link } from '../../core/node.ts';
import { status } from '../../core/status.ts';
import { RequestTracker } from '../../core/tracker.ts';
import { type MismatchDetails, MismatchError, mismatchWindow, type Outcome } from './mismatch.ts';
import { Ranges } from './ranges.ts';

/** What a mismatch does besides being told (BV-8): `stop` fails every later request too. */
export type MismatchPolicy = 'throw' | 'exit' | 'stop';

/** What blkverify has compared so far. */
export interface VerifyCounts {
  readonly requests: number;
  /** Bytes read from both sides and found equal, or different. */
  readonly compared: number;
  readonly mismatches: number;
}

export interface VerifierOptions {
  readonly host: Host;
  readonly node: string;
  readonly test: Link;
  readonly raw: Link;
  readonly policy: MismatchPolicy;
  /** A discarded range reads as zeroes on both sides. */
  readonly discardZeroes: boolean;
  readonly flushRaw: boolean;
}

/** Longest piece of a whole-device comparison, bytes. */
const PIECE = 1 << 20;

const SECTOR = 512;

/** The comparison of an open blkverify filter; see {@link blkverifyOf}. */
export class Verifier {
  readonly #options: VerifierOptions;
  /** Keeps overlapping requests apart, so that both sides see them in one order; reads share (BV-12). */
  readonly #underWay = new RequestTracker();
  /** Discarded and not written since: their content is not defined (BV-13). */
  readonly #unverified = new Ranges();
  #counts = { requests: 0, compared: 0, mismatches: 0 };
  #stopped: MismatchError | undefined;
  #onMismatch: ((error: MismatchError) => void) | undefined;
  #scratch = new Uint8Array(0);

  constructor(options: VerifierOptions) {
    this.#options = options;
  }

  counts(): VerifyCounts {
    return { ...this.#counts };
  }

  /** Called for each mismatch, before the request fails; undefined: no more. */
  setOnMismatch(callback: ((error: MismatchError) => void) | undefined): void {
    this.#onMismatch = callback;
  }

  read(offset: number, target: Uint8Array): Promise<void> {
    const { test, raw } = this.#options;
    const copy = new Uint8Array(target.length);
    return this.#both('read', offset, target.length, false, {
      test: () => test.read(offset, target),
      raw: () => raw.read(offset, copy),
      after: () => this.#compare('read', offset, target, copy),
    });
  }

  /** Both sides at once, and equal; else it is done again, the long way. */
  tryReadNow(offset: number, target: Uint8Array): boolean {
    const { length } = target;
    if (this.#stopped !== undefined || !this.#unverified.empty) return false;
    if (this.#underWay.overlaps(offset, length, false)) return false;
    const { test, raw } = this.#options;
    if (this.#scratch.length < length) this.#scratch = new Uint8Array(Math.max(length, 65536));
    const copy = this.#scratch.subarray(0, length);
    if (!test.tryReadNow(offset, target) || !raw.tryReadNow(offset, copy)) return false;
    if (firstDifference(target, copy) >= 0) return false;
    this.#counts.requests++;
    this.#counts.compared += length;
    return true;
  }

  write(offset: number, source: Uint8Array): Promise<void> {
    const { test, raw } = this.#options;
    return this.#both('write', offset, source.length, true, {
      test: () => test.write(offset, source),
      raw: () => raw.write(offset, source),
      after: () => this.#unverified.remove(offset, offset + source.length),
    });
  }

  writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    const { test, raw } = this.#options;
    // One side that can do it cheaply is no use if the other cannot.
    const plain = { ...flags, noFallback: false };
    return this.#both('zero', offset, length, true, {
      test: () => test.writeZeroes(offset, length, plain),
      raw: () => raw.writeZeroes(offset, length, plain),
      after: () => this.#unverified.remove(offset, offset + length),
    });
  }

  /** To `test` only, whose content is then not defined there, unless both are said to read as zeroes (BV-13). */
  discard(offset: number, length: number): Promise<void> {
    const { test, raw, discardZeroes } = this.#options;
    return this.#alone(offset, length, async () => {
      if (discardZeroes) await raw.writeZeroes(offset, length, { unmap: true });
      else this.#unverified.add(offset, offset + length);
      await test.discard(offset, length);
    });
  }

  /** To `test` only, unless the raw side is to be flushed too (BV-10). */
  async flush(): Promise<void> {
    const { test, raw, flushRaw } = this.#options;
    this.#requireGoing();
    if (!flushRaw) return test.flush();
    await Promise.all([test.flush(), raw.flush()]);
  }

  truncate(length: number, options: TruncateOptions): Promise<void> {
    const { test, raw } = this.#options;
    return this.#both('truncate', 0, Number.MAX_SAFE_INTEGER, true, {
      test: () => test.truncate(length, options),
      raw: () => raw.truncate(length, options),
      after: () => this.#unverified.remove(length, Number.MAX_SAFE_INTEGER),
    });
  }

  /** Compares all of both sides, but what both say is zero (BV-16). Throws at the first difference. */
  async verify(options: { readonly progress?: Progress; readonly signal?: AbortSignal } = {}): Promise<void> {
    const { test, raw } = this.#options;
    const end = test.length();
    for (let at = 0; at < end; ) {
      options.signal?.throwIfAborted();
      const [a, b] = await Promise.all([status(test.node, at, end - at), status(raw.node, at, end - at)]);
      const same = Math.min(a.length, b.length);
      if (a.zero && b.zero) at += same;
      else {
        const piece = Math.min(same, PIECE);
        await this.#verifyPiece(at, piece);
        at += piece;
      }
      options.progress?.(at, end);
    }
  }

  #verifyPiece(offset: number, length: number): Promise<void> {
    const { test, raw } = this.#options;
    const [left, right] = [new Uint8Array(length), new Uint8Array(length)];
    return this.#both('verify', offset, length, false, {
      test: () => test.read(offset, left),
      raw: () => raw.read(offset, right),
      after: () => this.#compare('verify', offset, left, right),
    });
  }

  /** Runs a request on both sides to their ends, whatever becomes of either (BV-5, BV-6, BV-9, BV-11). */
  #both(
    operation: MismatchDetails['operation'],
    offset: number,
    length: number,
    changes: boolean,
    work: { test(): Promise<void>; raw(): Promise<void>; after(): void },
  ): Promise<void> {
    return this.#inTurn(offset, length, changes, async () => {
      this.#requireGoing();
      this.#counts.requests++;
      const [test, raw] = await Promise.allSettled([work.test(), work.raw()]);
      const outcomes = { test: outcomeOf(test), raw: outcomeOf(raw) };
      if (outcomes.test !== outcomes.raw) {
        this.#fail({ node: this.#options.node, operation, offset, length, ...outcomes });
      }
      if (test.status === 'rejected') throw test.reason;
      work.after();
    });
  }

  async #inTurn(offset: number, length: number, changes: boolean, work: () => Promise<void>): Promise<void> {
    const request = this.#underWay.begin(offset, length, changes);
    if (changes) this.#underWay.serialise(request, request.offset, request.end);
    try {
      await this.#underWay.wait(request);
      await work();
    } finally {
      this.#underWay.end(request);
    }
  }

  #alone(offset: number, length: number, work: () => Promise<void>): Promise<void> {
    return this.#inTurn(offset, length, true, () => {
      this.#requireGoing();
      this.#counts.requests++;
      return work();
    });
  }

  #compare(operation: 'read' | 'verify', offset: number, test: Uint8Array, raw: Uint8Array): void {
    const { length } = test;
    this.#counts.compared += length;
    const parts = this.#unverified.empty
      ? [{ start: offset, end: offset + length }]
      : this.#unverified.gaps(offset, offset + length);
    for (const { start, end } of parts) {
      const [from, to] = [start - offset, end - offset];
      const at = firstDifference(test.subarray(from, to), raw.subarray(from, to));
      if (at < 0) continue;
      const window = mismatchWindow(test, raw, from + at, offset);
      const details = { node: this.#options.node, operation, offset, length, test: 'done', raw: 'done' } as const;
      this.#fail({ ...details, firstDifference: start + at, window });
    }
  }

  #fail(found: Omit<MismatchDetails, 'sectorNum' | 'nbSectors'>): never {
    const { host, policy } = this.#options;
    const sectorNum = Math.floor(found.offset / SECTOR);
    const nbSectors = Math.ceil((found.offset + found.length) / SECTOR) - sectorNum;
    const details: MismatchDetails = { ...found, sectorNum, nbSectors };
    const error = new MismatchError(details);
    this.#counts.mismatches++;
    if (policy === 'stop') this.#stopped = error;
    const channel = 'diskwright:mismatch';
    if (host.watched(channel)) host.publish(channel, details);
    this.#onMismatch?.(error);
    // Where the program cannot be ended, the request fails at least.
    if (policy === 'exit') host.exit?.(error.message);
    throw error;
  }

  #requireGoing(): void {
    if (this.#stopped !== undefined) throw this.#stopped;
  }
}

function outcomeOf(result: PromiseSettledResult<void>): Outcome {
  return result.status === 'fulfilled' ? 'done' : codeOf(result.reason);
}
