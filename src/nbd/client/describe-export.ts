/** What a server tells of an export without opening it: INFO and LIST_META_CONTEXT (N-118), as a part of the handshake. */

import { viewOf } from '../../bytes/big-endian.ts';
import { InfoType, Option, ReplyType } from '../protocol.ts';
import { readLength } from '../wire.ts';
import { ask, checkSize, nameData, protocolError, type Steps } from './handshake.ts';

export interface ExportDescription {
  /** Bytes. */
  readonly size: number;
  readonly flags: number;
  readonly description: string | undefined;
  /** As advertised, unchecked; undefined: the server does not say. */
  readonly blockSize: { readonly minimum: number; readonly preferred: number; readonly maximum: number } | undefined;
  /** Names, those that only a query finds included; none without structured replies. */
  readonly contexts: readonly string[];
}

/**
 * Whether replies will be structured. Asked before exports are described, as it shows in their flags. Without it there is no
 * status to ask for, and so no contexts are listed (as qemu-nbd does).
 */
export function* askStructured(): Steps<boolean> {
  return (yield* ask(Option.structuredReply, new Uint8Array(0))).type === ReplyType.ack;
}

/** Undefined: the server refuses to tell. Comes after listExports. */
export function* describeExport(name: string, structured: boolean): Steps<ExportDescription | undefined> {
  const infos = [InfoType.name, InfoType.description, InfoType.blockSize];
  const { bytes, at } = nameData(name, 2 + 2 * infos.length);
  const view = viewOf(bytes);
  view.setUint16(at, infos.length);
  for (const [index, type] of infos.entries()) view.setUint16(at + 2 + 2 * index, type);
  let basics: { size: number; flags: number } | undefined;
  let description: string | undefined;
  let blockSize: ExportDescription['blockSize'];
  const last = yield* ask(Option.info, bytes, ({ type, data }) => {
    if (type !== ReplyType.info || data.length < 2) throw protocolError('Unexpected reply to info');
    const info = viewOf(data);
    const kind = info.getUint16(0);
    if (kind === InfoType.description) description = new TextDecoder().decode(data.subarray(2));
    else if (kind === InfoType.export && data.length === 12) {
      basics = { size: checkSize(readLength(info, 2)), flags: info.getUint16(10) };
    } else if (kind === InfoType.blockSize && data.length === 14) {
      blockSize = { minimum: info.getUint32(2), preferred: info.getUint32(6), maximum: info.getUint32(10) };
    }
  });
  if (last.type !== ReplyType.ack || basics === undefined) return undefined;
  return { ...basics, description, blockSize, contexts: structured ? yield* listContexts(name) : [] };
}

/** All that it lists by itself, then what it has in QEMU's namespace. */
function* listContexts(name: string): Steps<string[]> {
  const found = new Set<string>();
  for (const query of [undefined, 'qemu:']) {
    const text = query === undefined ? undefined : new TextEncoder().encode(query);
    const { bytes, at } = nameData(name, text === undefined ? 4 : 8 + text.length);
    const view = viewOf(bytes);
    view.setUint32(at, text === undefined ? 0 : 1);
    if (text !== undefined) {
      view.setUint32(at + 4, text.length);
      bytes.set(text, at + 8);
    }
    yield* ask(Option.listMetaContext, bytes, ({ type, data }) => {
      if (type !== ReplyType.metaContext || data.length < 4)
        throw protocolError('Unexpected reply to a list of contexts');
      found.add(new TextDecoder().decode(data.subarray(4)));
    });
  }
  return [...found];
}
