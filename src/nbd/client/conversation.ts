/** A handshake's coroutine on a stream of bytes: gives it what comes, and sends what it says (N-103, N-136, N-139). */
import type { ByteStream } from '../../core/byte-stream.ts';
import { BlockError } from '../../core/errors.ts';
import { ByteQueue } from '../byte-queue.ts';
import { Option } from '../protocol.ts';
import { optionFrame } from '../wire.ts';
import { type HandshakeDemand, isProtocolError, protocolError } from './handshake.ts';

/** The client's side of TLS on a stream of which nothing is read. */
export type StartTls = (stream: ByteStream) => Promise<ByteStream>;

export interface ConversationOptions {
  readonly startTls: StartTls | undefined;
  readonly signal: AbortSignal | undefined;
}

const NOTHING = new Uint8Array(0);
/** What a server may say in all, bytes: the longest list of exports fits, and it is kept. */
const TALK_MAX = 64 * 1024 * 1024;

export class Conversation {
  /** Another one once TLS has begun. */
  stream: ByteStream;
  /** What came and is not used. */
  readonly input = new ByteQueue();
  readonly #options: ConversationOptions;
  #ended: Error | undefined;
  #encrypting = false;
  #spoke = false;
  #taken = 0;
  #wake: () => void = () => {};

  constructor(stream: ByteStream, options: ConversationOptions) {
    this.stream = stream;
    this.#options = options;
    this.#listen();
  }

  /** Why nothing more will come; undefined: it may. */
  get ended(): Error | undefined {
    return this.#ended;
  }

  /** Throws BlockError: ECONNRESET when the server leaves; and the signal's reason. The stream is still open then. */
  async run<T>(steps: Generator<HandshakeDemand, T, Uint8Array>): Promise<T> {
    let step = steps.next(NOTHING);
    while (!step.done) step = steps.next(await this.#serve(step.value));
    return step.value;
  }

  /** Ends the stream, and says so to a server that keeps to the protocol; `reason`: what was thrown, if anything was. */
  end(reason?: unknown): void {
    const polite = this.#spoke && !this.#encrypting && this.#ended === undefined && !isProtocolError(reason);
    const { stream } = this;
    if (!polite) stream.destroy();
    else stream.write([optionFrame(Option.abort, NOTHING)], () => stream.destroy());
  }

  async #serve(demand: HandshakeDemand): Promise<Uint8Array> {
    if (demand.kind === 'need') return this.#take(demand.bytes);
    if (demand.kind === 'send') {
      this.#spoke = true;
      this.stream.write([demand.bytes], () => {});
    } else await this.#encrypt();
    return NOTHING;
  }

  async #encrypt(): Promise<void> {
    const { startTls, signal } = this.#options;
    if (startTls === undefined) throw new TypeError('the coroutine asks for TLS only where it may');
    if (this.input.length > 0) throw protocolError('The server sent plain text after starttls');
    this.#encrypting = true;
    const { stream } = this;
    const stop = () => stream.destroy();
    signal?.addEventListener('abort', stop, { once: true });
    try {
      this.stream = await startTls(stream);
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    } finally {
      signal?.removeEventListener('abort', stop);
    }
    this.#encrypting = false;
    this.#listen();
    signal?.throwIfAborted();
  }

  async #take(bytes: number): Promise<Uint8Array> {
    const { signal } = this.#options;
    this.#taken += bytes;
    if (this.#taken > TALK_MAX)
      throw protocolError(`The server said more than ${TALK_MAX} bytes before it was asked for data`);
    for (;;) {
      signal?.throwIfAborted();
      const taken = this.input.take(bytes);
      if (taken !== undefined) return taken;
      if (this.#ended !== undefined) throw this.#ended;
      await this.#moreInput(signal);
    }
  }

  async #moreInput(signal: AbortSignal | undefined): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      signal?.addEventListener('abort', this.#wakeUp, { once: true });
    });
    signal?.removeEventListener('abort', this.#wakeUp);
  }

  readonly #wakeUp = () => this.#wake();

  #listen(): void {
    const { stream } = this;
    const over = (cause?: Error) => {
      if (stream !== this.stream) return;
      const text = 'The server ended the connection during the handshake';
      this.#ended ??= new BlockError('ECONNRESET', text, { cause });
      this.#wake();
    };
    stream.listen({
      data: (bytes) => {
        this.input.push(bytes);
        this.#wake();
      },
      end: () => over(),
      close: over,
    });
  }
}
