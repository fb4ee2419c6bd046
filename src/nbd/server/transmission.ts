/**
 * The server's side of transmission: requests in, replies out (N-40 to N-75). Requests that need no waiting are answered
 * while the input that held them is read; the others run side by side, and are answered as they end.
 */
import type { Disk } from '../../core/disk.ts';
import { BlockError, codeOf, errorText } from '../../core/errors.ts';
import type { HostClock } from '../../core/host.ts';
import type { ByteQueue } from '../byte-queue.ts';
import { Command, CommandFlag, ESHUTDOWN, PAYLOAD_MAX, wireError } from '../protocol.ts';
import { decodeRequest, EXTENDED_REQUEST_BYTES, REQUEST_BYTES, type Request } from '../wire.ts';
import { checkRequest, type Refusal } from './check-request.ts';
import type { Negotiated } from './handshake.ts';
import { type BufferPool, INLINE_MAX, Output, type Send } from './output.ts';
import { Replies } from './replies.ts';
import { type MetaContext, statusChunks } from './status.ts';

/** Requests and bytes of payload under way; past that the input is left where it is (N-74). */
const REQUESTS_MAX = 128;
const BYTES_MAX = 64 * 1024 * 1024;
/** Nor is it read while so much waits to be sent. */
const UNSENT_MAX = 16 * 1024 * 1024;
/** A write that is longer than allowed is read over up to this length, then refused; a longer one ends the connection (N-72). */
const WRITE_SKIP_MAX = 64 * 1024 * 1024;
/** Reads shorter than this are answered as data, holes or not (N-53). */
const HOLES_MIN = 64 * 1024;

export interface TransmissionOptions {
  readonly disk: Disk;
  /** Added to every offset (N-71). */
  readonly offset: number;
  readonly negotiated: Negotiated;
  readonly contexts: readonly MetaContext[];
  readonly clock: HostClock;
  readonly pool: BufferPool;
  readonly send: Send;
  /** Reads may be answered by what status says: nothing below changes or fails reads. */
  readonly holes: boolean;
  /** Called when input that was left may be taken now. */
  readonly resume: () => void;
}

export type TransmissionStep =
  /** More input is needed. */
  | 'more'
  /** Input is left until `resume` is called. */
  | 'full'
  /** The client is leaving: what is under way is answered, then the connection ends. */
  | 'disconnect'
  /** The client does not speak the protocol. */
  | 'broken';

export class Transmission {
  readonly #options: TransmissionOptions;
  readonly #output: Output;
  readonly #replies: Replies;
  readonly #extended: boolean;
  #requests = 0;
  #bytes = 0;
  #full = false;
  #stopping = false;
  /** A write whose payload has not come whole. */
  #payload:
    | { readonly request: Request; readonly buffer: Uint8Array; readonly lent: Uint8Array; filled: number }
    | undefined;
  #skipping: { left: number; readonly skipped: () => void } | undefined;
  /** Inside `advance`: its end sends what came together. */
  #advancing = false;
  #flushing = false;
  #idle: (() => void)[] = [];
  readonly counts = { requests: 0, bytesRead: 0, bytesWritten: 0, errors: 0 };

  constructor(options: TransmissionOptions) {
    this.#options = options;
    this.#output = new Output(options.send, options.pool);
    this.#extended = options.negotiated.extended;
    this.#replies = new Replies(this.#output, options.negotiated);
  }

  /** Requests that are not answered yet. */
  get underWay(): number {
    return this.#requests;
  }

  /** From now on requests are answered that the server is going away. */
  stop(): void {
    this.#stopping = true;
  }

  /** When all requests are answered. */
  async whenIdle(): Promise<void> {
    while (this.#requests > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /** Takes requests from `input`, and answers those that it can. */
  advance(input: ByteQueue): TransmissionStep {
    this.#advancing = true;
    try {
      for (;;) {
        const step = this.#next(input);
        if (step !== undefined) return step;
      }
    } finally {
      this.#advancing = false;
      this.#output.flush();
    }
  }

  #next(input: ByteQueue): TransmissionStep | undefined {
    if (this.#skipping !== undefined) {
      this.#skipping.left -= input.skip(this.#skipping.left);
      if (this.#skipping.left > 0) return 'more';
      const { skipped } = this.#skipping;
      this.#skipping = undefined;
      skipped();
      return undefined;
    }
    if (this.#payload !== undefined) return this.#fillPayload(input);
    if (this.#requests >= REQUESTS_MAX || this.#bytes >= BYTES_MAX || this.#output.waiting >= UNSENT_MAX) {
      this.#full = true;
      return 'full';
    }
    const header = input.peek(this.#extended ? EXTENDED_REQUEST_BYTES : REQUEST_BYTES);
    if (header === undefined) return 'more';
    const request = decodeRequest(header, this.#extended);
    if (request === undefined) return 'broken';
    input.skip(header.length);
    if (request.command === Command.disconnect) return 'disconnect';
    this.counts.requests++;
    return this.#take(input, request);
  }

  #take(input: ByteQueue, request: Request): TransmissionStep | undefined {
    const { command, length, flags } = request;
    const hasPayload = command === Command.write || (this.#extended && (flags & CommandFlag.payloadLength) !== 0);
    const refusal = this.#stopping
      ? { error: ESHUTDOWN, text: 'The server is shutting down' }
      : checkRequest(request, this.#options.negotiated);
    if (refusal !== undefined) {
      if (!hasPayload) {
        this.#refuse(request, refusal);
        return undefined;
      }
      if (length > (command === Command.write ? WRITE_SKIP_MAX : PAYLOAD_MAX)) return 'broken';
      this.#skipping = { left: length, skipped: () => this.#refuse(request, refusal) };
      return undefined;
    }
    if (command === Command.write) return this.#takeWrite(input, request);
    this.#perform(request);
    return undefined;
  }

  #takeWrite(input: ByteQueue, request: Request): undefined {
    const { length } = request;
    if (length === 0) {
      this.#replies.succeed(request);
      return;
    }
    // Of what is there whole, no copy is made where it lies in one piece.
    const whole = input.take(length);
    if (whole !== undefined) {
      this.#write(request, whole);
      return;
    }
    const lent = this.#options.pool.take(length);
    this.#payload = { request, buffer: lent.subarray(0, length), lent, filled: 0 };
    this.#bytes += length;
  }

  #fillPayload(input: ByteQueue): TransmissionStep | undefined {
    const payload = this.#payload;
    if (payload === undefined) return undefined;
    payload.filled += input.takeInto(payload.buffer.subarray(payload.filled));
    if (payload.filled < payload.buffer.length) return 'more';
    this.#payload = undefined;
    this.#bytes -= payload.buffer.length;
    this.#write(payload.request, payload.buffer, payload.lent);
    return undefined;
  }

  #write(request: Request, data: Uint8Array, lent?: Uint8Array): void {
    const { disk, pool } = this.#options;
    const at = this.#options.offset + request.offset;
    this.counts.bytesWritten += data.length;
    const fua = (request.flags & CommandFlag.fua) !== 0;
    if (!fua && disk.tryWriteNow(at, data)) {
      if (lent !== undefined) pool.give(lent);
      this.#replies.succeed(request);
      return;
    }
    this.#run(request, data.length, async () => {
      try {
        await disk.write(at, data, { fua });
      } finally {
        if (lent !== undefined) pool.give(lent);
      }
      this.#replies.succeed(request);
    });
  }

  #perform(request: Request): void {
    const { disk } = this.#options;
    const { command, flags, length } = request;
    const at = this.#options.offset + request.offset;
    const fua = (flags & CommandFlag.fua) !== 0;
    if (length === 0 && command !== Command.flush) {
      this.#replies.empty(request);
      return;
    }
    if (command === Command.read) {
      this.#read(request, at);
      return;
    }
    if (command === Command.flush) {
      this.#run(request, 0, async () => {
        await disk.flush();
        this.#replies.succeed(request);
      });
      return;
    }
    const work = {
      [Command.trim]: async () => {
        await disk.discard(at, length);
        if (fua) await disk.flush();
      },
      [Command.writeZeroes]: () =>
        disk.writeZeroes(at, length, {
          fua,
          unmap: (flags & CommandFlag.noHole) === 0,
          noFallback: (flags & CommandFlag.fastZero) !== 0,
        }),
      [Command.cache]: () => this.#prefetch(at, length),
    }[command];
    if (work === undefined) {
      this.#status(request, at);
      return;
    }
    this.#run(request, 0, async () => {
      await work();
      this.#replies.succeed(request);
    });
  }

  /** Reads and drops, where it is no more than a request may hold (N-46). */
  async #prefetch(at: number, length: number): Promise<void> {
    if (length > PAYLOAD_MAX) return;
    const lent = this.#options.pool.take(Math.min(length, 1 << 20));
    try {
      for (let done = 0; done < length; done += lent.length) {
        await this.#options.disk.read(at + done, lent.subarray(0, Math.min(lent.length, length - done)));
      }
    } finally {
      this.#options.pool.give(lent);
    }
  }

  #read(request: Request, at: number): void {
    const { length } = request;
    this.counts.bytesRead += length;
    const { holes, disk, pool } = this.#options;
    if (holes && this.#replies.structured && length >= HOLES_MIN && (request.flags & CommandFlag.df) === 0) {
      const run = disk.tryStatusNow(at, length);
      if (run !== undefined && (run.zero || run.length < length)) {
        this.#readWithHoles(request, at);
        return;
      }
    }
    if (length <= INLINE_MAX) {
      const place = this.#replies.reserveRead(length);
      if (disk.tryReadNow(at, place.data)) {
        place.commit(request, request.offset);
        return;
      }
      place.cancel();
    }
    const lent = pool.take(length);
    const data = lent.subarray(0, length);
    if (length > INLINE_MAX && disk.tryReadNow(at, data)) {
      this.#replies.data(request, request.offset, data, { lent, done: true });
      return;
    }
    this.#run(request, length, async () => {
      try {
        await disk.read(at, data);
      } catch (error) {
        pool.give(lent);
        if (!this.#replies.structured) throw error;
        await this.#readUpToFailure(request, at);
        return;
      }
      this.#replies.data(request, request.offset, data, { lent, done: true });
    });
  }

  /** What can be read, block by block, then the error at the first that cannot (N-54). */
  async #readUpToFailure(request: Request, at: number): Promise<void> {
    const { disk } = this.#options;
    const step = Math.max(512, disk.limits.requestAlign);
    let done = 0;
    try {
      while (done < request.length) {
        const piece = Math.min(step - ((at + done) % step), request.length - done);
        const data = await disk.read(at + done, piece);
        this.#replies.data(request, request.offset + done, data, { done: false });
        done += piece;
      }
      this.#replies.none(request);
    } catch (error) {
      this.#replies.error(request, wireError(codeOf(error)), messageOf(error), request.offset + done);
    }
  }

  /** Pieces by status, holes without their zeroes (N-53). */
  #readWithHoles(request: Request, at: number): void {
    const { disk } = this.#options;
    this.#run(request, request.length, async () => {
      for (let done = 0; done < request.length; ) {
        const run = disk.tryStatusNow(at + done, request.length - done);
        const rest = request.length - done;
        const length = run === undefined ? rest : Math.min(run.length, rest);
        const last = done + length === request.length;
        if (run?.zero) this.#replies.hole(request, request.offset + done, length, last);
        else {
          const lent = this.#options.pool.take(length);
          try {
            await disk.read(at + done, lent.subarray(0, length));
          } catch (error) {
            this.#options.pool.give(lent);
            this.#replies.error(request, wireError(codeOf(error)), messageOf(error), request.offset + done);
            return;
          }
          this.#replies.data(request, request.offset + done, lent.subarray(0, length), { lent, done: last });
        }
        done += length;
      }
    });
  }

  #status(request: Request, at: number): void {
    const { contexts, clock, negotiated, offset } = this.#options;
    this.#run(request, 0, async () => {
      const one = (request.flags & CommandFlag.reqOne) !== 0;
      const range = { at, length: request.length, end: offset + negotiated.export.size };
      const chunks = await statusChunks(contexts, range, { one, extended: this.#extended, clock });
      this.#replies.status(request, chunks);
    });
  }

  /** Runs what takes time; a failure is the request's, and no one else's. */
  #run(request: Request, bytes: number, work: () => Promise<void>): void {
    this.#requests++;
    this.#bytes += bytes;
    work()
      .catch((error) => {
        const fast = (request.flags & CommandFlag.fastZero) !== 0 && request.command === Command.writeZeroes;
        this.#refuse(request, { error: wireError(codeOf(error), fast), text: messageOf(error) });
      })
      .finally(() => {
        this.#requests--;
        this.#bytes -= bytes;
        this.#flushSoon();
        if (this.#requests === 0) {
          const waiting = this.#idle;
          this.#idle = [];
          for (const resolve of waiting) resolve();
        }
        if (this.#full) {
          this.#full = false;
          this.#options.resume();
        }
      });
  }

  #refuse(request: Request, { error, text }: Refusal): void {
    this.counts.errors++;
    this.#replies.error(request, error, text);
  }

  #flushSoon(): void {
    if (this.#advancing || this.#flushing) return;
    this.#flushing = true;
    queueMicrotask(() => {
      this.#flushing = false;
      this.#output.flush();
    });
  }
}

function messageOf(error: unknown): string {
  if (error instanceof BlockError) return error.message;
  return errorText(codeOf(error));
}
