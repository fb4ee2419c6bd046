/** Replies in the style that was agreed on: simple, structured or with extended headers (N-50 to N-55). */

import { setU64, viewOf } from '../../bytes/big-endian.ts';
import type { FilePlace } from '../../core/host-bulk.ts';
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
import type { FileRange, Output } from './output.ts';

export class Replies {
  readonly structured: boolean;
  readonly #extended: boolean;
  readonly #output: Output;
  readonly #readHeadBytes: number;
  /** Where in the output the head of the read is for which place was made last. */
  #readAt = 0;

  constructor(output: Output, { structured, extended }: Negotiated) {
    this.#output = output;
    this.structured = structured;
    this.#extended = extended;
    this.#readHeadBytes = structured ? this.#chunkBytes() + 8 : SIMPLE_REPLY_BYTES;
  }

  succeed(request: Request): void {
    if (this.#extended) this.none(request);
    else this.#simple(request, 0);
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
      this.#simple(request, error);
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

  /** A place for a read's data, at most as much as is sent in one piece with its head; then it is filled or given up. */
  reserveRead(length: number): Uint8Array {
    const output = this.#output;
    this.#readAt = output.reserve(this.#readHeadBytes + length);
    const start = this.#readAt + this.#readHeadBytes;
    return output.bytes.subarray(start, start + length);
  }

  /** The data are in the place that was made for them. */
  filledRead(request: Request, offset: number): void {
    this.#putReadHead(this.#readAt, request, offset, { length: request.length, done: true });
  }

  /** There will be none in that place; nothing else was put behind it. */
  giveUpRead(length: number): void {
    this.#output.unreserve(this.#readHeadBytes + length);
  }

  /** `lent` goes back to the pool when the data are sent. */
  data(
    request: Request,
    offset: number,
    data: Uint8Array,
    { lent, done }: { readonly lent?: Uint8Array; readonly done: boolean },
  ): void {
    const at = this.#output.reserve(this.#readHeadBytes);
    this.#putReadHead(at, request, offset, { length: data.length, done });
    this.#output.add(data, lent);
  }

  /** Whether data of a file can be sent now without being copied. */
  sendsFile(place: FilePlace, length: number): boolean {
    return this.#output.sendsFile(place, length);
  }

  /** All of a read's data, from a file, where {@link sendsFile} says so. Undefined: sent; else resolves when they are. */
  fileData(request: Request, range: FileRange): Promise<void> | undefined {
    const at = this.#output.reserve(this.#readHeadBytes);
    this.#putReadHead(at, request, request.offset, { length: range.length, done: true });
    return this.#output.sendFile(range);
  }

  hole(request: Request, offset: number, length: number, done: boolean): void {
    this.#chunk(request, ChunkType.offsetHole, 12, done);
    const at = this.#output.reserve(12);
    const view = viewOf(this.#output.bytes);
    setU64(view, at, offset);
    view.setUint32(at + 8, length);
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

  #simple(request: Request, error: number): void {
    const at = this.#output.reserve(SIMPLE_REPLY_BYTES);
    putSimpleReply(this.#output.bytes, at, error, request);
  }

  /** A chunk's header; its payload is to follow. */
  #chunk(request: Request, type: number, length: number, done: boolean): void {
    const at = this.#output.reserve(this.#chunkBytes());
    putChunk(this.#output.bytes, at, { type, done, length }, request, this.#extended);
  }

  #putReadHead(
    at: number,
    request: Request,
    offset: number,
    { length, done }: { readonly length: number; readonly done: boolean },
  ): void {
    const { bytes } = this.#output;
    if (!this.structured) {
      putSimpleReply(bytes, at, 0, request);
      return;
    }
    const header = { type: ChunkType.offsetData, done, length: length + 8 };
    putLength(bytes, putChunk(bytes, at, header, request, this.#extended), offset);
  }
}
