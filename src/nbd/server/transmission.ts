/**
 * The server's side of transmission: requests in, replies out (N-40 to N-75). Requests that need no waiting are answered
 * while the input that held them is read; the others run side by side, and are answered as they end.
 */
import type { Disk } from '../../core/disk.ts';
import { codeOf } from '../../core/errors.ts';
import type { HostClock } from '../../core/host.ts';
import type { ByteQueue } from '../byte-queue.ts';
import { Command, CommandFlag, ESHUTDOWN, PAYLOAD_MAX, wireError } from '../protocol.ts';
import { decodeRequest, EXTENDED_REQUEST_BYTES, REQUEST_BYTES, type Request } from '../wire.ts';
import { checkRequest, type Refusal } from './check-request.ts';
import type { Negotiated } from './handshake.ts';
import { InFlight } from './in-flight.ts';
import { type BufferPool, Output, type Sink } from './output.ts';
import { messageOf, type ReadContext, readRequest, SEND_FILE_MIN } from './reads.ts';
import { Replies } from './replies.ts';
import { type ChosenContext, statusChunks } from './status.ts';
import { parseStatusPayload } from './status-payload.ts';

/** Input is left where it is while so much waits to be sent (N-74). */
const UNSENT_MAX = 16 * 1024 * 1024;
/** What one piece of input gave is handed over in portions of about this size. */
const SEND_PORTION = 1024 * 1024;
/** A write that is longer than allowed is read over up to this length, then refused; a longer one ends the connection (N-72). */
const WRITE_SKIP_MAX = 64 * 1024 * 1024;
/** CACHE reads in pieces. */
const CACHE_PIECE = 1 << 20;

export interface TransmissionOptions {
  readonly disk: Disk;
  /** Added to every offset (N-71). */
  readonly offset: number;
  readonly negotiated: Negotiated;
  readonly contexts: readonly ChosenContext[];
  readonly clock: HostClock;
  readonly pool: BufferPool;
  readonly sink: Sink;
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

/** What a connection has done. */
export interface TransmissionCounts {
  requests: number;
  bytesRead: number;
  bytesWritten: number;
  errors: number;
}

/** Data that follow a request and have not come whole. */
interface Payload {
  readonly request: Request;
  readonly buffer: Uint8Array;
  readonly lent: Uint8Array;
  filled: number;
}

export class Transmission {
  readonly #options: TransmissionOptions;
  readonly #output: Output;
  readonly #replies: Replies;
  readonly #extended: boolean;
  readonly #inFlight: InFlight;
  readonly #reads: ReadContext;
  #full = false;
  #stopping = false;
  #payload: Payload | undefined;
  #skipping: { left: number; readonly skipped: () => void } | undefined;
  /** Inside `advance`: its end sends what came together. */
  #advancing = false;
  #flushing = false;
  /** Nobody watches requests, so that they may go the short way. */
  #now = true;
  /** A request under way has its payload in the input. */
  #kept = false;
  readonly counts: TransmissionCounts = { requests: 0, bytesRead: 0, bytesWritten: 0, errors: 0 };

  constructor(options: TransmissionOptions) {
    this.#options = options;
    this.#output = new Output(options.sink, options.pool, () => this.#resumeIfFull());
    this.#extended = options.negotiated.extended;
    this.#replies = new Replies(this.#output, options.negotiated);
    this.#inFlight = new InFlight(() => {
      this.#flushSoon();
      this.#resumeIfFull();
    });
    const { disk, pool } = options;
    this.#reads = { disk, pool, replies: this.#replies, inFlight: this.#inFlight };
  }

  /** Requests that are not answered yet. */
  get underWay(): number {
    return this.#inFlight.requests;
  }

  /** Whether requests have begun, since this was last asked, that still need the input that they were in. */
  takeKept(): boolean {
    const kept = this.#kept;
    this.#kept = false;
    return kept;
  }

  /** From now on requests are answered that the server is going away. */
  stop(): void {
    this.#stopping = true;
  }

  /** When all requests are answered, and the answers handed over. */
  async whenIdle(): Promise<void> {
    await this.#inFlight.whenIdle();
    this.#output.flush();
  }

  /** Sends what `advance` held back. */
  flush(): void {
    this.#output.flush();
  }

  /** Takes requests from `input`, and answers those that it can. `hold`: the answers wait for {@link flush}, if they are few. */
  advance(input: ByteQueue, hold = false): TransmissionStep {
    this.#advancing = true;
    this.#now = !this.#options.disk.graph.host.watched('diskwright:request');
    try {
      for (;;) {
        const step = this.#next(input);
        if (step !== undefined) return step;
        if (this.#output.gathered >= SEND_PORTION) this.#output.flush();
      }
    } finally {
      this.#advancing = false;
      if (!hold) this.#output.flush();
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
    if (this.#payload !== undefined) return this.#fillPayload(input, this.#payload);
    const headerBytes = this.#extended ? EXTENDED_REQUEST_BYTES : REQUEST_BYTES;
    const piece = input.pieceOf(headerBytes);
    if (piece === undefined) return 'more';
    const request = decodeRequest(piece, this.#extended, input.start);
    if (request === undefined) return 'broken';
    if (request.command === Command.disconnect) return 'disconnect';
    const bytes = request.command === Command.read || request.command === Command.write ? request.length : 0;
    // A large read waits while the system takes no more: then it need not be copied either.
    const waits = this.#output.sendingFile && request.command === Command.read && bytes >= SEND_FILE_MIN;
    // What is longer than allowed is refused and holds nothing.
    if (waits || this.#output.waiting >= UNSENT_MAX || !this.#inFlight.hasRoomFor(bytes > PAYLOAD_MAX ? 0 : bytes)) {
      this.#full = true;
      return 'full';
    }
    input.skip(headerBytes);
    this.counts.requests++;
    return this.#take(input, request);
  }

  #take(input: ByteQueue, request: Request): TransmissionStep | undefined {
    const { command, length, flags } = request;
    const withPayload = this.#extended && (flags & CommandFlag.payloadLength) !== 0;
    const refusal = this.#stopping
      ? { error: ESHUTDOWN, text: 'The server is shutting down' }
      : checkRequest(request, this.#options.negotiated);
    if (refusal !== undefined) {
      if (!withPayload && command !== Command.write) {
        this.#refuse(request, refusal);
        return undefined;
      }
      if (length > (command === Command.write ? WRITE_SKIP_MAX : PAYLOAD_MAX)) return 'broken';
      this.#skipping = { left: length, skipped: () => this.#refuse(request, refusal) };
      return undefined;
    }
    if (command === Command.write || withPayload) this.#takePayload(input, request);
    else this.#perform(request, input.length > 0 || this.#inFlight.requests > 0);
    return undefined;
  }

  #takePayload(input: ByteQueue, request: Request): void {
    const { length } = request;
    // Of what is there whole, no copy is made where it lies in one piece.
    const whole = input.take(length);
    if (whole !== undefined) {
      this.#performWith(request, whole);
      return;
    }
    const lent = this.#options.pool.take(length);
    this.#payload = { request, buffer: lent.subarray(0, length), lent, filled: 0 };
    this.#inFlight.hold(length);
  }

  #fillPayload(input: ByteQueue, payload: Payload): TransmissionStep | undefined {
    payload.filled += input.takeInto(payload.buffer.subarray(payload.filled));
    if (payload.filled < payload.buffer.length) return 'more';
    this.#payload = undefined;
    this.#inFlight.release(payload.buffer.length);
    this.#performWith(payload.request, payload.buffer, payload.lent);
    return undefined;
  }

  #performWith(request: Request, data: Uint8Array, lent?: Uint8Array): void {
    if (request.command === Command.write) this.#write(request, data, lent);
    else {
      this.#statusOfSome(request, data);
      if (lent !== undefined) this.#options.pool.give(lent);
    }
  }

  #write(request: Request, data: Uint8Array, lent?: Uint8Array): void {
    const { disk, pool } = this.#options;
    const at = this.#options.offset + request.offset;
    this.counts.bytesWritten += data.length;
    const fua = (request.flags & CommandFlag.fua) !== 0;
    if (data.length === 0 || (this.#now && !fua && disk.tryWriteNow(at, data))) {
      if (lent !== undefined) pool.give(lent);
      this.#replies.succeed(request);
      return;
    }
    if (lent === undefined) this.#kept = true;
    this.#run(request, data.length, async () => {
      try {
        await disk.write(at, data, { fua });
      } finally {
        if (lent !== undefined) pool.give(lent);
      }
      this.#replies.succeed(request);
    });
  }

  /** `others`: it is not the only one. */
  #perform(request: Request, others: boolean): void {
    const { command, length } = request;
    const at = this.#options.offset + request.offset;
    if (length === 0 && command !== Command.flush) this.#replies.empty(request);
    else if (command === Command.read) {
      this.counts.bytesRead += length;
      readRequest(this.#reads, request, at, { now: this.#now, others });
    } else if (command === Command.blockStatus) this.#status(request, at, length, this.#options.contexts);
    else {
      this.#run(request, 0, async () => {
        await this.#change(request, at);
        this.#replies.succeed(request);
      });
    }
  }

  async #change({ command, flags, length }: Request, at: number): Promise<void> {
    const { disk } = this.#options;
    const fua = (flags & CommandFlag.fua) !== 0;
    if (command === Command.writeZeroes) {
      const unmap = (flags & CommandFlag.noHole) === 0;
      return disk.writeZeroes(at, length, { fua, unmap, noFallback: (flags & CommandFlag.fastZero) !== 0 });
    }
    if (command === Command.cache) return this.#prefetch(at, length);
    if (command === Command.trim) await disk.discard(at, length);
    if (command === Command.flush || fua) await disk.flush();
  }

  /** Reads and drops, where it is no more than a request may hold (N-46). */
  async #prefetch(at: number, length: number): Promise<void> {
    if (length > PAYLOAD_MAX) return;
    const { disk, pool } = this.#options;
    const lent = pool.take(Math.min(length, CACHE_PIECE));
    try {
      for (let done = 0; done < length; done += lent.length) {
        await disk.read(at + done, lent.subarray(0, Math.min(lent.length, length - done)));
      }
    } finally {
      pool.give(lent);
    }
  }

  /** The payload form: of some contexts, and the length in the payload (N-64). */
  #statusOfSome(request: Request, payload: Uint8Array): void {
    const { contexts, negotiated, offset } = this.#options;
    const parsed = parseStatusPayload(payload, contexts, negotiated.export.size - request.offset);
    if ('error' in parsed) this.#refuse(request, parsed);
    else this.#status(request, offset + request.offset, parsed.length, parsed.contexts);
  }

  #status(request: Request, at: number, length: number, contexts: readonly ChosenContext[]): void {
    const { clock, negotiated, offset: start } = this.#options;
    const { size, minimumBlock } = negotiated.export;
    this.#run(request, 0, async () => {
      const one = (request.flags & CommandFlag.reqOne) !== 0;
      const range = { start, at, length, end: start + size, minimumBlock: negotiated.asksBlockSize ? minimumBlock : 1 };
      const chunks = await statusChunks(contexts, range, { one, extended: this.#extended, clock });
      this.#replies.status(request, chunks);
    });
  }

  /** Runs what takes time; a failure is the request's, and no one else's. */
  #run(request: Request, bytes: number, work: () => Promise<void>): void {
    this.#inFlight.run(bytes, async () => {
      try {
        await work();
      } catch (error) {
        const fast = (request.flags & CommandFlag.fastZero) !== 0 && request.command === Command.writeZeroes;
        this.#refuse(request, { error: wireError(codeOf(error), fast), text: messageOf(error) });
      }
    });
  }

  #refuse(request: Request, { error, text }: Refusal): void {
    this.counts.errors++;
    this.#replies.error(request, error, text);
  }

  #resumeIfFull(): void {
    if (!this.#full || this.#output.sendingFile || this.#output.waiting >= UNSENT_MAX) return;
    this.#full = false;
    this.#options.resume();
  }

  /** What ended together is sent together (N-153). */
  #flushSoon(): void {
    if (this.#advancing || this.#flushing) return;
    this.#flushing = true;
    queueMicrotask(() => {
      this.#flushing = false;
      this.#output.flush();
    });
  }
}
