/**
 * The server's replies, taken from a stream of bytes in pieces of any size (N-50 to N-60, N-133, N-134). Reads' data go
 * straight to their place. Nothing is allocated from a length that was not checked; what breaks the protocol is thrown.
 */

import { viewOf } from '../../bytes/big-endian.ts';
import { BlockError, errorText } from '../../core/errors.ts';
import { ByteQueue } from '../byte-queue.ts';
import {
  CHUNK_DONE,
  CHUNK_MAGIC,
  ChunkType,
  Command,
  CommandFlag,
  ESHUTDOWN,
  EXTENDED_CHUNK_MAGIC,
  errorOfWire,
  PAYLOAD_MAX,
  SIMPLE_REPLY_MAGIC,
  STRING_MAX,
} from '../protocol.ts';
import { CHUNK_BYTES, EXTENDED_CHUNK_BYTES, readLength, SIMPLE_REPLY_BYTES } from '../wire.ts';
import { type Agreement, protocolError, serverText } from './handshake.ts';
import type { Pending } from './pending.ts';
import { parseExtents, statusPayloadMax } from './status-chunk.ts';

export interface ReplyOptions {
  readonly agreement: Agreement;
  /** The request with this cookie, if there is one. */
  readonly find: (cookieHigh: number, cookieLow: number) => Pending | undefined;
  /** All of its reply has come. */
  readonly done: (pending: Pending, cookieLow: number) => void;
}

interface Chunk {
  readonly type: number;
  readonly last: boolean;
  readonly length: number;
  readonly cookieLow: number;
  readonly pending: Pending;
}

/** Data on its way to its place, or to nowhere. */
type Flow =
  | { readonly kind: 'fill'; readonly target: Uint8Array; filled: number; readonly after: () => void }
  | { readonly kind: 'skip'; left: number; readonly after: () => void };

/** A chunk of these types is an error, known to us or not. */
const ERROR_BIT = 0x8000;

export class Replies {
  readonly #options: ReplyOptions;
  readonly #input: ByteQueue;
  readonly #payloadMax: number;
  #flow: Flow | undefined;
  #chunk: Chunk | undefined;

  /** `input`: what has come already. */
  constructor(options: ReplyOptions, input = new ByteQueue()) {
    this.#options = options;
    this.#input = input;
    this.#payloadMax = (options.agreement.blockSize?.maximum ?? PAYLOAD_MAX) + 8;
  }

  /** Takes what has come. Throws BlockError for what breaks the protocol; then the connection cannot go on. */
  push(bytes: Uint8Array): void {
    this.#input.push(bytes);
    while (this.#step()) {
      // Go on.
    }
  }

  /** True: there may be more to take. */
  #step(): boolean {
    if (this.#flow !== undefined) return this.#pour(this.#flow);
    if (this.#chunk !== undefined) return this.#takePayload(this.#chunk);
    const magic = this.#input.peek(4);
    if (magic === undefined) return false;
    const { structured, extended } = this.#options.agreement;
    const found = viewOf(magic).getUint32(0);
    if (extended && found === EXTENDED_CHUNK_MAGIC) return this.#takeChunk(EXTENDED_CHUNK_BYTES, true);
    if (!extended && structured && found === CHUNK_MAGIC) return this.#takeChunk(CHUNK_BYTES, false);
    if (!extended && found === SIMPLE_REPLY_MAGIC) return this.#takeSimple(structured);
    throw protocolError(`Unexpected reply magic 0x${found.toString(16).padStart(8, '0')}`);
  }

  #pour(flow: Flow): boolean {
    if (flow.kind === 'skip') {
      flow.left -= this.#input.skip(flow.left);
      if (flow.left > 0) return false;
    } else {
      flow.filled += this.#input.takeInto(flow.target.subarray(flow.filled));
      if (flow.filled < flow.target.length) return false;
    }
    this.#flow = undefined;
    flow.after();
    return true;
  }

  #find(high: number, low: number): Pending {
    const pending = this.#options.find(high, low);
    if (pending === undefined) throw protocolError('The server answered a request that was not sent');
    return pending;
  }

  #takeSimple(structured: boolean): boolean {
    const header = this.#input.take(SIMPLE_REPLY_BYTES);
    if (header === undefined) return false;
    const view = viewOf(header);
    const error = view.getUint32(4);
    const cookieLow = view.getUint32(12);
    const pending = this.#find(view.getUint32(8), cookieLow);
    const { command, target } = pending.request;
    if (structured && command === Command.read) throw protocolError('The server sent a simple reply to a read');
    if (error !== 0) fail(pending, error, new Uint8Array(0));
    else if (command === Command.blockStatus)
      throw protocolError('The server answered a status request without status');
    const done = () => this.#options.done(pending, cookieLow);
    if (error === 0 && target !== undefined) this.#flow = { kind: 'fill', target, filled: 0, after: done };
    else done();
    return true;
  }

  #takeChunk(bytes: number, extended: boolean): boolean {
    const header = this.#input.take(bytes);
    if (header === undefined) return false;
    const view = viewOf(header);
    const cookieLow = view.getUint32(12);
    const pending = this.#find(view.getUint32(8), cookieLow);
    if (extended && readLength(view, 16) !== pending.request.offset) {
      throw protocolError('The server did not tell back the offset of the request');
    }
    const length = extended ? readLength(view, 24) : view.getUint32(16);
    const type = view.getUint16(6);
    const chunk = { type, last: (view.getUint16(4) & CHUNK_DONE) !== 0, length, cookieLow, pending };
    this.#checkChunk(chunk);
    this.#chunk = chunk;
    return true;
  }

  /** What can be said of a chunk before its payload has come. */
  #checkChunk({ type, last, length, pending }: Chunk): void {
    const { command, flags } = pending.request;
    const bad = (text: string) => protocolError(`The server sent a chunk ${text}`);
    if ((type & ERROR_BIT) !== 0) {
      const known = type === ChunkType.error || type === ChunkType.errorOffset;
      if (length < 6 || length > (known ? STRING_MAX + 14 : this.#payloadMax))
        throw bad(`of an error of ${length} bytes`);
      return;
    }
    const isStatus = type === ChunkType.blockStatus || type === ChunkType.blockStatusExt;
    if (!isStatus && length > this.#payloadMax) throw bad(`of ${length} bytes, which is more than it may hold`);
    if (type === ChunkType.none) {
      if (length !== 0 || !last) throw bad('without content that is not the last, or has content');
    } else if (type === ChunkType.offsetData || type === ChunkType.offsetHole) {
      if (command !== Command.read) throw bad('of content, but not for a read');
      if (type === ChunkType.offsetHole ? length !== 12 : length < 9) throw bad(`of content of ${length} bytes`);
      if (++pending.contentChunks > 1 && (flags & CommandFlag.df) !== 0) throw bad('too many for a read in one piece');
    } else if (isStatus) {
      const { extended } = this.#options.agreement;
      if (command !== Command.blockStatus || (type === ChunkType.blockStatusExt) !== extended) {
        throw bad(`of type ${type}, which does not fit the request`);
      }
      if (length > statusPayloadMax(pending.request, extended)) throw bad(`of status of ${length} bytes`);
    } else throw bad(`of the unknown type ${type}`);
  }

  #takePayload(chunk: Chunk): boolean {
    const { type, pending } = chunk;
    const finish = () => this.#finish(chunk);
    if (type === ChunkType.offsetData) {
      const place = this.#input.take(8);
      if (place === undefined) return false;
      const target = placeOf(pending, readLength(viewOf(place), 0), chunk.length - 8);
      this.#chunk = undefined;
      this.#flow = { kind: 'fill', target, filled: 0, after: finish };
      return true;
    }
    if ((type & ERROR_BIT) !== 0) return this.#takeError(chunk, finish);
    const payload = this.#input.take(chunk.length);
    if (payload === undefined) return false;
    this.#chunk = undefined;
    if (type === ChunkType.offsetHole) {
      const view = viewOf(payload);
      placeOf(pending, readLength(view, 0), view.getUint32(8)).fill(0);
    } else if (type !== ChunkType.none) parseExtents(payload, pending, this.#options.agreement);
    finish();
    return true;
  }

  /** Of types that are not known, only the number is understood. */
  #takeError({ type, length, pending }: Chunk, finish: () => void): boolean {
    const known = type === ChunkType.error || type === ChunkType.errorOffset;
    const head = this.#input.peek(known ? length : 6);
    if (head === undefined) return false;
    const view = viewOf(head);
    const error = view.getUint32(0);
    const textBytes = view.getUint16(4);
    const tail = type === ChunkType.errorOffset ? 8 : 0;
    if (error === 0) throw protocolError('The server sent an error chunk without an error');
    if (known && 6 + textBytes + tail !== length) {
      throw protocolError('The server sent an error message that is not as long as its chunk');
    }
    if (tail > 0) {
      const offset = readLength(view, length - 8) - pending.request.offset;
      if (!(offset >= 0 && offset < pending.request.length)) throw protocolError('The server told an error elsewhere');
    }
    fail(pending, error, known ? head.subarray(6, 6 + textBytes) : new Uint8Array(0));
    this.#chunk = undefined;
    this.#flow = { kind: 'skip', left: length, after: finish };
    return true;
  }

  #finish({ last, pending, cookieLow }: Chunk): void {
    if (!last) return;
    const { request, failure, coverage, extents } = pending;
    if (failure === undefined && coverage !== undefined && coverage.covered !== request.length) {
      throw protocolError('The server answered a read incompletely');
    }
    const contexts = this.#options.agreement.contexts.size;
    if (failure === undefined && request.command === Command.blockStatus && (extents?.size ?? 0) < contexts) {
      throw protocolError('The server left a context out of a status reply');
    }
    this.#options.done(pending, cookieLow);
  }
}

/** Where content of a read goes; it must lie inside, and nothing may have come for it. */
function placeOf({ request, coverage }: Pending, offset: number, length: number): Uint8Array {
  const start = offset - request.offset;
  const end = start + length;
  if (!(length > 0 && start >= 0 && end <= request.length)) {
    throw protocolError('The server sent content outside of what was asked for');
  }
  if (coverage?.add(start, end) !== true)
    throw protocolError('The server sent the same content twice, or in splinters');
  return request.target?.subarray(start, end) ?? new Uint8Array(length);
}

/** The first error of a request counts (N-68). */
function fail(pending: Pending, number: number, message: Uint8Array): void {
  if (number === ESHUTDOWN) pending.shutDown = true;
  if (pending.failure !== undefined) return;
  const code = errorOfWire(number);
  const said = serverText(message);
  pending.failure = new BlockError(
    code,
    said === '' ? errorText(code) : `${errorText(code)} (server reported: ${said})`,
  );
}
