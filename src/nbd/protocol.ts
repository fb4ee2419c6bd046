/**
 * Numbers and names of the NBD protocol (the public protocol document; specification: N-10, N-20 to N-66). All integers on
 * the wire are big endian.
 */
import type { ErrorCode } from '../core/errors.ts';

export const NBDMAGIC = 0x4e42444d41474943n;
export const IHAVEOPT = 0x49484156454f5054n;
export const OLDSTYLE_MAGIC = 0x00420281861253n;
export const OPTION_REPLY_MAGIC = 0x0003e889045565a9n;
export const REQUEST_MAGIC = 0x25609513;
export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const CHUNK_MAGIC = 0x668e33ef;
export const EXTENDED_REQUEST_MAGIC = 0x21e41c71;
export const EXTENDED_CHUNK_MAGIC = 0x6e8a278c;

export const HandshakeFlag = { fixedNewstyle: 1, noZeroes: 2 } as const;

export const Option = {
  exportName: 1,
  abort: 2,
  list: 3,
  starttls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
  extendedHeaders: 11,
} as const;

/** Names of options in messages. */
export const OPTION_NAMES: ReadonlyMap<number, string> = new Map([
  [Option.exportName, 'export name'],
  [Option.abort, 'abort'],
  [Option.list, 'list'],
  [Option.starttls, 'starttls'],
  [Option.info, 'info'],
  [Option.go, 'go'],
  [Option.structuredReply, 'structured reply'],
  [Option.listMetaContext, 'list meta context'],
  [Option.setMetaContext, 'set meta context'],
  [Option.extendedHeaders, 'extended headers'],
]);

const ERROR = 2 ** 31;
export const ReplyType = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  errUnsup: ERROR + 1,
  errPolicy: ERROR + 2,
  errInvalid: ERROR + 3,
  errPlatform: ERROR + 4,
  errTlsReqd: ERROR + 5,
  errUnknown: ERROR + 6,
  errShutdown: ERROR + 7,
  errBlockSizeReqd: ERROR + 8,
  errTooBig: ERROR + 9,
  errExtHeaderReqd: ERROR + 10,
} as const;

export function isErrorReply(type: number): boolean {
  return type >= ERROR;
}

export const InfoType = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

/** Of an export (N-30). */
export const TransmissionFlag = {
  hasFlags: 1 << 0,
  readOnly: 1 << 1,
  sendFlush: 1 << 2,
  sendFua: 1 << 3,
  rotational: 1 << 4,
  sendTrim: 1 << 5,
  sendWriteZeroes: 1 << 6,
  sendDf: 1 << 7,
  canMultiConn: 1 << 8,
  sendResize: 1 << 9,
  sendCache: 1 << 10,
  sendFastZero: 1 << 11,
  blockStatusPayload: 1 << 12,
} as const;

export const Command = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
  resize: 8,
} as const;

/** Of a request (N-40). */
export const CommandFlag = { fua: 1, noHole: 2, df: 4, reqOne: 8, fastZero: 16, payloadLength: 32 } as const;

export const ChunkType = {
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  blockStatusExt: 6,
  error: 0x8001,
  errorOffset: 0x8002,
} as const;
export const CHUNK_DONE = 1;

/** The context of what is allocated and what reads as zeroes. */
export const BASE_ALLOCATION = 'base:allocation';
/** Flags of its extents (N-61). */
export const AllocationFlag = { hole: 1, zero: 2 } as const;

export const DEFAULT_PORT = 10809;
/** Names, descriptions, queries and error messages, bytes (N-12). */
export const STRING_MAX = 4096;
/** Longest payload of a request, bytes (N-70). */
export const PAYLOAD_MAX = 32 * 1024 * 1024;

/** Error numbers on the wire (N-66). */
const WIRE_ERRORS: readonly (readonly [ErrorCode, number])[] = [
  ['EPERM', 1],
  ['EIO', 5],
  ['ENOMEM', 12],
  ['EINVAL', 22],
  ['ENOSPC', 28],
  ['EOVERFLOW', 75],
  ['ENOTSUP', 95],
];
/** The server is going away; the client is to disconnect. Not an error code of ours. */
export const ESHUTDOWN = 108;

const SENT: ReadonlyMap<ErrorCode, number> = new Map([
  ...WIRE_ERRORS,
  ['EROFS', 1],
  ['EACCES', 1],
  ['EFBIG', 28],
  ['EDQUOT', 28],
]);
const RECEIVED: ReadonlyMap<number, ErrorCode> = new Map([
  ...WIRE_ERRORS.map(([code, number]) => [number, code] as const),
  [ESHUTDOWN, 'EIO'],
]);

/** What a server sends for an error of ours; ENOTSUP only where a fast zero write was asked for, else EINVAL. */
export function wireError(code: ErrorCode, fastZero = false): number {
  if (code === 'ENOTSUP' && !fastZero) return 22;
  return SENT.get(code) ?? 5;
}

/** What a client makes of a number on the wire; unknown ones are EINVAL (N-68). */
export function errorOfWire(number: number): ErrorCode {
  return RECEIVED.get(number) ?? 'EINVAL';
}
