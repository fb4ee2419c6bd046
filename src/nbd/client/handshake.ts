/**
 * The client's side of the handshake (N-130, N-134), as a coroutine: it says how many bytes it needs and what is to be sent,
 * and gets the bytes. It opens no socket. Everything that comes is hostile until checked.
 */

import { viewOf } from '../../bytes/big-endian.ts';
import { BlockError } from '../../core/errors.ts';
import {
  HandshakeFlag,
  IHAVEOPT,
  InfoType,
  isErrorReply,
  NBDMAGIC,
  OLDSTYLE_MAGIC,
  OPTION_NAMES,
  OPTION_REPLY_MAGIC,
  Option,
  PAYLOAD_MAX,
  ReplyType,
  TransmissionFlag,
} from '../protocol.ts';
import { clientFlags, GREETING_BYTES, OPTION_REPLY_BYTES, optionFrame, readLength } from '../wire.ts';

/** What the coroutine asks for; it is gone on with the bytes, or without any. */
export type HandshakeDemand =
  | { readonly kind: 'need'; readonly bytes: number }
  | { readonly kind: 'send'; readonly bytes: Uint8Array }
  /** TLS begins with the next byte; any byte that is there already was slipped in. */
  | { readonly kind: 'tls' };

export type Steps<T> = Generator<HandshakeDemand, T, Uint8Array>;

export interface ClientHandshakeOptions {
  readonly export: string;
  readonly tls: boolean;
  /** Meta contexts that are wanted. */
  readonly contexts: readonly string[];
  /** Do without what makes replies structured, or their headers long. */
  readonly simpleReplies?: boolean;
  readonly noExtendedHeaders?: boolean;
}

/** What the server is, and what was agreed on. */
export interface Agreement {
  /** Bytes. */
  readonly size: number;
  readonly flags: number;
  readonly structured: boolean;
  readonly extended: boolean;
  /** Ids of the contexts that the server has, by name. */
  readonly contexts: ReadonlyMap<string, number>;
  /** Undefined: the server did not say. */
  readonly blockSize: { readonly minimum: number; readonly preferred: number; readonly maximum: number } | undefined;
  readonly description: string;
}

/** One reply to an option; longer ones and more of them are no handshake. */
const REPLY_MAX = 8300;
const REPLIES_MAX = 65536;
const TEXT = new TextEncoder();
const NOTHING = new Uint8Array(0);

const violations = new WeakSet<object>();

/** A violation of the protocol, which ends the connection at once. */
export function protocolError(text: string): BlockError {
  const error = new BlockError('EINVAL', text);
  violations.add(error);
  return error;
}

export function isProtocolError(error: unknown): boolean {
  return typeof error === 'object' && error !== null && violations.has(error);
}

function* take(bytes: number): Steps<Uint8Array> {
  return yield { kind: 'need', bytes };
}

function* send(bytes: Uint8Array): Steps<void> {
  yield { kind: 'send', bytes };
}

/** The greeting, and our flags. Returns whether the server knows options other than the export's name. */
function* greet(): Steps<{ fixed: boolean; noZeroes: boolean }> {
  const view = viewOf(yield* take(GREETING_BYTES));
  const magic = view.getBigUint64(0);
  if (magic !== NBDMAGIC) {
    throw protocolError(`Bad initial magic received: 0x${magic.toString(16).padStart(16, '0')}`);
  }
  const second = view.getBigUint64(8);
  if (second === OLDSTYLE_MAGIC) throw protocolError('Server speaks only the oldstyle NBD handshake');
  if (second !== IHAVEOPT) throw protocolError(`Bad server magic received: 0x${second.toString(16).padStart(16, '0')}`);
  const flags = view.getUint16(16);
  const ours = flags & (HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes);
  yield* send(clientFlags(ours));
  return { fixed: (flags & HandshakeFlag.fixedNewstyle) !== 0, noZeroes: (flags & HandshakeFlag.noZeroes) !== 0 };
}

interface Reply {
  readonly type: number;
  readonly data: Uint8Array;
}

function* readReply(option: number): Steps<Reply> {
  const view = viewOf(yield* take(OPTION_REPLY_BYTES));
  if (view.getBigUint64(0) !== OPTION_REPLY_MAGIC) throw protocolError('Unexpected option reply magic');
  const answered = view.getUint32(8);
  if (answered !== option) throw protocolError(`The server answered option ${answered}, not ${option}`);
  const length = view.getUint32(16);
  if (length > REPLY_MAX) throw protocolError(`A reply of ${length} bytes to option ${option} is too long`);
  const type = view.getUint32(12);
  return { type, data: length === 0 ? NOTHING : yield* take(length) };
}

/** Sends an option and gives every reply up to the last, ACK or an error, to `each`; returns the last. */
export function* ask(option: number, data: Uint8Array, each?: (reply: Reply) => void): Steps<Reply> {
  yield* send(optionFrame(option, data));
  for (let replies = 0; replies < REPLIES_MAX; replies++) {
    const reply = yield* readReply(option);
    if (reply.type === ReplyType.ack) {
      if (reply.data.length > 0) throw protocolError(`The acknowledgement of option ${option} holds data`);
      return reply;
    }
    if (isErrorReply(reply.type)) return reply;
    each?.(reply);
  }
  throw protocolError(`The server sent more than ${REPLIES_MAX} replies to option ${option}`);
}

/** The error of an option that was refused, in the words of other clients, with what the server says (N-106, N-130). */
function refused(option: number, { type, data }: Reply): BlockError {
  const said = serverText(data);
  const name = OPTION_NAMES.get(option) ?? 'unknown';
  const told = said === '' ? '' : `\nserver reported: ${said}`;
  if (type === ReplyType.errTlsReqd) {
    return new BlockError('EINVAL', `TLS negotiation required before option ${option} (${name})`, {
      hint: `Did you forget a valid tls-creds?${told}`,
    });
  }
  if (type === ReplyType.errUnknown) return new BlockError('ENOENT', `Requested export not available${told}`);
  const text: Readonly<Record<number, string>> = {
    [ReplyType.errPolicy]: `Denied by server for option ${option} (${name})`,
    [ReplyType.errInvalid]: `Invalid parameters for option ${option} (${name})`,
    [ReplyType.errPlatform]: `Server lacks support for option ${option} (${name})`,
    [ReplyType.errShutdown]: `Server shutting down before option ${option} (${name})`,
    [ReplyType.errBlockSizeReqd]: `Server requires INFO_BLOCK_SIZE for option ${option} (${name})`,
  };
  return new BlockError('EINVAL', `${text[type] ?? `Unsupported option type ${option} (${name})`}${told}`);
}

/** A text of the server's, without what would upset a terminal. */
export function serverText(data: Uint8Array): string {
  return printable(new TextDecoder().decode(data));
}

export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, '?');
}

function* startTls(): Steps<void> {
  const reply = yield* ask(Option.starttls, NOTHING);
  if (reply.type !== ReplyType.ack) throw refused(Option.starttls, reply);
  yield { kind: 'tls' };
}

/** From the greeting to transmission. Throws BlockError. */
export function* clientHandshake(options: ClientHandshakeOptions): Steps<Agreement> {
  const { fixed, noZeroes } = yield* greet();
  if (!fixed) {
    if (options.tls) throw protocolError('The server does not know TLS: it has no fixed newstyle handshake');
    return yield* exportName(options.export, noZeroes);
  }
  if (options.tls) yield* startTls();
  const extended =
    options.simpleReplies !== true &&
    options.noExtendedHeaders !== true &&
    (yield* ask(Option.extendedHeaders, NOTHING)).type === ReplyType.ack;
  const structured =
    extended ||
    (options.simpleReplies !== true && (yield* ask(Option.structuredReply, NOTHING)).type === ReplyType.ack);
  const contexts = structured ? yield* setContexts(options) : new Map<string, number>();
  const agreed = { structured, extended, contexts };
  const info = yield* go(options.export);
  if (info !== undefined) return { ...info, ...agreed };
  if (extended) throw protocolError('The server took extended headers, but does not know GO');
  return { ...(yield* exportName(options.export, noZeroes)), ...agreed };
}

export function nameData(name: string, extra: number): { bytes: Uint8Array; at: number } {
  const text = TEXT.encode(name);
  const bytes = new Uint8Array(4 + text.length + extra);
  viewOf(bytes).setUint32(0, text.length);
  bytes.set(text, 4);
  return { bytes, at: 4 + text.length };
}

/** Contexts that are wanted and there (N-130). A server without any is no error. */
function* setContexts(options: ClientHandshakeOptions): Steps<Map<string, number>> {
  const found = new Map<string, number>();
  if (options.contexts.length === 0) return found;
  const queries = options.contexts.map((name) => TEXT.encode(name));
  const length = queries.reduce((sum, query) => sum + 4 + query.length, 4);
  const { bytes, at: start } = nameData(options.export, length);
  const view = viewOf(bytes);
  view.setUint32(start, queries.length);
  let at = start + 4;
  for (const query of queries) {
    view.setUint32(at, query.length);
    bytes.set(query, at + 4);
    at += 4 + query.length;
  }
  const last = yield* ask(Option.setMetaContext, bytes, ({ type, data }) => {
    if (type !== ReplyType.metaContext || data.length < 4)
      throw protocolError('Unexpected reply to a choice of contexts');
    const name = new TextDecoder().decode(data.subarray(4));
    if (!options.contexts.includes(name))
      throw protocolError(`The server chose the context '${serverText(data.subarray(4))}'`);
    const id = viewOf(data).getUint32(0);
    if (found.has(name) || [...found.values()].includes(id)) {
      throw protocolError(`The server chose the context '${name}' twice, or gave its number to two`);
    }
    found.set(name, id);
  });
  if (last.type !== ReplyType.ack) {
    if (last.type === ReplyType.errTlsReqd) throw refused(Option.setMetaContext, last);
    found.clear();
  }
  return found;
}

type ExportFacts = Pick<Agreement, 'size' | 'flags' | 'blockSize' | 'description'>;

/** Undefined: the server does not know the option. */
function* go(name: string): Steps<ExportFacts | undefined> {
  const { bytes, at } = nameData(name, 4);
  const view = viewOf(bytes);
  view.setUint16(at, 1);
  view.setUint16(at + 2, InfoType.blockSize);
  let basics: { size: number; flags: number } | undefined;
  let blockSize: Agreement['blockSize'];
  let description = '';
  const last = yield* ask(Option.go, bytes, ({ type, data }) => {
    if (type !== ReplyType.info || data.length < 2) throw protocolError('Unexpected reply to go');
    const info = viewOf(data);
    const kind = info.getUint16(0);
    if (kind === InfoType.export) {
      if (data.length !== 12) throw protocolError('The information about the export has the wrong length');
      basics = { size: checkSize(readLength(info, 2)), flags: usedFlags(info.getUint16(10)) };
    } else if (kind === InfoType.blockSize) blockSize = checkBlockSize(data);
    else if (kind === InfoType.description) description = serverText(data.subarray(2));
  });
  if (last.type === ReplyType.errUnsup) return undefined;
  if (last.type !== ReplyType.ack) throw refused(Option.go, last);
  if (basics === undefined) throw protocolError('The server did not tell the size of the export');
  return { ...basics, blockSize, description };
}

export function checkSize(size: number): number {
  if (!Number.isFinite(size)) throw protocolError('The export is larger than 2^53 bytes');
  return size;
}

/** Without the flag that there are flags, there are none (N-135). */
function usedFlags(flags: number): number {
  return (flags & TransmissionFlag.hasFlags) === 0 ? 0 : flags;
}

function checkBlockSize(data: Uint8Array): NonNullable<Agreement['blockSize']> {
  if (data.length !== 14) throw protocolError('The information about block sizes has the wrong length');
  const view = viewOf(data);
  const [minimum, preferred, maximum] = [view.getUint32(2), view.getUint32(6), view.getUint32(10)];
  const power = (value: number) => value > 0 && Number.isInteger(Math.log2(value));
  if (!power(minimum) || minimum > 65536) throw protocolError(`server advertised minimum block size ${minimum}`);
  if (!power(preferred) || preferred < minimum)
    throw protocolError(`server advertised preferred block size ${preferred}`);
  if (maximum < preferred) throw protocolError(`server advertised maximum block size ${maximum}`);
  return { minimum, preferred, maximum: Math.min(maximum, PAYLOAD_MAX) };
}

/** The oldest way, which the server can only refuse by leaving. */
function* exportName(name: string, noZeroes: boolean): Steps<Agreement> {
  yield* send(optionFrame(Option.exportName, TEXT.encode(name)));
  const bytes = yield* take(noZeroes ? 10 : 134);
  const view = viewOf(bytes);
  return {
    size: checkSize(readLength(view, 0)),
    flags: usedFlags(view.getUint16(8)),
    structured: false,
    extended: false,
    contexts: new Map(),
    blockSize: undefined,
    description: '',
  };
}

/** One export in a server's list. */
export interface ListedExport {
  readonly name: string;
  readonly description: string;
}

/** All exports, by the option for that; the caller may go on with INFO of each. */
export function* listExports(tls: boolean): Steps<ListedExport[]> {
  const { fixed } = yield* greet();
  if (!fixed) throw protocolError('Server does not support export lists');
  if (tls) yield* startTls();
  const exports: ListedExport[] = [];
  const last = yield* ask(Option.list, NOTHING, ({ type, data }) => {
    const length = data.length < 4 ? Number.POSITIVE_INFINITY : viewOf(data).getUint32(0);
    if (type !== ReplyType.server || 4 + length > data.length) throw protocolError('Unexpected reply to list');
    const decoder = new TextDecoder();
    exports.push({
      name: decoder.decode(data.subarray(4, 4 + length)),
      description: decoder.decode(data.subarray(4 + length)),
    });
  });
  if (last.type !== ReplyType.ack) throw refused(Option.list, last);
  return exports;
}
