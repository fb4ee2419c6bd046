/** The data of options that hold more than one thing (N-23). Undefined: they do not add up, or hold what no name may. */

import { viewOf } from '../../bytes/big-endian.ts';
import { STRING_MAX } from '../protocol.ts';

/** More queries in one option are refused. */
const QUERIES_MAX = 4096;

const DECODER = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

interface Parsed<T> {
  readonly value: T;
  readonly next: number;
}

/** A length of 32 bits, and so many bytes of text. */
function takeText(data: Uint8Array, at: number, max: number): Parsed<string> | undefined {
  if (at + 4 > data.length) return undefined;
  const length = viewOf(data).getUint32(at);
  const next = at + 4 + length;
  if (length > max || next > data.length) return undefined;
  try {
    const value = DECODER.decode(data.subarray(at + 4, next));
    return value.includes('\0') ? undefined : { value, next };
  } catch {
    return undefined;
  }
}

/** Of INFO and GO. */
export function parseNameAndInfo(
  data: Uint8Array,
): { readonly name: string; readonly infos: readonly number[] } | undefined {
  const name = takeText(data, 0, STRING_MAX);
  if (name === undefined || name.next + 2 > data.length) return undefined;
  const view = viewOf(data);
  const count = view.getUint16(name.next);
  const start = name.next + 2;
  if (start + 2 * count !== data.length) return undefined;
  const infos = Array.from({ length: count }, (_, index) => view.getUint16(start + 2 * index));
  return { name: name.value, infos };
}

/** Of LIST_META_CONTEXT and SET_META_CONTEXT. A query that is too long or no text matches nothing, silently. */
export function parseMetaQuery(
  data: Uint8Array,
): { readonly name: string; readonly queries: readonly string[] } | 'too-many' | undefined {
  const name = takeText(data, 0, STRING_MAX);
  if (name === undefined || name.next + 4 > data.length) return undefined;
  const view = viewOf(data);
  const count = view.getUint32(name.next);
  let at = name.next + 4;
  // Each takes four bytes at least, so that a count that cannot be is seen before it costs anything.
  if (count * 4 > data.length - at) return undefined;
  if (count > QUERIES_MAX) return 'too-many';
  const queries: string[] = [];
  for (let index = 0; index < count; index++) {
    if (at + 4 > data.length) return undefined;
    const next = at + 4 + view.getUint32(at);
    if (next > data.length) return undefined;
    const query = takeText(data, at, STRING_MAX);
    if (query !== undefined) queries.push(query.value);
    at = next;
  }
  return at === data.length ? { name: name.value, queries } : undefined;
}
