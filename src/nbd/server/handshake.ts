/**
 * The server's side of the handshake, from the greeting to transmission (N-20 to N-27, N-103). Bytes in, bytes out: it
 * opens no socket and waits for nothing.
 */

import { viewOf } from '../../bytes/big-endian.ts';
import type { ByteQueue } from '../byte-queue.ts';
import {
  HandshakeFlag,
  IHAVEOPT,
  InfoType,
  Option,
  PAYLOAD_MAX,
  ReplyType,
  STRING_MAX,
  TransmissionFlag,
} from '../protocol.ts';
import { greeting, OPTION_BYTES, optionReply } from '../wire.ts';
import type { ExportDirectory, ExportInfo } from './export-info.ts';
import { parseMetaQuery, parseNameAndInfo } from './option-data.ts';

/** What was agreed on, when transmission begins. */
export interface Negotiated {
  readonly export: ExportInfo;
  readonly structured: boolean;
  readonly extended: boolean;
  /** Meta contexts, in the order of their ids, which are 1, 2, … */
  readonly contexts: readonly string[];
  /** The client asked for block sizes, and so keeps to them. */
  readonly asksBlockSize: boolean;
}

export type HandshakeStep =
  /** More input is needed. */
  | { readonly kind: 'more' }
  /** The client is to take answers first. */
  | { readonly kind: 'full' }
  | { readonly kind: 'transmission'; readonly negotiated: Negotiated }
  /** TLS begins with the next byte. */
  | { readonly kind: 'tls' }
  /** The connection ends; `reason` is for the log, absent where the client just left. */
  | { readonly kind: 'close'; readonly reason?: string };

const MORE: HandshakeStep = { kind: 'more' };
const NOTHING = new Uint8Array(0);
const TEXT = new TextEncoder();

/** Unknown options are skipped up to this length, known ones kept up to the other (N-22). */
const SKIP_MAX = 32 * 1024 * 1024;
const OPTION_MAX = 64 * 1024;

export interface HandshakeOptions {
  readonly exports: ExportDirectory;
  readonly send: (bytes: Uint8Array) => void;
  /** The client leaves too much of what was sent. */
  readonly full: () => boolean;
  /** `off`, `optional`: plain or with TLS, `required`. */
  readonly tls: 'off' | 'optional' | 'required';
}

const KNOWN: ReadonlySet<number> = new Set(Object.values(Option));

export class ServerHandshake {
  readonly #options: HandshakeOptions;
  #stage: 'flags' | 'options' = 'flags';
  #fixed = false;
  #noZeroes = false;
  #encrypted = false;
  #structured = false;
  #extended = false;
  /** The last choice of contexts, which holds for one export's name. */
  #selected: { readonly export: string; readonly contexts: readonly string[] } | undefined;
  /** Bytes of a long option that are still to be skipped, and what is answered then. */
  #skipping: { left: number; readonly answer: () => HandshakeStep } | undefined;
  #stopping = false;

  constructor(options: HandshakeOptions) {
    this.#options = options;
  }

  start(): void {
    this.#options.send(greeting(HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes));
  }

  /** From now on every option but ABORT is answered that the server is going away (N-27). */
  stop(): void {
    this.#stopping = true;
  }

  /** The connection is encrypted now: all that was agreed on before is forgotten (N-26, N-103). */
  startedTls(): void {
    this.#encrypted = true;
    this.#structured = false;
    this.#extended = false;
    this.#selected = undefined;
  }

  /** Takes from `input` what it can. To be called again when there is more, unless it says otherwise. */
  advance(input: ByteQueue): HandshakeStep {
    for (;;) {
      if (this.#options.full()) return { kind: 'full' };
      const step = this.#next(input);
      if (step !== undefined) return step;
    }
  }

  /** One step; undefined: go on. */
  #next(input: ByteQueue): HandshakeStep | undefined {
    if (this.#skipping !== undefined) {
      this.#skipping.left -= input.skip(this.#skipping.left);
      if (this.#skipping.left > 0) return MORE;
      const { answer } = this.#skipping;
      this.#skipping = undefined;
      return progress(answer());
    }
    if (this.#stage === 'flags') return this.#takeFlags(input);
    const header = input.peek(OPTION_BYTES);
    if (header === undefined) return MORE;
    const view = viewOf(header);
    if (view.getBigUint64(0) !== IHAVEOPT) return close('Bad option magic received');
    const option = view.getUint32(8);
    const length = view.getUint32(12);
    if (!this.#fixed && option !== Option.exportName) return close('Unsupported option from a non-fixed client');
    return this.#takeOption(input, option, length);
  }

  #takeFlags(input: ByteQueue): HandshakeStep | undefined {
    const bytes = input.take(4);
    if (bytes === undefined) return MORE;
    const flags = viewOf(bytes).getUint32(0);
    this.#fixed = (flags & HandshakeFlag.fixedNewstyle) !== 0;
    this.#noZeroes = (flags & HandshakeFlag.noZeroes) !== 0;
    const known = HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes;
    if ((flags & ~known) !== 0) return close(`Unknown client flags 0x${(flags >>> 0).toString(16)} received`);
    this.#stage = 'options';
    return undefined;
  }

  #takeOption(input: ByteQueue, option: number, length: number): HandshakeStep | undefined {
    const known = KNOWN.has(option);
    if (option === Option.exportName && length > STRING_MAX) return close('Bad length received');
    if (known && length <= OPTION_MAX) {
      const whole = input.take(OPTION_BYTES + length);
      // The length is bounded, so that waiting for it costs no more than that.
      return whole === undefined ? MORE : progress(this.#handle(option, whole.subarray(OPTION_BYTES)));
    }
    if (length > SKIP_MAX) return close(`Option ${option} of ${length} bytes is too long`);
    input.skip(OPTION_BYTES);
    const answer = () => this.#handle(option, NOTHING, known);
    this.#skipping = { left: length, answer };
    return undefined;
  }

  /** `tooLong`: the data were skipped. */
  #handle(option: number, data: Uint8Array, tooLong = false): HandshakeStep {
    if (option === Option.abort) {
      this.#reply(option, ReplyType.ack);
      return { kind: 'close' };
    }
    const plain = this.#options.tls === 'required' && !this.#encrypted;
    if (option === Option.exportName) return plain ? close('TLS is required') : this.#exportName(data);
    if (this.#stopping) return this.#refuse(option, ReplyType.errShutdown, 'The server is shutting down');
    if (plain && option !== Option.starttls) {
      const text = `Option 0x${option.toString(16)} not permitted before TLS`;
      return this.#refuse(option, ReplyType.errTlsReqd, text);
    }
    if (tooLong) return this.#refuse(option, ReplyType.errTooBig, `Option ${option} is too long`);
    switch (option) {
      case Option.list:
        return this.#list(option, data);
      case Option.starttls:
        return this.#starttls(option, data);
      case Option.info:
      case Option.go:
        return this.#infoOrGo(option, data);
      case Option.structuredReply:
        return this.#structuredReply(option, data);
      case Option.extendedHeaders:
        return this.#extendedHeaders(option, data);
      case Option.listMetaContext:
      case Option.setMetaContext:
        return this.#metaContext(option, data);
      default:
        return this.#refuse(option, ReplyType.errUnsup, `Unsupported option ${option} (<unknown>)`);
    }
  }

  #exportName(data: Uint8Array): HandshakeStep {
    const name = decodeName(data);
    const found = name === undefined || this.#extended || this.#stopping ? undefined : this.#options.exports.find(name);
    if (found === undefined) return close(`export '${name ?? ''}' not present`);
    const reply = new Uint8Array(this.#noZeroes ? 10 : 134);
    const view = viewOf(reply);
    view.setBigUint64(0, BigInt(found.size));
    view.setUint16(8, this.#flagsOf(found));
    this.#options.send(reply);
    return this.#transmit(found, name ?? '', false);
  }

  #list(option: number, data: Uint8Array): HandshakeStep {
    if (data.length > 0) return this.#refuse(option, ReplyType.errInvalid, 'list takes no data');
    for (const { name, description } of this.#options.exports.list()) {
      const [nameBytes, text] = [TEXT.encode(name), TEXT.encode(description)];
      const payload = new Uint8Array(4 + nameBytes.length + text.length);
      viewOf(payload).setUint32(0, nameBytes.length);
      payload.set(nameBytes, 4);
      payload.set(text, 4 + nameBytes.length);
      this.#reply(option, ReplyType.server, payload);
    }
    this.#reply(option, ReplyType.ack);
    return MORE;
  }

  #starttls(option: number, data: Uint8Array): HandshakeStep {
    if (this.#options.tls === 'off') return this.#refuse(option, ReplyType.errPolicy, 'TLS not configured');
    if (data.length > 0) return this.#refuse(option, ReplyType.errInvalid, 'starttls takes no data');
    if (this.#encrypted) return this.#refuse(option, ReplyType.errInvalid, 'TLS is in use already');
    this.#reply(option, ReplyType.ack);
    return { kind: 'tls' };
  }

  #structuredReply(option: number, data: Uint8Array): HandshakeStep {
    if (data.length > 0) return this.#refuse(option, ReplyType.errInvalid, 'structured reply takes no data');
    if (this.#extended) {
      return this.#refuse(option, ReplyType.errExtHeaderReqd, 'extended headers already negotiated');
    }
    if (this.#structured) return this.#refuse(option, ReplyType.errInvalid, 'structured reply already negotiated');
    this.#structured = true;
    this.#reply(option, ReplyType.ack);
    return MORE;
  }

  #extendedHeaders(option: number, data: Uint8Array): HandshakeStep {
    if (data.length > 0) return this.#refuse(option, ReplyType.errInvalid, 'extended headers take no data');
    if (this.#extended) return this.#refuse(option, ReplyType.errInvalid, 'extended headers already negotiated');
    this.#extended = true;
    this.#structured = true;
    this.#reply(option, ReplyType.ack);
    return MORE;
  }

  #infoOrGo(option: number, data: Uint8Array): HandshakeStep {
    const asked = parseNameAndInfo(data);
    if (asked === undefined) return this.#refuse(option, ReplyType.errInvalid, 'the option cannot be parsed');
    const found = this.#options.exports.find(asked.name);
    if (found === undefined) return this.#refuse(option, ReplyType.errUnknown, `export '${asked.name}' not present`);
    const asksBlockSize = asked.infos.includes(InfoType.blockSize);
    if (asked.infos.includes(InfoType.name)) this.#info(option, InfoType.name, TEXT.encode(found.name));
    if (found.description !== '') this.#info(option, InfoType.description, TEXT.encode(found.description));
    const sizes = new Uint8Array(12);
    const sizeView = viewOf(sizes);
    sizeView.setUint32(0, asksBlockSize ? found.minimumBlock : 1);
    sizeView.setUint32(4, found.preferredBlock);
    sizeView.setUint32(8, PAYLOAD_MAX);
    this.#info(option, InfoType.blockSize, sizes);
    const basics = new Uint8Array(10);
    const basicsView = viewOf(basics);
    basicsView.setBigUint64(0, BigInt(found.size));
    basicsView.setUint16(8, this.#flagsOf(found, asked.name));
    this.#info(option, InfoType.export, basics);
    this.#reply(option, ReplyType.ack);
    return option === Option.go ? this.#transmit(found, asked.name, asksBlockSize) : MORE;
  }

  #info(option: number, type: number, data: Uint8Array): void {
    const payload = new Uint8Array(2 + data.length);
    viewOf(payload).setUint16(0, type);
    payload.set(data, 2);
    this.#reply(option, ReplyType.info, payload);
  }

  #metaContext(option: number, data: Uint8Array): HandshakeStep {
    const set = option === Option.setMetaContext;
    // Every choice, even a failed one, forgets the earlier one.
    if (set) this.#selected = undefined;
    if (set && !this.#structured) {
      return this.#refuse(option, ReplyType.errInvalid, 'structured reply was not negotiated');
    }
    const asked = parseMetaQuery(data);
    if (asked === 'too-many') return this.#refuse(option, ReplyType.errTooBig, 'too many queries');
    if (asked === undefined) return this.#refuse(option, ReplyType.errInvalid, 'the option cannot be parsed');
    const found = this.#options.exports.find(asked.name);
    if (found === undefined) return this.#refuse(option, ReplyType.errUnknown, `export '${asked.name}' not present`);
    const contexts = found.contexts.filter((name) => matches(name, asked.queries, set));
    contexts.forEach((name, index) => {
      const bytes = TEXT.encode(name);
      const payload = new Uint8Array(4 + bytes.length);
      viewOf(payload).setUint32(0, set ? index + 1 : 0);
      payload.set(bytes, 4);
      this.#reply(option, ReplyType.metaContext, payload);
    });
    if (set) this.#selected = { export: asked.name, contexts };
    this.#reply(option, ReplyType.ack);
    return MORE;
  }

  #contextsFor(name: string): readonly string[] {
    return this.#selected?.export === name ? this.#selected.contexts : [];
  }

  #flagsOf({ flags }: ExportInfo, name?: string): number {
    const df = this.#structured ? TransmissionFlag.sendDf : 0;
    const payload =
      this.#extended && name !== undefined && this.#contextsFor(name).length > 0
        ? TransmissionFlag.blockStatusPayload
        : 0;
    return flags | df | payload;
  }

  #transmit(found: ExportInfo, name: string, asksBlockSize: boolean): HandshakeStep {
    const negotiated: Negotiated = {
      export: found,
      structured: this.#structured,
      extended: this.#extended,
      contexts: this.#structured ? this.#contextsFor(name) : [],
      asksBlockSize,
    };
    return { kind: 'transmission', negotiated };
  }

  #refuse(option: number, type: number, text: string): HandshakeStep {
    this.#reply(option, type, TEXT.encode(text));
    return MORE;
  }

  #reply(option: number, type: number, data: Uint8Array = NOTHING): void {
    this.#options.send(optionReply(option, type, data));
  }
}

function close(reason: string): HandshakeStep {
  return { kind: 'close', reason };
}

/** Where an option was answered and haggling goes on, the next one may be there already. */
function progress(step: HandshakeStep): HandshakeStep | undefined {
  return step.kind === 'more' ? undefined : step;
}

function decodeName(data: Uint8Array): string | undefined {
  try {
    const name = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(data);
    return name.includes('\0') ? undefined : name;
  } catch {
    return undefined;
  }
}

/** Namespaces and `qemu:dirty-bitmap:` stand for all in them where contexts are listed, and for none where chosen (N-26). */
function matches(name: string, queries: readonly string[], set: boolean): boolean {
  if (!set && queries.length === 0) return true;
  return queries.some((query) => query === name || (!set && query.endsWith(':') && name.startsWith(query)));
}
