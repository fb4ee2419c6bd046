/** Replies in the style that was agreed on: simple, structured or with extended headers (N-50 to N-55). */

import { setU64, viewOf } from '../../bytes/big-endian.ts';
import { ChunkType, STRING_MAX } from '../protocol.ts';
import {
  CHUNK_BYTES,
  EXTENDED_CHUNK_BYTES,
  putChunk,
  putLength,
  putSimpleReply,
  type Request,
  SIMPLE_REPLY_BYTES,
} from '../wire.ts';
import type { Negotiated } from './handshake.ts';
import type { Output } from './output.ts';

/** A place for a read's data in the output, in front of which the header goes. */
export interface ReadPlace {
  readonly data: Uint8Array;
  /** The data are there. */
  commit(request: Request, offset: number): void;
  /** There will be none; nothing else was put behind it. */
  cancel(): void;
}

export class Replies {
  readonly structured: boolean;
  readonly #extended: boolean;
  readonly #output: Output;

  constructor(output: Output, { structured, extended }: Negotiated) {
    this.#output = output;
    this.structured = structured;
    this.#extended = extended;
  }

  succeed(request: Request): void {
    if (this.#extended) this.none(request);
    else putSimpleReply(this.#output.reserve(SIMPLE_REPLY_BYTES), 0, 0, request);
  }

  /** For a request of no bytes (N-49). */
  empty(request: Request): void {
    if (this.structured && request.command === 0) this.none(request);
    else this.succeed(request);
  }

  /** The last chunk, without content. */
  none(request: Request): void {
    this.#chunk(request, ChunkType.none, 0, true);
  }

  /** The request has failed; `offset`: where it did. */
  error(request: Request, error: number, text: string, offset?: number): void {
    if (!this.structured) {
      putSimpleReply(this.#output.reserve(SIMPLE_REPLY_BYTES), 0, error, request);
      return;
    }
    const message = new TextEncoder().encode(text).subarray(0, STRING_MAX);
    const payload = new Uint8Array(6 + message.length + (offset === undefined ? 0 : 8));
    const view = viewOf(payload);
    view.setUint32(0, error);
    view.setUint16(4, message.length);
    payload.set(message, 6);
    if (offset !== undefined) setU64(view, 6 + message.length, offset);
    this.#chunk(request, offset === undefined ? ChunkType.error : ChunkType.errorOffset, payload.length, true);
    this.#output.add(payload);
  }

  /** At most as much as is sent in one piece with its header. */
  reserveRead(length: number): ReadPlace {
    const head = this.#readHeadBytes();
    const place = this.#output.reserve(head + length);
    return {
      data: place.subarray(head),
      commit: (request, offset) => this.#putReadHead(place, request, offset, { length, done: true }),
      cancel: () => this.#output.unreserve(head + length),
    };
  }

  /** `lent` goes back to the pool when the data are sent. */
  data(
    request: Request,
    offset: number,
    data: Uint8Array,
    { lent, done }: { readonly lent?: Uint8Array; readonly done: boolean },
  ): void {
    const place = this.#output.reserve(this.#readHeadBytes());
    this.#putReadHead(place, request, offset, { length: data.length, done });
    this.#output.add(data, lent);
  }

  hole(request: Request, offset: number, length: number, done: boolean): void {
    this.#chunk(request, ChunkType.offsetHole, 12, done);
    const view = viewOf(this.#output.reserve(12));
    setU64(view, 0, offset);
    view.setUint32(8, length);
  }

  /** One chunk for each context. */
  status(request: Request, payloads: readonly Uint8Array[]): void {
    const type = this.#extended ? ChunkType.blockStatusExt : ChunkType.blockStatus;
    payloads.forEach((payload, index) => {
      this.#chunk(request, type, payload.length, index === payloads.length - 1);
      this.#output.add(payload);
    });
  }

  #chunkBytes(): number {
    return this.#extended ? EXTENDED_CHUNK_BYTES : CHUNK_BYTES;
  }

  #readHeadBytes(): number {
    return this.structured ? this.#chunkBytes() + 8 : SIMPLE_REPLY_BYTES;
  }

  /** A chunk's header; its payload is to follow. */
  #chunk(request: Request, type: number, length: number, done: boolean): void {
    putChunk(this.#output.reserve(this.#chunkBytes()), 0, { type, done, length }, request, this.#extended);
  }

  #putReadHead(
    place: Uint8Array,
    request: Request,
    offset: number,
    { length, done }: { readonly length: number; readonly done: boolean },
  ): void {
    if (!this.structured) {
      putSimpleReply(place, 0, 0, request);
      return;
    }
    const header = { type: ChunkType.offsetData, done, length: length + 8 };
    putLength(place, putChunk(place, 0, header, request, this.#extended), offset);
  }
}
