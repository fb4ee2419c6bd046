/** Requests that were sent, and what has come of their replies. */
import type { BlockError } from '../../core/errors.ts';
import { Command } from '../protocol.ts';
import { Coverage } from './coverage.ts';

export interface ClientRequest {
  readonly command: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  /** Of a write. It stays as it is until the reply. */
  readonly data?: Uint8Array;
  /** Of a read: filled by what comes, until the reply. */
  readonly target?: Uint8Array;
}

/** Extents of one context from the request's offset on: a length in bytes and flags, by turns. */
export type ContextExtents = readonly number[];

/** What became of a request. */
export type Outcome =
  /** `extents`: of a status request, by the context's number. */
  | { readonly kind: 'done'; readonly extents?: ReadonlyMap<number, ContextExtents> }
  /** The server refused it, or failed. */
  | { readonly kind: 'failed'; readonly error: BlockError }
  /** The connection is lost, and whether it was done is not known; `violation`: the server broke the protocol. */
  | { readonly kind: 'lost'; readonly error: BlockError; readonly violation: boolean };

export interface Pending {
  readonly request: ClientRequest;
  readonly settle: (outcome: Outcome) => void;
  /** Of a read with structured replies. */
  readonly coverage: Coverage | undefined;
  contentChunks: number;
  extents: Map<number, ContextExtents> | undefined;
  /** The first error; more chunks may come behind it. */
  failure: BlockError | undefined;
  /** It is said to be going away: it did nothing, and the request may go elsewhere. */
  shutDown: boolean;
}

export function newPending(request: ClientRequest, structured: boolean, settle: Pending['settle']): Pending {
  return {
    request,
    settle,
    coverage: structured && request.command === Command.read ? new Coverage() : undefined,
    contentChunks: 0,
    extents: undefined,
    failure: undefined,
    shutDown: false,
  };
}
