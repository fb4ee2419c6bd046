/** One chunk of block status (N-60, N-134). */

import { viewOf } from '../../bytes/big-endian.ts';
import { CommandFlag } from '../protocol.ts';
import { readLength } from '../wire.ts';
import { type Agreement, protocolError } from './handshake.ts';
import type { ClientRequest, Pending } from './pending.ts';

/** Extents in one chunk at most. */
const EXTENTS_MAX = 2 ** 20;

/** Bytes of the longest payload that the request may get. */
export function statusPayloadMax({ flags }: ClientRequest, extended: boolean): number {
  const extents = (flags & CommandFlag.reqOne) === 0 ? EXTENTS_MAX : 1;
  return extended ? 8 + 16 * extents : 4 + 8 * extents;
}

/** Adds the extents of a context to what is known of the request. Throws BlockError for what breaks the protocol. */
export function parseExtents(payload: Uint8Array, pending: Pending, { extended, contexts, size }: Agreement): void {
  const [head, each] = extended ? [8, 16] : [4, 8];
  const count = (payload.length - head) / each;
  if (!Number.isInteger(count) || count < 1) throw protocolError('The server sent a status chunk of a wrong length');
  const view = viewOf(payload);
  const id = view.getUint32(0);
  if (extended && view.getUint32(4) !== count) throw protocolError('The server counted extents wrongly');
  if (![...contexts.values()].includes(id)) throw protocolError(`The server sent status of the unknown context ${id}`);
  pending.extents ??= new Map();
  if (pending.extents.has(id)) throw protocolError(`The server sent status of context ${id} twice`);
  const { offset, length: asked, flags } = pending.request;
  const extents: number[] = [];
  let end = offset;
  for (let at = head; at < payload.length; at += each) {
    const length = extended ? readLength(view, at) : view.getUint32(at);
    if (length === 0) throw protocolError('The server sent an extent without length');
    end += length;
    if (!(end <= size)) throw protocolError('The server sent status past the end of the export');
    extents.push(length, extended ? flagsOf(view, at + 8) : view.getUint32(at + 4));
  }
  if ((flags & CommandFlag.reqOne) !== 0 && end > offset + asked) {
    throw protocolError('The server sent a longer extent than was asked for');
  }
  pending.extents.set(id, extents);
}

/** Numbers, such as a depth, may be larger than flags ever are; then they are only known to be large. */
function flagsOf(view: DataView, at: number): number {
  return Math.min(readLength(view, at), Number.MAX_SAFE_INTEGER);
}
