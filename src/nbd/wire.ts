/** Frames of the NBD protocol as bytes, one function each (N-10). Neither reads nor sends anything. */
import { setU64, viewOf } from '../bytes/big-endian.ts';
import {
  CHUNK_DONE,
  CHUNK_MAGIC,
  EXTENDED_CHUNK_MAGIC,
  EXTENDED_REQUEST_MAGIC,
  IHAVEOPT,
  NBDMAGIC,
  OPTION_REPLY_MAGIC,
  REQUEST_MAGIC,
  SIMPLE_REPLY_MAGIC,
} from './protocol.ts';

export const GREETING_BYTES = 18;
export const OPTION_BYTES = 16;
export const OPTION_REPLY_BYTES = 20;
export const REQUEST_BYTES = 28;
export const EXTENDED_REQUEST_BYTES = 32;
export const SIMPLE_REPLY_BYTES = 16;
export const CHUNK_BYTES = 20;
export const EXTENDED_CHUNK_BYTES = 32;

function frame(length: number): [Uint8Array, DataView] {
  const bytes = new Uint8Array(length);
  return [bytes, viewOf(bytes)];
}

export function greeting(flags: number): Uint8Array {
  const [bytes, view] = frame(GREETING_BYTES);
  view.setBigUint64(0, NBDMAGIC);
  view.setBigUint64(8, IHAVEOPT);
  view.setUint16(16, flags);
  return bytes;
}

export function clientFlags(flags: number): Uint8Array {
  const [bytes, view] = frame(4);
  view.setUint32(0, flags);
  return bytes;
}

export function optionFrame(option: number, data: Uint8Array): Uint8Array {
  const [bytes, view] = frame(OPTION_BYTES + data.length);
  view.setBigUint64(0, IHAVEOPT);
  view.setUint32(8, option);
  view.setUint32(12, data.length);
  bytes.set(data, OPTION_BYTES);
  return bytes;
}

export function optionReply(option: number, type: number, data: Uint8Array): Uint8Array {
  const [bytes, view] = frame(OPTION_REPLY_BYTES + data.length);
  view.setBigUint64(0, OPTION_REPLY_MAGIC);
  view.setUint32(8, option);
  view.setUint32(12, type);
  view.setUint32(16, data.length);
  bytes.set(data, OPTION_REPLY_BYTES);
  return bytes;
}

export interface Request {
  readonly flags: number;
  readonly command: number;
  /** Eight opaque bytes as two words, so that it is never a number (N-11). */
  readonly cookieHigh: number;
  readonly cookieLow: number;
  /** At most 2^53 - 1; anything larger is past any export and comes as Infinity. */
  readonly offset: number;
  readonly length: number;
  /** The offset and the length as they came, where they are larger: they are told back. */
  readonly hugeOffset?: bigint;
  readonly hugeLength?: bigint;
}

/** 64 bits at a place, as a number; Infinity where they are past the safe integers. */
export function readLength(view: DataView, at: number): number {
  const high = view.getUint32(at);
  return high >= 2 ** 21 ? Number.POSITIVE_INFINITY : high * 2 ** 32 + view.getUint32(at + 4);
}

// Byte by byte, since a view made for each request costs more than all else that is done with its frame.
function get32(bytes: Uint8Array, at: number): number {
  const high = ((bytes[at] ?? 0) << 24) | ((bytes[at + 1] ?? 0) << 16);
  return (high | ((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0)) >>> 0;
}

function put32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

function getLength(bytes: Uint8Array, at: number): number {
  const high = get32(bytes, at);
  return high >= 2 ** 21 ? Number.POSITIVE_INFINITY : high * 2 ** 32 + get32(bytes, at + 4);
}

/** 64 bits at a place. */
export function putLength(bytes: Uint8Array, at: number, value: number): void {
  put32(bytes, at, Math.floor(value / 2 ** 32));
  put32(bytes, at + 4, value % 2 ** 32);
}

/** Undefined for a wrong magic. `bytes` holds at least the frame, from `at` on. */
export function decodeRequest(bytes: Uint8Array, extended: boolean, at = 0): Request | undefined {
  if (get32(bytes, at) !== (extended ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC)) return undefined;
  const kind = get32(bytes, at + 4);
  const offset = getLength(bytes, at + 16);
  const request = {
    flags: kind >>> 16,
    command: kind & 0xffff,
    cookieHigh: get32(bytes, at + 8),
    cookieLow: get32(bytes, at + 12),
    offset,
    length: extended ? getLength(bytes, at + 24) : get32(bytes, at + 24),
  };
  if (offset < Number.POSITIVE_INFINITY && request.length < Number.POSITIVE_INFINITY) return request;
  const view = viewOf(bytes);
  return {
    ...request,
    ...(offset === Number.POSITIVE_INFINITY && { hugeOffset: view.getBigUint64(at + 16) }),
    ...(request.length === Number.POSITIVE_INFINITY && { hugeLength: view.getBigUint64(at + 24) }),
  };
}

export function encodeRequest(request: Request, extended: boolean): Uint8Array {
  const [bytes, view] = frame(extended ? EXTENDED_REQUEST_BYTES : REQUEST_BYTES);
  view.setUint32(0, extended ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC);
  view.setUint16(4, request.flags);
  view.setUint16(6, request.command);
  view.setUint32(8, request.cookieHigh);
  view.setUint32(12, request.cookieLow);
  setU64(view, 16, request.offset);
  if (extended) setU64(view, 24, request.length);
  else view.setUint32(24, request.length);
  return bytes;
}

type Cookie = Pick<Request, 'cookieHigh' | 'cookieLow'>;

/** Writes a simple reply's header at `at` of `bytes`; returns the place behind it. */
export function putSimpleReply(bytes: Uint8Array, at: number, error: number, cookie: Cookie): number {
  put32(bytes, at, SIMPLE_REPLY_MAGIC);
  put32(bytes, at + 4, error);
  put32(bytes, at + 8, cookie.cookieHigh);
  put32(bytes, at + 12, cookie.cookieLow);
  return at + SIMPLE_REPLY_BYTES;
}

export interface ChunkHeader {
  readonly type: number;
  readonly done: boolean;
  /** Of the payload, bytes. */
  readonly length: number;
}

/** Writes a chunk's header at `at` of `bytes`, an extended one with the request's offset; returns the place behind it. */
export function putChunk(
  bytes: Uint8Array,
  at: number,
  { type, done, length }: ChunkHeader,
  request: Cookie & Pick<Request, 'offset' | 'hugeOffset'>,
  extended: boolean,
): number {
  put32(bytes, at, extended ? EXTENDED_CHUNK_MAGIC : CHUNK_MAGIC);
  put32(bytes, at + 4, ((done ? CHUNK_DONE : 0) << 16) | type);
  put32(bytes, at + 8, request.cookieHigh);
  put32(bytes, at + 12, request.cookieLow);
  if (!extended) {
    put32(bytes, at + 16, length);
    return at + CHUNK_BYTES;
  }
  if (request.hugeOffset === undefined) putLength(bytes, at + 16, request.offset);
  else viewOf(bytes).setBigUint64(at + 16, request.hugeOffset);
  putLength(bytes, at + 24, length);
  return at + EXTENDED_CHUNK_BYTES;
}
