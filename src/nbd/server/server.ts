/**
 * The NBD server: exports, and clients that come over any stream of bytes. It opens no socket; src/node/nbd does, and a
 * page may serve a MessagePort or a WebSocket.
 */
import type { ByteStream } from '../../core/byte-stream.ts';
import type { Disk } from '../../core/disk.ts';
import { addContext, BlockError } from '../../core/errors.ts';
import type { Host } from '../../core/host.ts';
import { type ExportOptions, NbdExport } from './export.ts';
import { Exports } from './exports.ts';
import { BufferPool } from './output.ts';
import { type NbdClient, type ServerTls, Session } from './session.ts';

/** Options of a server. */
export interface NbdServerOptions {
  /** Clients at once; further ones wait ungreeted until one leaves (N-111). 0: no limit. Default 100. */
  readonly maxConnections?: number;
  /** From the greeting to transmission, TLS included, milliseconds (N-21). 0: no limit. Default 10 000. */
  readonly handshakeTimeoutMs?: number;
  /** A client that asks for nothing for so long is cut off, milliseconds. 0: never. Default 0. */
  readonly idleTimeoutMs?: number;
  /** So long `close` waits for requests under way, milliseconds. Default 5000. */
  readonly graceMs?: number;
  /** Absent: no TLS. */
  readonly tls?: ServerTls | undefined;
  /**
   * Whether a client may go on: asked after TLS with `exportName` undefined, and when it has chosen an export. A client
   * without permission is cut off.
   */
  readonly authorize?: (client: NbdClient, exportName: string | undefined) => boolean | Promise<boolean>;
  /** Told why a client was cut off: a line without a program's name. Default: nobody. */
  readonly log?: (line: string) => void;
}

/** What a server has done so far. */
export interface NbdServerStats {
  /** Clients being served, clients that wait, and clients served since the start. */
  readonly connections: number;
  readonly waiting: number;
  readonly connectionsEver: number;
  readonly requests: number;
  readonly errors: number;
  /** Bytes. */
  readonly bytesRead: number;
  readonly bytesWritten: number;
}

/** Clients held back at most; further ones are dropped. */
const WAITING_MAX = 128;
/** Bytes that are read of one of them, so that it is seen when it leaves. */
const EARLY_MAX = 4096;

/** A client that is held back, and what it has said all the same. */
interface Waiting {
  readonly stream: ByteStream;
  readonly early: Uint8Array[];
  ended: boolean;
}
/** So long options of clients that have chosen no export are still answered when the server stops, milliseconds. */
const HAGGLING_GRACE_MS = 100;

/** Serves disks to NBD clients over streams that it is given. It opens no sockets: `serve` of diskwright/node does. */
export class NbdServer implements AsyncDisposable {
  readonly host: Host;
  readonly #options: NbdServerOptions;
  readonly #exports = new Exports();
  readonly #pool = new BufferPool();
  readonly #sessions = new Set<Session>();
  #queue: Waiting[] = [];
  #count = 0;
  #past = { requests: 0, errors: 0, bytesRead: 0, bytesWritten: 0 };
  #closing: Promise<void> | undefined;
  #hardened: (() => void) | undefined;
  #used = false;
  /** Called when no client is being served any more, and one had reached an export since the last time (N-112). */
  onUnused: (() => void) | undefined;
  /** Called whenever the last client has left. */
  onLastLeft: (() => void) | undefined;

  constructor(host: Host, options: NbdServerOptions = {}) {
    this.host = host;
    this.#options = options;
  }

  /** More than one client at once may be served. */
  get shared(): boolean {
    return this.#limit !== 1;
  }

  get #limit(): number {
    return this.#options.maxConnections ?? 100;
  }

  /** What is offered now. */
  get exports(): readonly NbdExport[] {
    return this.#exports.all;
  }

  /**
   * Offers a disk, which stays the caller's and must stay open until the export is removed. Throws BlockError; see N-82
   * for the wordings.
   */
  addExport(disk: Disk, options: ExportOptions = {}): NbdExport {
    if (this.#closing !== undefined) throw notRunning();
    const { name = '', id = name } = options;
    this.#exports.checkNew(name, id);
    const added = new NbdExport(disk, options, this.shared);
    this.#exports.add(added);
    return added;
  }

  /** Takes an export away. EBUSY while clients use it, unless `hard`: then they are cut off (N-82). */
  async removeExport(id: string, { hard = false }: { readonly hard?: boolean } = {}): Promise<void> {
    if (this.#closing !== undefined) throw notRunning();
    const found = this.#exports.require(id);
    const users = [...this.#sessions].filter((session) => session.export === found);
    if (users.length > 0 && !hard) throw new BlockError('EBUSY', `export '${id}' still in use`);
    this.#exports.remove(found);
    for (const session of users) session.destroy('the export is removed');
    await Promise.all(users.map((session) => session.drained()));
    found.close();
  }

  /** Serves a client, now or when it is its turn. The server ends the stream. */
  accept(stream: ByteStream): void {
    const limit = this.#limit;
    if (this.#closing !== undefined) stream.destroy();
    else if (limit === 0 || this.#sessions.size < limit) this.#greet(stream);
    else if (this.#queue.length >= WAITING_MAX) stream.destroy();
    else this.#holdBack(stream);
  }

  /** What was done so far, of all exports and clients. */
  stats(): NbdServerStats {
    const sum = { ...this.#past };
    for (const { counts } of this.#sessions) add(sum, counts);
    return {
      connections: this.#sessions.size,
      waiting: this.#queue.length,
      connectionsEver: this.#count,
      ...sum,
    };
  }

  /**
   * Stops: requests under way are answered, at most for the time of grace; later ones are refused; then the disks are
   * flushed. With `hard`, also where a stop is under way, all clients are cut off at once. Throws what flushing throws.
   */
  close({ hard = false }: { readonly hard?: boolean } = {}): Promise<void> {
    this.#closing ??= this.#close(hard);
    if (hard) this.#hardened?.();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #greet(stream: ByteStream, waiting?: Waiting): void {
    const { handshakeTimeoutMs = 10_000, idleTimeoutMs = 0, tls, authorize, log = () => {} } = this.#options;
    const session = new Session(stream, {
      host: this.host,
      pool: this.#pool,
      connection: ++this.#count,
      exports: this.#exports,
      tls,
      handshakeTimeoutMs,
      idleTimeoutMs,
      authorize: async (client, exportName) => (await authorize?.(client, exportName)) ?? true,
      log,
      ended: (ended) => this.#ended(ended),
    });
    this.#sessions.add(session);
    session.start(waiting?.early, waiting?.ended);
  }

  #holdBack(stream: ByteStream): void {
    const waiting: Waiting = { stream, early: [], ended: false };
    let bytes = 0;
    const leave = () => {
      this.#queue = this.#queue.filter((each) => each !== waiting);
    };
    this.#queue.push(waiting);
    stream.listen({
      data: (piece) => {
        waiting.early.push(piece);
        bytes += piece.length;
        if (bytes > EARLY_MAX) stream.pause();
      },
      end: () => {
        waiting.ended = true;
        // It has asked for nothing, and cannot any more.
        if (bytes > 0) return;
        leave();
        stream.destroy();
      },
      close: leave,
    });
  }

  #ended(session: Session): void {
    this.#sessions.delete(session);
    add(this.#past, session.counts);
    if (session.export !== undefined) this.#used = true;
    const unused = this.#used && this.#sessions.size === 0;
    const next = this.#closing === undefined ? this.#queue.shift() : undefined;
    if (next !== undefined) {
      this.#greet(next.stream, next);
      next.stream.resume();
    }
    if (unused) {
      this.#used = false;
      this.onUnused?.();
    }
    if (this.#sessions.size === 0) this.onLastLeft?.();
  }

  async #close(hard: boolean): Promise<void> {
    for (const { stream } of this.#queue.splice(0)) stream.destroy();
    const cut = new AbortController();
    const destroyAll = () => {
      cut.abort();
      for (const session of this.#sessions) session.destroy('the server was stopped');
    };
    this.#hardened = destroyAll;
    if (hard) destroyAll();
    else await this.#stopSessions(cut.signal);
    destroyAll();
    // Nothing of a request may go on once the disks are given back.
    const failures: unknown[] = [];
    for (const each of this.#exports.all) {
      each.close();
      if (!each.disk.isOpen || !each.disk.writable) continue;
      await each.disk.flush().catch((error: unknown) => {
        failures.push(addContext(`Could not flush '${each.disk.filename}'`, error));
      });
    }
    if (failures.length > 0) throw failures[0];
  }

  /** Waits for what is under way, for those that haggle only a moment. */
  async #stopSessions(cut: AbortSignal): Promise<void> {
    const { clock } = this.host;
    const sessions = [...this.#sessions];
    const serving = sessions.filter((session) => session.export !== undefined);
    const haggling = sessions.filter((session) => session.export === undefined);
    const done = new AbortController();
    const cutOrDone = AbortSignal.any([cut, done.signal]);
    const within = async (milliseconds: number, work: Promise<unknown>) => {
      await Promise.race([work, clock.sleep(milliseconds, cutOrDone).catch(() => {})]);
    };
    const ends = (group: readonly Session[]) =>
      Promise.all(
        group.map(async (session) => {
          await session.stop();
          await session.closed;
        }),
      );
    await Promise.all([
      serving.length > 0 ? within(this.#options.graceMs ?? 5000, ends(serving)) : undefined,
      haggling.length > 0 ? within(HAGGLING_GRACE_MS, ends(haggling)) : undefined,
    ]);
    done.abort();
  }
}

function add(
  sum: { requests: number; errors: number; bytesRead: number; bytesWritten: number },
  counts: Session['counts'],
): void {
  if (counts === undefined) return;
  sum.requests += counts.requests;
  sum.errors += counts.errors;
  sum.bytesRead += counts.bytesRead;
  sum.bytesWritten += counts.bytesWritten;
}

function notRunning(): BlockError {
  return new BlockError('ECANCELED', 'NBD server not running');
}
