/** One connection in transmission: requests out, replies in, a bounded number of them under way (N-132, N-139). */
import type { ByteStream } from '../../core/byte-stream.ts';
import { BlockError } from '../../core/errors.ts';
import type { HostClock } from '../../core/host.ts';
import { Command, CommandFlag } from '../protocol.ts';
import { encodeRequest } from '../wire.ts';
import type { Dialed } from './dial.ts';
import { type Agreement, isProtocolError } from './handshake.ts';
import { type ClientRequest, newPending, type Outcome, type Pending } from './pending.ts';
import { Replies } from './replies.ts';

/** Under way at once, requests and bytes of their data. */
const REQUESTS_MAX = 64;
const BYTES_MAX = 64 * 1024 * 1024;
/** Of a request without extended headers; a multiple of every minimum, bytes. */
const LENGTH_MAX = 2 ** 32 - 65536;
/** A server that was told goodbye gets so long to close the connection, milliseconds. */
const GOODBYE_MS = 1000;

interface Waiting {
  readonly request: ClientRequest;
  readonly settle: (outcome: Outcome) => void;
}

export class Connection {
  readonly agreement: Agreement;
  readonly #stream: ByteStream;
  readonly #clock: HostClock;
  readonly #replies: Replies;
  readonly #pending = new Map<number, Pending>();
  readonly #ended: (connection: Connection) => void;
  #waiting: Waiting[] = [];
  #bytes = 0;
  #received = 0;
  #nextCookie = 0;
  #lost: Extract<Outcome, { kind: 'lost' }> | undefined;
  /** The server said that it shuts down, or we are leaving: no more requests. */
  #leaving = false;
  readonly #over = new AbortController();
  #idle: (() => void) | undefined;
  #farewell: Promise<void> | undefined;

  /** `ended` is called once when no request can be sent any more. */
  constructor(
    { stream, input, agreement, ended: endedBefore }: Dialed,
    clock: HostClock,
    ended: (connection: Connection) => void,
  ) {
    this.agreement = agreement;
    this.#stream = stream;
    this.#clock = clock;
    this.#ended = ended;
    this.#replies = new Replies(
      {
        agreement,
        find: (high, low) => (high === 0 ? this.#pending.get(low) : undefined),
        done: (pending, low) => this.#done(pending, low),
      },
      input,
    );
    stream.listen({
      data: (bytes) => this.#take(bytes),
      end: () => this.#lose('The server ended the connection'),
      close: (cause) => this.#lose('The connection to the server is lost', cause),
    });
    this.#take(new Uint8Array(0));
    const before = endedBefore();
    if (before !== undefined) this.#lose('The server ended the connection', before);
  }

  get usable(): boolean {
    return this.#lost === undefined && !this.#leaving;
  }

  /** Bytes that came. */
  get received(): number {
    return this.#received;
  }

  /** Requests that are not answered, sent or waiting. */
  get load(): number {
    return this.#pending.size + this.#waiting.length;
  }

  /** Never rejects. Requests of more than fits under way at once are sent alone. */
  send(request: ClientRequest): Promise<Outcome> {
    return new Promise((settle) => {
      if (this.#lost !== undefined || this.#leaving) settle(this.#lost ?? lost('The server is shutting down'));
      else if (this.#waiting.length > 0 || !this.#hasRoomFor(request)) this.#waiting.push({ request, settle });
      else this.#sendNow(request, settle);
    });
  }

  /** Waits for requests under way, says goodbye and closes. */
  async close(): Promise<void> {
    this.#leaving = true;
    while (this.load > 0) {
      await new Promise<void>((resolve) => {
        this.#idle = resolve;
      });
    }
    await this.#leave();
  }

  /** At once; what is under way is lost. */
  destroy(): void {
    this.#lose('The connection was given up');
  }

  #hasRoomFor(request: ClientRequest): boolean {
    const { size } = this.#pending;
    return size === 0 || (size < REQUESTS_MAX && this.#bytes + payloadOf(request) <= BYTES_MAX);
  }

  #sendNow(request: ClientRequest, settle: Waiting['settle']): void {
    while (this.#pending.has(this.#nextCookie)) this.#nextCookie = (this.#nextCookie + 1) >>> 0;
    const cookieLow = this.#nextCookie;
    this.#nextCookie = (this.#nextCookie + 1) >>> 0;
    this.#pending.set(cookieLow, newPending(request, this.agreement.structured, settle));
    this.#bytes += payloadOf(request);
    const { data } = request;
    const { extended } = this.agreement;
    const header = encodeRequest({ ...request, ...onWire(request, extended), cookieHigh: 0, cookieLow }, extended);
    this.#stream.write(data === undefined ? [header] : [header, data], () => {});
  }

  #take(bytes: Uint8Array): void {
    if (this.#lost !== undefined) return;
    this.#received += bytes.length;
    try {
      this.#replies.push(bytes);
    } catch (error) {
      if (!isProtocolError(error)) throw error;
      this.#lose((error as BlockError).message, error, true);
    }
  }

  #done(pending: Pending, cookieLow: number): void {
    this.#pending.delete(cookieLow);
    this.#bytes -= payloadOf(pending.request);
    const { failure, extents, shutDown, settle } = pending;
    if (shutDown) this.#retire();
    if (failure === undefined) settle(extents === undefined ? { kind: 'done' } : { kind: 'done', extents });
    else if (shutDown) settle(lost(failure.message));
    else settle({ kind: 'failed', error: failure });
    this.#sendWaiting();
    if (this.load > 0) return;
    this.#idle?.();
    if (this.#leaving) void this.#leave();
  }

  #sendWaiting(): void {
    let next = this.#waiting[0];
    while (next !== undefined && this.#hasRoomFor(next.request)) {
      this.#waiting.shift();
      this.#sendNow(next.request, next.settle);
      next = this.#waiting[0];
    }
  }

  /** What is under way goes on; what waits goes elsewhere (N-68). */
  #retire(): void {
    if (this.#leaving) return;
    this.#leaving = true;
    const outcome = lost('The server is shutting down');
    for (const { settle } of this.#waiting.splice(0)) settle(outcome);
    this.#ended(this);
  }

  #leave(): Promise<void> {
    this.#farewell ??= this.#sayGoodbye();
    return this.#farewell;
  }

  async #sayGoodbye(): Promise<void> {
    if (this.#lost !== undefined) return;
    const goodbye = encodeRequest(
      { flags: 0, command: Command.disconnect, cookieHigh: 0, cookieLow: 0, offset: 0, length: 0 },
      this.agreement.extended,
    );
    await new Promise<void>((resolve) => {
      this.#over.signal.addEventListener('abort', () => resolve(), { once: true });
      this.#stream.write([goodbye], resolve);
    });
    this.#stream.end();
    await this.#clock.sleep(GOODBYE_MS, this.#over.signal).catch(() => {});
    this.#lose('The connection is closed');
  }

  #lose(text: string, cause?: unknown, violation = false): void {
    if (this.#lost !== undefined) return;
    const outcome = lost(text, cause, violation);
    this.#lost = outcome;
    const retired = this.#leaving;
    this.#stream.destroy();
    const requests = [...this.#pending.values(), ...this.#waiting];
    this.#pending.clear();
    this.#waiting = [];
    for (const { settle } of requests) settle(outcome);
    this.#over.abort();
    this.#idle?.();
    if (!retired) this.#ended(this);
  }
}

/** What depends on the headers: a request may have been made for a server with others, before that one was lost. */
function onWire({ command, flags, length }: ClientRequest, extended: boolean): { flags: number; length: number } {
  if (extended) return { flags: command === Command.write ? flags | CommandFlag.payloadLength : flags, length };
  // Only status is asked for over more; the answer may be for less.
  return { flags, length: Math.min(length, LENGTH_MAX) };
}

function payloadOf({ command, length }: ClientRequest): number {
  return command === Command.read || command === Command.write ? length : 0;
}

function lost(text: string, cause?: unknown, violation = false): Extract<Outcome, { kind: 'lost' }> {
  return { kind: 'lost', error: new BlockError('EIO', text, { cause }), violation };
}
