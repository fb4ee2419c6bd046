/** Connections in memory between our NBD client and our server, or a server that says what a test tells it to. */

import { viewOf } from '../../src/bytes/big-endian.ts';
import type { ByteStream, ByteStreamListener } from '../../src/core/byte-stream.ts';
import type { Disk } from '../../src/core/disk.ts';
import { BlockError, errorText } from '../../src/core/errors.ts';
import { Graph } from '../../src/core/graph.ts';
import type { Host } from '../../src/core/host.ts';
import type { NestedOptions } from '../../src/core/options.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { ByteQueue } from '../../src/nbd/byte-queue.ts';
import { NbdClient, type NbdClientOptions } from '../../src/nbd/client/client.ts';
import type { ClientHandshakeOptions } from '../../src/nbd/client/handshake.ts';
import { HandshakeFlag, InfoType, Option, ReplyType, TransmissionFlag } from '../../src/nbd/protocol.ts';
import type { ExportOptions } from '../../src/nbd/server/export.ts';
import { NbdServer, type NbdServerOptions } from '../../src/nbd/server/server.ts';
import { decodeRequest, greeting, optionReply, putChunk, putSimpleReply, type Request } from '../../src/nbd/wire.ts';
import { SimHost } from '../../src/testing/index.ts';

/** Two ends of a connection: what one writes the other is told, never in the same turn. */
export function streamPair(): [PipeEnd, PipeEnd] {
  const [one, other] = [new PipeEnd(), new PipeEnd()];
  one.other = other;
  other.other = one;
  return [one, other];
}

export class PipeEnd implements ByteStream {
  readonly peer = 'memory';
  other: PipeEnd | undefined;
  #listener: ByteStreamListener | undefined;
  #held: (() => void)[] = [];
  #paused = false;
  closed = false;
  ended = false;
  #told = false;

  listen(listener: ByteStreamListener): void {
    this.#listener = listener;
    this.#deliver();
  }

  write(pieces: readonly Uint8Array[], done: () => void): void {
    const copies = pieces.map((piece) => piece.slice());
    const { other } = this;
    if (!this.closed && !this.ended) {
      queueMicrotask(() => {
        for (const copy of copies) other?.receive(() => other.#listener?.data(copy));
      });
    }
    queueMicrotask(done);
  }

  end(): void {
    if (this.ended || this.closed) return;
    this.ended = true;
    const { other } = this;
    queueMicrotask(() => other?.receive(() => other.#listener?.end()));
    if (other?.ended) this.destroy();
  }

  destroy(error?: Error): void {
    if (this.closed) return;
    this.closed = true;
    this.#tellClosed(error);
    this.other?.lost();
  }

  /** The other end is gone; what it has sent is told first. */
  lost(): void {
    queueMicrotask(() =>
      queueMicrotask(() => {
        if (this.closed) return;
        this.closed = true;
        this.#tellClosed();
      }),
    );
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    queueMicrotask(() => this.#deliver());
  }

  receive(tell: () => void): void {
    if (this.closed) return;
    this.#held.push(tell);
    this.#deliver();
  }

  #deliver(): void {
    while (!this.#paused && this.#listener !== undefined) {
      const next = this.#held.shift();
      if (next === undefined) return;
      next();
    }
  }

  #tellClosed(error?: Error): void {
    if (this.#told) return;
    this.#told = true;
    queueMicrotask(() => this.#listener?.close(error));
  }
}

/** A host whose connections a function makes. */
export function hostWith(connect: NonNullable<Host['connect']>, sim = new SimHost()): Host & { readonly sim: SimHost } {
  return {
    sim,
    files: sim.files,
    clock: sim.clock,
    random: (target) => sim.random(target),
    warn: (message) => sim.warn(message),
    notice: (message) => sim.notice(message),
    watched: () => false,
    publish() {},
    connect,
  };
}

export function refuseConnection(): never {
  throw new BlockError('ECONNREFUSED', errorText('ECONNREFUSED'));
}

/** A disk served in memory, and a host that reaches the server under any address. */
export class Loopback {
  readonly host: Host & { readonly sim: SimHost };
  readonly graph: Graph;
  server: NbdServer;
  /** Connections made, the newest last. */
  readonly streams: PipeEnd[] = [];
  down = false;

  readonly disk: Disk;

  private constructor(disk: Disk, options: NbdServerOptions, exported: ExportOptions) {
    this.disk = disk;
    this.server = new NbdServer(disk.graph.host, options);
    this.server.addExport(disk, exported);
    this.host = hostWith(async () => {
      if (this.down) refuseConnection();
      const [client, server] = streamPair();
      this.streams.push(client);
      this.server.accept(server);
      return client;
    });
    this.graph = new Graph({ host: this.host, drivers: DRIVERS });
  }

  static async start(
    tree: NestedOptions = { driver: 'memory', size: 1 << 20 },
    options: NbdServerOptions & { export?: ExportOptions; writable?: boolean } = {},
  ): Promise<Loopback> {
    const { export: exported = {}, writable = true, ...rest } = options;
    const disk = await new Graph({ host: new SimHost(), drivers: DRIVERS }).open(tree, { writable });
    return new Loopback(disk, rest, exported);
  }

  open(options: { writable?: boolean } & NestedOptions = {}): Promise<Disk> {
    const { writable = true, ...own } = options;
    return this.graph.open({ driver: 'nbd', path: '/s', ...own }, { writable: writable === true });
  }

  client(options: Partial<NbdClientOptions> = {}, handshake: Partial<ClientHandshakeOptions> = {}): Promise<NbdClient> {
    return NbdClient.open(
      clientOptions(this.host, { ...options, handshake: { export: '', contexts: [], ...handshake } }),
    );
  }

  /** Cuts all connections off, as a server that is killed does. */
  kill(): void {
    for (const stream of this.streams.splice(0)) stream.other?.destroy();
  }
}

export function clientOptions(host: Host, options: Partial<NbdClientOptions> = {}): NbdClientOptions {
  return {
    clock: host.clock,
    connect: (signal) => host.connect?.({ type: 'unix', path: '/s' }, { signal }) ?? refuseConnection(),
    handshake: { export: '', contexts: [] },
    ...options,
  };
}

export interface FakeExport {
  readonly size?: number | bigint;
  readonly flags?: number;
  /** Undefined: BLOCK_SIZE is not sent. */
  readonly blockSize?: readonly [number, number, number] | undefined;
  readonly structured?: boolean;
  readonly extended?: boolean;
  readonly contexts?: readonly (readonly [number, string])[];
}

const ALL_FLAGS =
  TransmissionFlag.hasFlags |
  TransmissionFlag.sendFlush |
  TransmissionFlag.sendFua |
  TransmissionFlag.sendTrim |
  TransmissionFlag.sendWriteZeroes |
  TransmissionFlag.sendDf |
  TransmissionFlag.sendCache;

/** The server's end, by the bytes: shakes hands as it is told, then leaves requests and replies to the test. */
export class FakeServer {
  readonly stream: PipeEnd;
  readonly clientEnd: PipeEnd;
  readonly input = new ByteQueue();
  /** Options in the order they came. */
  readonly options: { readonly option: number; readonly data: Uint8Array }[] = [];
  readonly asked: FakeExport;
  closed = false;
  #wake: () => void = () => {};

  constructor(asked: FakeExport = {}) {
    this.asked = asked;
    [this.clientEnd, this.stream] = streamPair();
    this.stream.listen({
      data: (bytes) => {
        this.input.push(bytes);
        this.#wake();
      },
      end: () => {
        this.closed = true;
        this.#wake();
      },
      close: () => {
        this.closed = true;
        this.#wake();
      },
    });
  }

  send(...pieces: Uint8Array[]): void {
    this.stream.write(pieces, () => {});
  }

  async take(count: number): Promise<Uint8Array> {
    for (;;) {
      const taken = this.input.take(count);
      if (taken !== undefined) return taken;
      if (this.closed) throw new TypeError('the client is gone');
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** When the client has closed the connection. */
  async whenClosed(): Promise<void> {
    while (!this.closed) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async greet(flags: number = HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes): Promise<number> {
    this.send(greeting(flags));
    return viewOf(await this.take(4)).getUint32(0);
  }

  async option(): Promise<{ readonly option: number; readonly data: Uint8Array }> {
    const head = viewOf(await this.take(16));
    const found = { option: head.getUint32(8), data: await this.take(head.getUint32(12)) };
    this.options.push(found);
    return found;
  }

  reply(option: number, type: number, data: Uint8Array = new Uint8Array(0)): void {
    this.send(optionReply(option, type, data));
  }

  /** From the greeting to transmission, as the fake export says. */
  async shake(): Promise<this> {
    await this.greet();
    for (;;) {
      const { option } = await this.option();
      if (option === Option.go) break;
      this.#answer(option);
    }
    const { size = 1 << 20, flags = ALL_FLAGS, blockSize } = this.asked;
    this.reply(Option.go, ReplyType.info, exportInfo(size, flags));
    if (blockSize !== undefined) this.reply(Option.go, ReplyType.info, blockSizeInfo(...blockSize));
    this.reply(Option.go, ReplyType.ack);
    return this;
  }

  #answer(option: number): void {
    const { structured = true, extended = false, contexts = [] } = this.asked;
    const takes = (option === Option.structuredReply && structured) || (option === Option.extendedHeaders && extended);
    if (option === Option.setMetaContext) {
      for (const [id, name] of contexts) {
        this.reply(
          option,
          ReplyType.metaContext,
          bytes(4, (view) => view.setUint32(0, id), new TextEncoder().encode(name)),
        );
      }
    }
    this.reply(option, takes || option === Option.setMetaContext ? ReplyType.ack : ReplyType.errUnsup);
  }

  async request(): Promise<Request> {
    const extended = this.asked.extended === true;
    const found = decodeRequest(await this.take(extended ? 32 : 28), extended);
    if (found === undefined) throw new TypeError('wrong magic');
    return found;
  }

  simple(request: Pick<Request, 'cookieHigh' | 'cookieLow'>, error = 0, data = new Uint8Array(0)): void {
    const reply = new Uint8Array(16);
    putSimpleReply(reply, 0, error, request);
    this.send(reply, data);
  }

  chunk(request: Request, type: number, payload: Uint8Array = new Uint8Array(0), done = true, length?: number): void {
    const extended = this.asked.extended === true;
    const head = new Uint8Array(extended ? 32 : 20);
    putChunk(head, 0, { type, done, length: length ?? payload.length }, request, extended);
    this.send(head, payload);
  }
}

export function bytes(length: number, put: (view: DataView) => void, tail = new Uint8Array(0)): Uint8Array {
  const made = new Uint8Array(length + tail.length);
  put(viewOf(made));
  made.set(tail, length);
  return made;
}

export function exportInfo(size: number | bigint, flags: number): Uint8Array {
  return bytes(12, (view) => {
    view.setUint16(0, InfoType.export);
    view.setBigUint64(2, BigInt(size));
    view.setUint16(10, flags);
  });
}

export function blockSizeInfo(minimum: number, preferred: number, maximum: number): Uint8Array {
  return bytes(14, (view) => {
    view.setUint16(0, InfoType.blockSize);
    view.setUint32(2, minimum);
    view.setUint32(6, preferred);
    view.setUint32(10, maximum);
  });
}

/** A client of a fake server that has shaken hands. */
export async function faked(
  asked: FakeExport = {},
  options: Partial<NbdClientOptions> = {},
): Promise<{ readonly server: FakeServer; readonly client: NbdClient; readonly host: Host }> {
  const server = new FakeServer(asked);
  let connections = 0;
  const host = hostWith(async () => (connections++ === 0 ? server.clientEnd : refuseConnection()));
  const contexts = (asked.contexts ?? []).map(([, name]) => name);
  const opening = NbdClient.open(clientOptions(host, { handshake: { export: '', contexts }, ...options }));
  await Promise.all([server.shake(), opening]);
  return { server, client: await opening, host };
}
