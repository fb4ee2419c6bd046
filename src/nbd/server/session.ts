/** One client's connection: handshake, perhaps TLS, transmission, end (N-20, N-21, N-74, N-80, N-81, N-103). */
import type { ByteStream } from '../../core/byte-stream.ts';
import { BlockError } from '../../core/errors.ts';
import type { Host } from '../../core/host.ts';
import { ByteQueue } from '../byte-queue.ts';
import { emit } from './events.ts';
import type { NbdExport } from './export.ts';
import type { ExportDirectory } from './export-info.ts';
import { type HandshakeOptions, type HandshakeStep, type Negotiated, ServerHandshake } from './handshake.ts';
import type { BufferPool } from './output.ts';
import { Transmission, type TransmissionCounts } from './transmission.ts';

/** Input that a client sends ahead of what is read; it is paused past this. */
const AHEAD_MAX = 1 << 20;
/** Options are not answered while so much of the answers waits to be sent, the system's own cost of each counted. */
const UNSENT_MAX = 256 * 1024;
const SEND_COST = 512;
/** After our last byte the client's may still be on their way; so long they are read and dropped, milliseconds. */
const LINGER_MS = 1000;

/** An identity that TLS has proved: a certificate's distinguished name, or the user of a shared key. */
export interface TlsIdentity {
  readonly kind: 'x509' | 'psk';
  readonly name: string;
}

/** Who asks for what, for who decides about it. */
export interface NbdClient {
  readonly connection: number;
  readonly peer: string;
  /** Undefined: without TLS, or TLS without proof of who it is. */
  readonly identity: TlsIdentity | undefined;
}

/** The server's side of TLS. */
export interface ServerTls {
  readonly required: boolean;
  /** The server's side of TLS on a stream of which nothing is read; rejects if it does not come about. */
  start(stream: ByteStream): Promise<{ readonly stream: ByteStream; readonly identity: TlsIdentity | undefined }>;
}

export interface SessionOptions {
  readonly host: Host;
  readonly pool: BufferPool;
  readonly connection: number;
  readonly exports: ExportDirectory & { exportOf(info: Negotiated['export']): NbdExport | undefined };
  readonly tls: ServerTls | undefined;
  /** Milliseconds; 0: off. */
  readonly handshakeTimeoutMs: number;
  readonly idleTimeoutMs: number;
  /** Called after TLS, and again when an export was chosen. */
  readonly authorize: (client: NbdClient, exportName: string | undefined) => Promise<boolean>;
  readonly log: (line: string) => void;
  /** Called once, when all is over. */
  readonly ended: (session: Session) => void;
}

export class Session {
  readonly #options: SessionOptions;
  #stream: ByteStream;
  #input = new ByteQueue();
  #handshake: ServerHandshake;
  #transmission: Transmission | undefined;
  #export: NbdExport | undefined;
  #identity: TlsIdentity | undefined;
  /** Waits for TLS or for who decides: input stays where it is. */
  #waiting = false;
  #paused = false;
  #advancing = false;
  #more = false;
  /** The client sends no more. */
  #inputEnded = false;
  #leaving = false;
  #over = false;
  #reason: string | undefined;
  /** Bytes of the handshake that the system has not taken. */
  #unsent = 0;
  #lastInput: number;
  readonly #timers = new AbortController();
  #closed: () => void = () => {};
  /** Resolves when the connection is over. */
  readonly closed: Promise<void> = new Promise((resolve) => {
    this.#closed = resolve;
  });

  constructor(stream: ByteStream, options: SessionOptions) {
    this.#stream = stream;
    this.#options = options;
    this.#lastInput = options.host.clock.now();
    const { tls } = options;
    const mode: HandshakeOptions['tls'] = tls === undefined ? 'off' : tls.required ? 'required' : 'optional';
    this.#handshake = new ServerHandshake({
      exports: options.exports,
      tls: mode,
      send: (bytes) => this.#sendAnswer(bytes),
      full: () => this.#unsent >= UNSENT_MAX,
    });
  }

  /** The export in use; undefined before transmission. */
  get export(): NbdExport | undefined {
    return this.#export;
  }

  get counts(): TransmissionCounts | undefined {
    return this.#transmission?.counts;
  }

  /** Greets the client, which may have said something `early`, and may have `ended` its half. */
  start(early: readonly Uint8Array[] = [], ended = false): void {
    const { host, connection, handshakeTimeoutMs } = this.#options;
    this.#listen();
    emit(host, 'diskwright:nbd:connect', { connection, peer: this.#stream.peer });
    this.#handshake.start();
    if (handshakeTimeoutMs > 0) this.#after(handshakeTimeoutMs, () => this.#cutHandshake());
    for (const bytes of early) this.#input.push(bytes);
    this.#inputEnded = ended;
    if (early.length > 0) this.#advance();
  }

  /** Requests from now on are refused; ends when those under way are answered (N-81), or options are no longer asked. */
  async stop(): Promise<void> {
    this.#handshake.stop();
    const transmission = this.#transmission;
    if (transmission === undefined) return;
    transmission.stop();
    await transmission.whenIdle();
    this.#leave();
  }

  /** Resolves when nothing of this client's requests is under way, answered or not. */
  async drained(): Promise<void> {
    await this.#transmission?.whenIdle();
  }

  /** Ends at once. */
  destroy(reason?: string): void {
    this.#reason ??= reason;
    this.#stream.destroy();
    this.#finish();
  }

  #listen(): void {
    this.#stream.listen({
      data: (bytes, more = false) => this.#takeInput(bytes, more),
      rest: () => this.#transmission?.flush(),
      busy: () => (this.#transmission?.underWay ?? 0) > 0,
      end: () => {
        this.#inputEnded = true;
        this.#advance();
      },
      close: () => this.#finish(),
    });
  }

  /** True: `bytes` are not needed any more. `more`: answers may wait until it is seen whether more has come. */
  #takeInput(bytes: Uint8Array, more: boolean): boolean {
    if (this.#over || this.#leaving) return true;
    if (this.#options.idleTimeoutMs > 0) this.#lastInput = this.#options.host.clock.now();
    this.#input.push(bytes);
    this.#more = more;
    this.#advance();
    this.#more = false;
    if (this.#input.length > AHEAD_MAX && (this.#waiting || this.#paused)) this.#pause();
    return this.#input.length === 0 && this.#transmission?.takeKept() === false;
  }

  /** Takes what can be taken; what asks for it again while it does so is served by the same loop. */
  #advance(): void {
    if (this.#advancing) return;
    this.#advancing = true;
    try {
      while (!this.#over && !this.#leaving && !this.#waiting && this.#step()) {
        // Go on.
      }
    } finally {
      this.#advancing = false;
    }
  }

  /** True: there may be more to do. */
  #step(): boolean {
    if (this.#transmission !== undefined) return this.#transmit(this.#transmission);
    const step = this.#handshake.advance(this.#input);
    return this.#handshakeStep(step);
  }

  #handshakeStep(step: HandshakeStep): boolean {
    switch (step.kind) {
      case 'more':
        if (this.#inputEnded) this.#leave();
        return false;
      case 'full':
        this.#pause();
        return false;
      case 'close':
        this.#reason = step.reason;
        if (step.reason !== undefined) this.#options.log(`option negotiation failed: ${step.reason}`);
        this.#leave();
        return false;
      case 'tls':
        this.#wait(() => this.#startTls());
        return false;
      case 'transmission':
        this.#wait(() => this.#beginTransmission(step.negotiated));
        return false;
    }
  }

  #sendAnswer(bytes: Uint8Array): void {
    const cost = bytes.length + SEND_COST;
    this.#unsent += cost;
    this.#stream.write([bytes], () => {
      this.#unsent -= cost;
      if (this.#transmission !== undefined || !this.#paused || this.#unsent >= UNSENT_MAX) return;
      this.#resume();
      this.#advance();
    });
  }

  /** Leaves input where it is until `work` is done. */
  #wait(work: () => Promise<void>): void {
    this.#waiting = true;
    void work()
      .catch((error: unknown) => {
        if (this.#over) return;
        const text = error instanceof Error ? error.message : String(error);
        this.#options.log(`option negotiation failed: ${text}`);
        this.destroy(text);
      })
      .finally(() => {
        this.#waiting = false;
        this.#resume();
        this.#advance();
      });
  }

  async #startTls(): Promise<void> {
    const { tls, authorize } = this.#options;
    // What came behind the option in plain text is someone else's (N-103).
    if (tls === undefined || this.#input.length > 0) throw new TypeError('plain text after starttls');
    const { stream, identity } = await tls.start(this.#stream);
    this.#stream = stream;
    if (this.#over) {
      stream.destroy();
      return;
    }
    this.#identity = identity;
    this.#listen();
    this.#handshake.startedTls();
    if (!(await authorize(this.#client(), undefined))) {
      const name = identity?.name ?? '(no identity)';
      throw new BlockError('EACCES', `TLS x509 authz check for ${name} is denied`);
    }
  }

  async #beginTransmission(negotiated: Negotiated): Promise<void> {
    const { exports, host, pool, connection, authorize, idleTimeoutMs } = this.#options;
    const found = exports.exportOf(negotiated.export);
    if (found === undefined || this.#over) return this.destroy('the export is gone');
    if (!(await authorize(this.#client(), found.info.name))) return this.destroy('not authorized');
    if (this.#over) return;
    const contexts = negotiated.contexts.flatMap((name, index) => {
      const context = found.contexts.find((each) => each.name === name);
      return context === undefined ? [] : [{ id: index + 1, context }];
    });
    this.#export = found;
    this.#transmission = new Transmission({
      disk: found.disk,
      offset: found.offset,
      negotiated,
      contexts,
      clock: host.clock,
      pool,
      sink: this.#stream,
      resume: () => {
        this.#resume();
        this.#advance();
      },
    });
    this.#stream.hasten?.();
    emit(host, 'diskwright:nbd:export', { connection, peer: this.#stream.peer, export: found.info.name });
    if (idleTimeoutMs > 0) this.#watchIdle(idleTimeoutMs);
  }

  #client(): NbdClient {
    return { connection: this.#options.connection, peer: this.#stream.peer, identity: this.#identity };
  }

  #transmit(transmission: Transmission): boolean {
    const step = transmission.advance(this.#input, this.#more);
    if (step === 'broken') {
      this.#options.log('request parsing failed: invalid magic or length');
      this.destroy('the client does not speak the protocol');
    } else if (step === 'full') this.#pause();
    else if (step === 'disconnect' || this.#inputEnded) {
      this.#leaving = true;
      // All that came before is answered first (N-80).
      void transmission.whenIdle().then(() => this.#leave());
    }
    return false;
  }

  #pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.#stream.pause();
  }

  #resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#stream.resume();
  }

  /** Sends what is left, and no more. */
  #leave(): void {
    if (this.#over) return;
    this.#leaving = true;
    // Dropped, but read: else the system would cut off what we have sent.
    this.#resume();
    this.#stream.end();
    this.#after(LINGER_MS, () => this.destroy());
  }

  #cutHandshake(): void {
    if (this.#transmission !== undefined) return;
    this.#options.log('option negotiation failed: it took too long');
    this.destroy('the handshake took too long');
  }

  #watchIdle(idleTimeoutMs: number): void {
    const left = this.#lastInput + idleTimeoutMs - this.#options.host.clock.now();
    this.#after(Math.max(1, left), () => {
      const idle = this.#options.host.clock.now() - this.#lastInput >= idleTimeoutMs;
      if (idle && this.#transmission?.underWay === 0) this.destroy('idle for too long');
      else {
        if (idle) this.#lastInput = this.#options.host.clock.now();
        this.#watchIdle(idleTimeoutMs);
      }
    });
  }

  #after(milliseconds: number, work: () => void): void {
    this.#options.host.clock.sleep(milliseconds, this.#timers.signal).then(work, () => {});
  }

  #finish(): void {
    if (this.#over) return;
    this.#over = true;
    this.#timers.abort();
    const { host, connection, ended } = this.#options;
    const { requests = 0, bytesRead = 0, bytesWritten = 0, errors = 0 } = this.counts ?? {};
    emit(host, 'diskwright:nbd:disconnect', {
      connection,
      peer: this.#stream.peer,
      export: this.#export?.info.name,
      requests,
      bytesRead,
      bytesWritten,
      errors,
      reason: this.#reason,
    });
    ended(this);
    this.#closed();
  }
}
