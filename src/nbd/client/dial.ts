/** From nothing to a connection on which requests can be sent (N-130). */
import type { ByteStream } from '../../core/byte-stream.ts';
import { BlockError, type ErrorCode } from '../../core/errors.ts';
import type { ByteQueue } from '../byte-queue.ts';
import { Conversation, type StartTls } from './conversation.ts';
import { type Agreement, type ClientHandshakeOptions, clientHandshake } from './handshake.ts';

export interface DialOptions {
  /** Opens a stream to the server. Throws BlockError. */
  readonly connect: (signal: AbortSignal | undefined) => Promise<ByteStream>;
  /** Absent: without TLS. */
  readonly startTls: StartTls | undefined;
  readonly handshake: Omit<ClientHandshakeOptions, 'tls'>;
  readonly signal: AbortSignal | undefined;
}

export interface Dialed {
  readonly stream: ByteStream;
  /** What the server has sent already. */
  readonly input: ByteQueue;
  readonly agreement: Agreement;
  /** What became of the stream until someone else listens to it: why it ended, if it has. */
  readonly ended: () => Error | undefined;
}

/** `passes`: it may be gone when it is tried again. */
export type DialOutcome =
  | { readonly kind: 'open'; readonly dialed: Dialed }
  | { readonly kind: 'failed'; readonly error: unknown; readonly passes: boolean };

/** A server that is not there yet, or not reached for now. */
const PASSING_CONNECT: ReadonlySet<ErrorCode> = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ENOENT',
  'EAGAIN',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
]);

/** Never rejects. */
export async function dial({ connect, startTls, handshake, signal }: DialOptions): Promise<DialOutcome> {
  let stream: ByteStream;
  try {
    stream = await connect(signal);
  } catch (error) {
    return { kind: 'failed', error, passes: error instanceof BlockError && PASSING_CONNECT.has(error.code) };
  }
  const talk = new Conversation(stream, { startTls, signal });
  try {
    const agreement = await talk.run(clientHandshake({ ...handshake, tls: startTls !== undefined }));
    return { kind: 'open', dialed: { stream: talk.stream, input: talk.input, agreement, ended: () => talk.ended } };
  } catch (error) {
    talk.end(error);
    return { kind: 'failed', error, passes: error instanceof BlockError && error.code === 'ECONNRESET' };
  }
}
