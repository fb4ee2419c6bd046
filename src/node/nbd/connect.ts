/** Connecting to servers on unix sockets and TCP ports (N-3, N-12). */
import { connect, Socket } from 'node:net';
import type { ByteStream } from '../../core/byte-stream.ts';
import { BlockError, codeOf, errorText } from '../../core/errors.ts';
import type { ConnectOptions, ServerAddress } from '../../core/host-network.ts';
import { connectAbstract } from './abstract-socket.ts';
import { socketStream } from './socket-stream.ts';

/** `sun_path`, bytes. */
const PATH_MAX = 108;

/** What the system's resolver says, by its codes. */
const RESOLVER_TEXTS: ReadonlyMap<unknown, string> = new Map([
  ['ENOTFOUND', 'Name or service not known'],
  ['EAI_AGAIN', 'Temporary failure in name resolution'],
]);

/** Throws BlockError with the system's text, ENXIO (EAGAIN where it may pass) for a name that leads nowhere. */
export async function connectSocket(address: ServerAddress, { signal }: ConnectOptions = {}): Promise<ByteStream> {
  signal?.throwIfAborted();
  // Of a longer name the system would be given the beginning, where another server may listen.
  if (address.type === 'unix' && Buffer.byteLength(address.path) > PATH_MAX) {
    throw new BlockError('ENAMETOOLONG', errorText('ENAMETOOLONG'));
  }
  if (address.type === 'fd') return socketStream(openSocket(address.fd), `descriptor ${address.fd}`);
  if (address.type === 'unix' && address.path.startsWith('\0') && process.platform === 'linux') {
    return socketStream(abstractSocket(address), 'unix');
  }
  const place = address.type === 'unix' ? { path: address.path } : { host: address.host, port: address.port };
  const socket = connect({ ...place, allowHalfOpen: true, noDelay: true, keepAlive: true });
  return new Promise((resolve, reject) => {
    const giveUp = () => socket.destroy(signal?.reason instanceof Error ? signal.reason : undefined);
    const settle = (act: () => void) => {
      signal?.removeEventListener('abort', giveUp);
      act();
    };
    const failed = (cause: Error) =>
      settle(() => reject(signal?.aborted ? signal.reason : connectFailure(address, cause)));
    signal?.addEventListener('abort', giveUp, { once: true });
    socket.once('error', failed);
    socket.once('connect', () =>
      settle(() => {
        socket.off('error', failed);
        const peer = address.type === 'unix' ? 'unix' : `${address.host}:${address.port}`;
        resolve(socketStream(socket, peer));
      }),
    );
  });
}

function abstractSocket(address: Extract<ServerAddress, { type: 'unix' }>): Socket {
  let fd: number;
  try {
    fd = connectAbstract(address.path);
  } catch (cause) {
    throw connectFailure(address, cause as Error);
  }
  return openSocket(fd);
}

function openSocket(fd: number): Socket {
  try {
    const socket = new Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
    // Of a unix socket they change nothing (N-12).
    return socket.setNoDelay(true).setKeepAlive(true);
  } catch (cause) {
    throw new BlockError('EBADF', `File descriptor '${fd}' is not a socket`, { cause });
  }
}

function connectFailure(address: ServerAddress, cause: Error): BlockError {
  // Of several addresses that were tried, the first one's reason.
  const first = cause instanceof AggregateError ? (cause.errors[0] ?? cause) : cause;
  const text = RESOLVER_TEXTS.get((first as NodeJS.ErrnoException).code);
  if (text === undefined || address.type !== 'inet')
    return new BlockError(codeOf(first), errorText(codeOf(first)), { cause });
  const passes = (first as NodeJS.ErrnoException).code === 'EAI_AGAIN';
  const place = `${address.host}:${address.port}`;
  return new BlockError(passes ? 'EAGAIN' : 'ENXIO', `address resolution failed for ${place}: ${text}`, { cause });
}
