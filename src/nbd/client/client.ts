/**
 * An NBD client: an export over one or more connections, made again when they are lost (N-132, N-136 to N-139). It opens no
 * socket itself; whatever gives a stream of bytes will do.
 */
import type { ByteStream } from '../../core/byte-stream.ts';
import { BlockError } from '../../core/errors.ts';
import type { HostClock } from '../../core/host.ts';
import { Command, CommandFlag } from '../protocol.ts';
import { Connection } from './connection.ts';
import type { StartTls } from './conversation.ts';
import { type Dialed, dial } from './dial.ts';
import { changeOf, checkStrictly, type ExportFacts, exportFacts } from './facts.ts';
import type { Agreement, ClientHandshakeOptions } from './handshake.ts';
import type { ClientRequest, ContextExtents, Outcome } from './pending.ts';

/** Options of a connection. */
export interface NbdClientOptions {
  readonly clock: HostClock;
  /** Opens a stream to the server. Throws BlockError. */
  readonly connect: (signal: AbortSignal | undefined) => Promise<ByteStream>;
  /** Absent: without TLS. */
  readonly startTls?: StartTls | undefined;
  readonly handshake: Omit<ClientHandshakeOptions, 'tls'>;
  /** So long a server that is not there is waited for at opening, milliseconds. 0: not at all. Default 0. */
  readonly openTimeoutMs?: number;
  /** So long requests wait for a lost server to come back, milliseconds. 0: not at all. Default 0. */
  readonly reconnectDelayMs?: number;
  /** At most, where the server allows several: 1 to 4. Default 4. */
  readonly connections?: number;
  /** False: requests are sent as they are, also those that the server will refuse. Default true. */
  readonly strict?: boolean;
  /** Of the opening. */
  readonly signal?: AbortSignal | undefined;
  /** From then on, requests under way fail when nothing comes from the server for {@link QUIET_MS}. */
  readonly interrupted?: AbortSignal | undefined;
}

/** Of one request. Its buffer belongs to the client until the reply, also when the caller has given up (N-136). */
export interface RequestOptions {
  readonly signal?: AbortSignal | undefined;
}

interface DurableOption {
  /** Not answered before it is durable. ENOTSUP where the server does not offer that. */
  readonly fua?: boolean | undefined;
}

interface ZeroOptions extends RequestOptions, DurableOption {
  readonly keep?: boolean;
  readonly fast?: boolean;
}

/** Between tries to reach the server, milliseconds; each is twice the last. */
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 1000;
/** One try at most, so that a server that is silent does not hold up the next. */
const TRY_MS = 10_000;
/** What an interrupted program waits for a word from the server, milliseconds. */
const QUIET_MS = 5000;
/** With so many requests on every connection another one is worth while. */
const BUSY = 8;

/** A connection to an NBD server that has come to an export. Requests throw BlockError; several may be under way. */
export class NbdClient implements AsyncDisposable {
  readonly agreement: Agreement;
  readonly facts: ExportFacts;
  readonly #options: NbdClientOptions;
  #connections: Connection[] = [];
  /** Ends what goes on behind. */
  readonly #closing = new AbortController();
  readonly #closed = new AbortController();
  #underWay = 0;
  #whenIdle: (() => void) | undefined;
  #reconnecting = false;
  /** Requests wait no longer than this, by the host's clock. */
  #waitUntil = 0;
  #waiters: ((error?: BlockError) => void)[] = [];
  /** Nothing will ever be answered again. */
  #final: BlockError | undefined;
  #lastError: BlockError | undefined;
  #growing = false;
  /** Writes that were answered, and how many of them the last flush covered. */
  #answered = 0;
  #flushed = 0;
  /** Others were answered by a server that is gone. */
  #lostWrites = false;
  #connectedAt = Number.NEGATIVE_INFINITY;

  private constructor(options: NbdClientOptions, first: Dialed) {
    this.#options = options;
    this.agreement = first.agreement;
    this.facts = exportFacts(first.agreement);
    this.#adopt(first);
    const signal = this.#closed.signal;
    options.interrupted?.addEventListener('abort', () => void this.#waitForWords(), { once: true, signal });
  }

  /** Throws BlockError, and the signal's reason. */
  static async open(options: NbdClientOptions): Promise<NbdClient> {
    const { clock, openTimeoutMs = 0, signal } = options;
    const until = clock.now() + openTimeoutMs;
    for (let tries = 0; ; tries++) {
      const left = until - clock.now();
      const outcome = openTimeoutMs > 0 ? await dialWithin(options, left, signal) : await dialOnce(options, signal);
      if (outcome.kind === 'open') return new NbdClient(options, outcome.dialed);
      signal?.throwIfAborted();
      const pause = pauseAfter(tries);
      // A try that cannot end in time is not begun.
      if (!outcome.passes || clock.now() + pause >= until) throw outcome.error;
      await clock.sleep(pause, signal);
    }
  }

  /** How many there are now. */
  get connectionCount(): number {
    return this.#connections.length;
  }

  /** Fills `target`, or leaves zeroes in it and throws BlockError. */
  async read(offset: number, target: Uint8Array, { signal, df = false }: RequestOptions & { df?: boolean } = {}) {
    const request = { command: Command.read, flags: df ? CommandFlag.df : 0, offset, length: target.length, target };
    try {
      await this.#run(request, signal);
    } catch (error) {
      target.fill(0);
      throw error;
    }
  }

  async write(offset: number, data: Uint8Array, { signal, fua = false }: RequestOptions & DurableOption = {}) {
    const flags = fua ? CommandFlag.fua : 0;
    await this.#run({ command: Command.write, flags, offset, length: data.length, data }, signal);
  }

  /** `keep`: the range keeps its storage, or gets some. `fast`: ENOTSUP rather than writing zeroes one by one. */
  async writeZeroes(
    offset: number,
    length: number,
    { signal, keep = false, fast = false, fua = false }: ZeroOptions = {},
  ) {
    const flags = (keep ? CommandFlag.noHole : 0) | (fast ? CommandFlag.fastZero : 0) | (fua ? CommandFlag.fua : 0);
    await this.#run({ command: Command.writeZeroes, flags, offset, length }, signal);
  }

  async trim(offset: number, length: number, { signal }: RequestOptions = {}) {
    await this.#run({ command: Command.trim, flags: 0, offset, length }, signal);
  }

  /** Makes all writes that were answered durable. EIO when some may have been lost with the server (N-138). */
  async flush({ signal }: RequestOptions = {}) {
    if (this.#options.strict !== false && !this.facts.canFlush) return;
    const covers = this.#answered;
    await this.#run({ command: Command.flush, flags: 0, offset: 0, length: 0 }, signal);
    this.#flushed = Math.max(this.#flushed, covers);
  }

  /** Extents from `offset` on by the context's name; with `one` exactly one, no longer than `length`. */
  async blockStatus(
    offset: number,
    length: number,
    { signal, one = false }: RequestOptions & { one?: boolean } = {},
  ): Promise<ReadonlyMap<string, ContextExtents>> {
    const flags = one ? CommandFlag.reqOne : 0;
    return this.#run({ command: Command.blockStatus, flags, offset, length }, signal);
  }

  /** Requests that wait for a lost server fail now. */
  giveUp(): void {
    this.#waitUntil = 0;
    this.#wake(this.#gone());
  }

  /** Waits for requests, says goodbye to the server, and closes. EIO as of {@link flush}, where nobody flushed. */
  async close(): Promise<void> {
    this.#final ??= new BlockError('ECANCELED', 'The connection to the NBD server is closed');
    this.#closing.abort();
    this.#wake(this.#final);
    while (this.#underWay > 0) {
      await new Promise<void>((resolve) => {
        this.#whenIdle = resolve;
      });
    }
    await Promise.all(this.#connections.map((connection) => connection.close()));
    this.#closed.abort();
    this.#tellOfLostWrites();
  }

  /** The program is to end: a server that says nothing cannot hold it up. */
  async #waitForWords(): Promise<void> {
    const { signal } = this.#closed;
    const heard = () => this.#connections.reduce((sum, { received }) => sum + received, 0);
    for (let before = -1; !signal.aborted; ) {
      const now = heard();
      if (now === before) {
        this.#final = new BlockError('EIO', 'The NBD server does not answer');
        for (const connection of this.#connections) connection.destroy();
        this.#wake(this.#final);
        return;
      }
      // What nobody waits for need not come.
      before = this.#underWay > 0 ? now : -1;
      await this.#options.clock.sleep(QUIET_MS, signal).catch(() => {});
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Resolves with extents by the context's name. The caller is let go when the signal is aborted, the request goes on. */
  async #run(request: ClientRequest, signal: AbortSignal | undefined): Promise<ReadonlyMap<string, ContextExtents>> {
    if (this.#options.strict !== false) checkStrictly(request, this.facts);
    signal?.throwIfAborted();
    if (signal === undefined) return this.#track(request);
    let stop = () => {};
    const stopped = new Promise<never>((_, reject) => {
      stop = () => reject(signal.reason);
      signal.addEventListener('abort', stop, { once: true });
    });
    try {
      return await Promise.race([this.#track(request), stopped]);
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  async #track(request: ClientRequest): Promise<ReadonlyMap<string, ContextExtents>> {
    this.#underWay++;
    try {
      return await this.#send(request);
    } finally {
      if (--this.#underWay === 0) this.#whenIdle?.();
    }
  }

  /** Sent again after a loss, unless it breaks the protocol, or is lost still when the delay since its first loss is over. */
  async #send(request: ClientRequest): Promise<ReadonlyMap<string, ContextExtents>> {
    const { clock, reconnectDelayMs = 0 } = this.#options;
    let until = Number.POSITIVE_INFINITY;
    for (;;) {
      const connection = this.#pick() ?? (await this.#whenConnected(until));
      if (request.command === Command.flush) this.#tellOfLostWrites();
      const outcome = await connection.send(request);
      if (outcome.kind === 'done') {
        this.#note(request);
        return namedExtents(outcome, connection.agreement);
      }
      if (outcome.kind === 'failed') throw outcome.error;
      until = Math.min(until, clock.now() + reconnectDelayMs);
      if (outcome.violation || clock.now() >= until) throw outcome.error;
    }
  }

  #tellOfLostWrites(): void {
    if (!this.#lostWrites) return;
    this.#lostWrites = false;
    throw new BlockError('EIO', 'The NBD server went away with writes that were not flushed: they may be lost');
  }

  #note({ command, flags }: ClientRequest): void {
    const writes = command === Command.write || command === Command.writeZeroes || command === Command.trim;
    if (writes && (flags & CommandFlag.fua) === 0) this.#answered++;
  }

  /** The least busy connection. */
  #pick(): Connection | undefined {
    let best: Connection | undefined;
    for (const each of this.#connections) if (each.load < (best?.load ?? Number.POSITIVE_INFINITY)) best = each;
    if (best !== undefined && best.load >= BUSY) this.#grow();
    return best;
  }

  #adopt(dialed: Dialed): Connection {
    let lostAlready = false;
    this.#connectedAt = this.#options.clock.now();
    const connection = new Connection(dialed, this.#options.clock, (ended) => {
      lostAlready = true;
      this.#drop(ended);
    });
    if (!lostAlready) this.#connections.push(connection);
    else if (this.#connections.length === 0) this.#lose();
    return connection;
  }

  #drop(connection: Connection): void {
    if (!this.#connections.includes(connection)) return;
    this.#connections = this.#connections.filter((each) => each !== connection);
    if (this.#connections.length === 0) this.#lose();
  }

  /** The last connection is gone. */
  #lose(): void {
    if (this.#final !== undefined || this.#reconnecting) return;
    const { clock, reconnectDelayMs = 0 } = this.#options;
    if (this.#answered > this.#flushed) this.#lostWrites = true;
    this.#flushed = this.#answered;
    this.#waitUntil = clock.now() + reconnectDelayMs;
    this.#reconnecting = true;
    void this.#reconnect();
    if (reconnectDelayMs === 0) return;
    clock.sleep(reconnectDelayMs, this.#closing.signal).then(
      () => this.#wake(),
      () => {},
    );
  }

  #gone(): BlockError {
    return new BlockError('EIO', 'The connection to the NBD server is lost', { cause: this.#lastError });
  }

  /** Waits until then, and no longer than all do. */
  async #whenConnected(until: number): Promise<Connection> {
    for (;;) {
      const picked = this.#pick();
      if (picked !== undefined) return picked;
      if (this.#final !== undefined) throw this.#final;
      if (this.#options.clock.now() >= Math.min(until, this.#waitUntil)) throw this.#gone();
      await new Promise<void>((resolve, reject) => {
        this.#waiters.push((error) => (error === undefined ? resolve() : reject(error)));
      });
    }
  }

  #wake(error?: BlockError): void {
    for (const waiter of this.#waiters.splice(0)) waiter(error);
  }

  async #reconnect(): Promise<void> {
    const { signal } = this.#closing;
    const { clock } = this.#options;
    try {
      // A server that lets us in and then cuts us off is not asked again at once.
      const since = clock.now() - this.#connectedAt;
      if (since < FIRST_PAUSE_MS) await clock.sleep(FIRST_PAUSE_MS - since, signal);
      for (let tries = 0; !signal.aborted; tries++) {
        const outcome = await dialWithin(this.#options, TRY_MS, signal);
        if (outcome.kind === 'open') {
          const change = changeOf(this.agreement, outcome.dialed.agreement);
          if (change !== undefined) return this.#refuse(outcome.dialed.stream, change);
          this.#reconnecting = false;
          if (signal.aborted) outcome.dialed.stream.destroy();
          else this.#adopt(outcome.dialed);
          this.#wake();
          return;
        }
        if (outcome.error instanceof BlockError) this.#lastError = outcome.error;
        await clock.sleep(pauseAfter(tries), signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  #refuse(stream: ByteStream, change: string): void {
    stream.destroy();
    this.#final = new BlockError('EIO', `NBD server changed: ${change}`);
    this.#wake(this.#final);
  }

  /** One more connection, where that is allowed; one that cannot be had is not asked for again. */
  #grow(): void {
    const { connections = 4 } = this.#options;
    if (this.#growing || !this.facts.manyConnections || this.#connections.length >= connections) return;
    this.#growing = true;
    void (async () => {
      const outcome = await dialOnce(this.#options, this.#closing.signal);
      if (outcome.kind === 'failed') return;
      const { stream, agreement } = outcome.dialed;
      const useless = this.#closing.signal.aborted || this.#connections.length === 0;
      if (useless || changeOf(this.agreement, agreement) !== undefined) stream.destroy();
      else {
        this.#adopt(outcome.dialed);
        this.#growing = false;
      }
    })();
  }
}

function pauseAfter(tries: number): number {
  return Math.min(FIRST_PAUSE_MS * 2 ** Math.min(tries, 10), LONGEST_PAUSE_MS);
}

function dialOnce({ connect, startTls, handshake }: NbdClientOptions, signal: AbortSignal | undefined) {
  return dial({ connect, startTls, handshake, signal });
}

/** Fails, in a way that may pass, when it takes longer. */
async function dialWithin(options: NbdClientOptions, milliseconds: number, signal: AbortSignal | undefined) {
  const own = new AbortController();
  const late = new BlockError('ETIMEDOUT', 'The NBD server did not answer in time');
  const timer = new AbortController();
  options.clock.sleep(milliseconds, timer.signal).then(
    () => own.abort(late),
    () => {},
  );
  try {
    const outcome = await dialOnce(options, signal === undefined ? own.signal : AbortSignal.any([own.signal, signal]));
    return outcome.kind === 'failed' && outcome.error === late ? { ...outcome, passes: true } : outcome;
  } finally {
    timer.abort();
  }
}

function namedExtents({ extents }: Extract<Outcome, { kind: 'done' }>, { contexts }: Agreement) {
  const named = new Map<string, ContextExtents>();
  if (extents === undefined) return named;
  for (const [name, id] of contexts) {
    const found = extents.get(id);
    if (found !== undefined) named.set(name, found);
  }
  return named;
}
