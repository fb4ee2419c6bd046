/** An NBD server over streams in memory, and a client that speaks the wire's bytes, good and bad. */

import { viewOf } from '../../src/bytes/big-endian.ts';
import type { ByteStream, ByteStreamListener } from '../../src/core/byte-stream.ts';
import type { Disk } from '../../src/core/disk.ts';
import { Graph } from '../../src/core/graph.ts';
import type { Host, HostClock } from '../../src/core/host.ts';
import type { NestedOptions } from '../../src/core/options.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { ByteQueue } from '../../src/nbd/byte-queue.ts';
import { Command, HandshakeFlag, isErrorReply, Option, ReplyType } from '../../src/nbd/protocol.ts';
import type { ExportOptions } from '../../src/nbd/server/export.ts';
import { NbdServer, type NbdServerOptions } from '../../src/nbd/server/server.ts';
import { clientFlags, encodeRequest, optionFrame, readLength } from '../../src/nbd/wire.ts';
import { SimHost } from '../../src/testing/index.ts';

/** Time that passes only when told to. */
export class ManualClock implements HostClock {
  #now = 0;
  #sleepers: { readonly at: number; readonly wake: () => void }[] = [];

  now(): number {
    return this.#now;
  }

  wall(): number {
    return this.#now;
  }

  sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
    if (milliseconds <= 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const sleeper = { at: this.#now + milliseconds, wake: resolve };
      this.#sleepers.push(sleeper);
      signal?.addEventListener('abort', () => {
        this.#sleepers = this.#sleepers.filter((each) => each !== sleeper);
        reject(signal.reason);
      });
    });
  }

  /** Lets time pass, and what waited for it go on. */
  async pass(milliseconds: number): Promise<void> {
    this.#now += milliseconds;
    const due = this.#sleepers.filter(({ at }) => at <= this.#now);
    this.#sleepers = this.#sleepers.filter(({ at }) => at > this.#now);
    for (const { wake } of due) wake();
    await settled();
  }
}

/** When all that needs no time has happened. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
}

/** The server's end of a connection in memory. */
class MemoryStream implements ByteStream {
  readonly peer = 'memory';
  #listener: ByteStreamListener | undefined;
  readonly #client: RawClient;
  /** Bytes for the server, while it is paused. */
  #held: (Uint8Array | 'end')[] = [];
  paused = false;
  over = false;

  constructor(client: RawClient) {
    this.#client = client;
  }

  listen(listener: ByteStreamListener): void {
    this.#listener = listener;
  }

  write(pieces: readonly Uint8Array[], done: () => void): void {
    if (!this.over) for (const piece of pieces) this.#client.arrived(piece.slice());
    if (this.over || !this.#client.stalled) queueMicrotask(done);
    else this.#client.whenRead(done);
  }

  end(): void {
    this.#client.ended('end');
  }

  destroy(): void {
    this.fail();
    this.#client.ended('cut');
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
    const held = this.#held;
    this.#held = [];
    queueMicrotask(() => {
      for (const each of held) this.deliver(each);
    });
  }

  deliver(bytes: Uint8Array | 'end'): void {
    if (this.over) return;
    if (this.paused) this.#held.push(bytes);
    else if (bytes === 'end') this.#listener?.end();
    else this.#listener?.data(bytes);
  }

  /** Bytes for the server; what it answers, by which a stream knows whether it may use their memory again. */
  offer(bytes: Uint8Array, more = false): unknown {
    return this.#listener?.data(bytes, more);
  }

  /** There is no more for now. */
  rest(): void {
    this.#listener?.rest?.();
  }

  /** The connection is lost. */
  fail(): void {
    if (this.over) return;
    this.over = true;
    queueMicrotask(() => this.#listener?.close());
  }
}

export interface OptionReply {
  readonly type: number;
  readonly data: Uint8Array;
  readonly text: string;
}

export interface WireReply {
  readonly cookie: number;
  readonly kind: 'simple' | 'chunk' | 'extended';
  readonly error: number;
  readonly type: number;
  readonly done: boolean;
  readonly payload: Uint8Array;
  /** Of error chunks. */
  readonly text: string;
}

/** Bytes in, bytes out; waits for nothing but bytes. */
export class RawClient {
  readonly stream: MemoryStream = new MemoryStream(this);
  readonly input = new ByteQueue();
  /** `end`: the server has sent all; `cut`: it has dropped the connection. */
  closed: 'no' | 'end' | 'cut' = 'no';
  /** Takes nothing from the server any more. */
  stalled = false;
  extended = false;
  structured = false;
  #pendingDone: (() => void)[] = [];
  #waiting: (() => void)[] = [];
  /** Bytes that the server has sent. */
  receivedBytes = 0;

  arrived(bytes: Uint8Array): void {
    this.receivedBytes += bytes.length;
    this.input.push(bytes);
    this.#wake();
  }

  ended(how: 'end' | 'cut'): void {
    if (this.closed !== 'cut') this.closed = how;
    this.#wake();
  }

  whenRead(done: () => void): void {
    this.#pendingDone.push(done);
  }

  /** Reads again. */
  unstall(): void {
    this.stalled = false;
    for (const done of this.#pendingDone.splice(0)) done();
  }

  send(...pieces: readonly Uint8Array[]): void {
    const bytes = Uint8Array.from(Buffer.concat(pieces));
    queueMicrotask(() => this.stream.deliver(bytes));
  }

  /** Sends no more. */
  end(): void {
    queueMicrotask(() => this.stream.deliver('end'));
  }

  async take(count: number): Promise<Uint8Array> {
    for (;;) {
      const taken = this.input.take(count);
      if (taken !== undefined) return taken;
      if (this.closed !== 'no')
        throw new TypeError(`the server is gone (${this.closed}), ${this.input.length} bytes left`);
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  async greeting(flags: number = HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes): Promise<Uint8Array> {
    const greeting = await this.take(18);
    this.send(clientFlags(flags));
    return greeting;
  }

  /** All replies to an option, the last included. */
  async option(option: number, data: Uint8Array = new Uint8Array(0)): Promise<OptionReply[]> {
    this.send(optionFrame(option, data));
    return this.optionReplies(option);
  }

  async optionReplies(option: number): Promise<OptionReply[]> {
    const replies: OptionReply[] = [];
    for (;;) {
      const view = viewOf(await this.take(20));
      if (view.getUint32(8) !== option) throw new TypeError(`a reply to option ${view.getUint32(8)}, not ${option}`);
      const type = view.getUint32(12);
      const bytes = await this.take(view.getUint32(16));
      replies.push({ type, data: bytes, text: new TextDecoder().decode(bytes) });
      if (type === ReplyType.ack || isErrorReply(type)) return replies;
    }
  }

  async structuredReplies(): Promise<void> {
    await this.option(Option.structuredReply);
    this.structured = true;
  }

  async extendedHeaders(): Promise<void> {
    await this.option(Option.extendedHeaders);
    this.structured = true;
    this.extended = true;
  }

  go(name = '', infos: readonly number[] = []): Promise<OptionReply[]> {
    return this.option(Option.go, nameAndInfos(name, infos));
  }

  /** From the greeting to transmission. */
  async connect(
    how: 'simple' | 'structured' | 'extended' = 'structured',
    contexts: readonly string[] = [],
    infos: readonly number[] = [],
  ): Promise<this> {
    await this.greeting();
    if (how === 'structured') await this.structuredReplies();
    if (how === 'extended') await this.extendedHeaders();
    if (contexts.length > 0) await this.option(Option.setMetaContext, metaQuery('', contexts));
    const last = (await this.go('', infos)).at(-1);
    if (last?.type !== ReplyType.ack) throw new TypeError(`GO failed: ${last?.text}`);
    return this;
  }

  request(
    command: number,
    {
      flags = 0,
      cookie = 1,
      offset = 0,
      length = 0,
    }: { flags?: number; cookie?: number; offset?: number; length?: number },
    payload: Uint8Array = new Uint8Array(0),
  ): void {
    const request = { command, flags, cookieHigh: 0xc0ffee, cookieLow: cookie, offset, length };
    this.send(encodeRequest(request, this.extended), payload);
  }

  write(offset: number, payload: Uint8Array, cookie = 1, flags = this.extended ? 32 : 0): void {
    this.request(Command.write, { offset, length: payload.length, cookie, flags }, payload);
  }

  /** `dataLength`: of a simple reply to a read that succeeds. */
  async reply(dataLength = 0): Promise<WireReply> {
    const magic = viewOf(await this.take(4)).getUint32(0);
    if (magic === 0x67446698) {
      const view = viewOf(await this.take(12));
      const error = view.getUint32(0);
      const payload = error === 0 ? await this.take(dataLength) : new Uint8Array(0);
      return { cookie: view.getUint32(8), kind: 'simple', error, type: 0, done: true, payload, text: '' };
    }
    const extended = magic === 0x6e8a278c;
    if (!extended && magic !== 0x668e33ef) throw new TypeError(`no reply begins with 0x${magic.toString(16)}`);
    const view = viewOf(await this.take(extended ? 28 : 16));
    const type = view.getUint16(2);
    const payload = await this.take(extended ? readLength(view, 20) : view.getUint32(12));
    const body = viewOf(payload);
    const failed = type >= 0x8000;
    return {
      cookie: view.getUint32(8),
      kind: extended ? 'extended' : 'chunk',
      error: failed ? body.getUint32(0) : 0,
      type,
      done: (view.getUint16(0) & 1) !== 0,
      payload,
      text: failed ? new TextDecoder().decode(payload.subarray(6, 6 + body.getUint16(4))) : '',
    };
  }

  /** All chunks up to the last. */
  async chunks(): Promise<WireReply[]> {
    const chunks: WireReply[] = [];
    for (;;) {
      const chunk = await this.reply();
      chunks.push(chunk);
      if (chunk.done) return chunks;
    }
  }

  /** What a read gives, whatever the style. Throws for an error. */
  async read(offset: number, length: number, flags = 0): Promise<Uint8Array> {
    this.request(Command.read, { offset, length, flags });
    if (!this.structured) {
      const reply = await this.reply(length);
      if (reply.error !== 0) throw new TypeError(`error ${reply.error}`);
      return reply.payload;
    }
    const data = new Uint8Array(length);
    for (const { type, payload, error, text } of await this.chunks()) {
      if (error !== 0) throw new TypeError(`error ${error}: ${text}`);
      if (type === 1) data.set(payload.subarray(8), readLength(viewOf(payload), 0) - offset);
    }
    return data;
  }

  /** Extents by context id. */
  async status(offset: number, length: number, flags = 0): Promise<Map<number, [number, number][]>> {
    this.request(Command.blockStatus, { offset, length, flags });
    const found = new Map<number, [number, number][]>();
    for (const { payload, error, text } of await this.chunks()) {
      if (error !== 0) throw new TypeError(`error ${error}: ${text}`);
      const view = viewOf(payload);
      const extents: [number, number][] = [];
      const [start, step] = this.extended ? [8, 16] : [4, 8];
      for (let at = start; at < payload.length; at += step) {
        if (this.extended) extents.push([readLength(view, at), readLength(view, at + 8)]);
        else extents.push([view.getUint32(at), view.getUint32(at + 4)]);
      }
      found.set(view.getUint32(0), extents);
    }
    return found;
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }
}

export function nameAndInfos(name: string | Uint8Array, infos: readonly number[] = []): Uint8Array {
  const text = typeof name === 'string' ? new TextEncoder().encode(name) : name;
  const bytes = new Uint8Array(6 + text.length + 2 * infos.length);
  const view = viewOf(bytes);
  view.setUint32(0, text.length);
  bytes.set(text, 4);
  view.setUint16(4 + text.length, infos.length);
  for (const [index, info] of infos.entries()) view.setUint16(6 + text.length + 2 * index, info);
  return bytes;
}

export function metaQuery(name: string, queries: readonly string[]): Uint8Array {
  const texts = [name, ...queries].map((text) => new TextEncoder().encode(text));
  const parts: Uint8Array[] = [];
  for (const [index, text] of texts.entries()) {
    parts.push(uint32(text.length), text);
    if (index === 0) parts.push(uint32(queries.length));
  }
  return Uint8Array.from(Buffer.concat(parts));
}

export function uint32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  viewOf(bytes).setUint32(0, value);
  return bytes;
}

export interface Served {
  readonly server: NbdServer;
  readonly graph: Graph;
  readonly disk: Disk;
  readonly clock: ManualClock;
  readonly log: string[];
  readonly events: { readonly channel: string; readonly message: object }[];
  /** A client that has just connected. */
  client(): RawClient;
}

export interface ServedOptions extends NbdServerOptions {
  readonly export?: ExportOptions;
  readonly tree?: NestedOptions;
  readonly writable?: boolean;
}

export function testHost(clock: HostClock, events: Served['events'] & object[] = []): Host {
  const sim = new SimHost();
  return {
    files: sim.files,
    clock,
    random: (target) => sim.random(target),
    warn() {},
    notice() {},
    watched: (channel) => channel.startsWith('diskwright:nbd:'),
    publish: (channel, message) => void events.push({ channel, message }),
  };
}

/** A server of one disk, in memory unless `tree` says otherwise, with the empty name. */
export async function served(options: ServedOptions = {}): Promise<Served> {
  const { export: exportOptions = {}, tree = { driver: 'memory', size: 1 << 20 }, writable = true, ...rest } = options;
  const clock = new ManualClock();
  const events: { channel: string; message: object }[] = [];
  const host = testHost(clock, events);
  const graph = new Graph({ host, drivers: DRIVERS });
  const log: string[] = [];
  const server = new NbdServer(host, { log: (line) => log.push(line), ...rest });
  const disk = await graph.open(tree, { writable });
  server.addExport(disk, exportOptions);
  const client = () => {
    const made = new RawClient();
    server.accept(made.stream);
    return made;
  };
  return { server, graph, disk, clock, log, events, client };
}
