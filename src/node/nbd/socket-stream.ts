/** A socket as a stream of bytes. */
import type { Socket } from 'node:net';
import type { ByteStream, ByteStreamListener } from '../../core/byte-stream.ts';
import { Haste } from './haste.ts';
import { socketCalls } from './socket-calls.ts';

const sockets = new WeakMap<ByteStream, Socket>();

/** The socket must have been made with `allowHalfOpen`, or replies are lost to clients that end their half first (N-80). */
export function socketStream(socket: Socket, peer: string): ByteStream {
  let listener: ByteStreamListener | undefined;
  let failure: Error | undefined;
  let haste: Haste | undefined;
  const handlers = {
    data: (bytes: Uint8Array) => {
      if (listener !== undefined && haste !== undefined) haste.receive(listener, bytes);
      else listener?.data(bytes);
    },
    end: () => listener?.end(),
    error: (error: Error) => {
      failure = error;
    },
    close: () => listener?.close(failure),
  };
  const stream: ByteStream = {
    peer,
    listen(next) {
      const first = listener === undefined;
      listener = next;
      if (!first) return;
      for (const [name, handler] of Object.entries(handlers)) socket.on(name, handler);
    },
    write(pieces, done) {
      const last = pieces.length - 1;
      if (last < 0 || !socket.writable) {
        queueMicrotask(done);
        return;
      }
      if (last > 0) socket.cork();
      pieces.forEach((piece, index) => {
        if (index < last) socket.write(piece);
        else socket.write(piece, done);
      });
      if (last > 0) socket.uncork();
    },
    writeNow: (pieces) => haste?.send(pieces) ?? 0,
    sendsFile: (place, length) => haste?.sendsFile(place, length) ?? false,
    sendFileNow: (place, length) => haste?.sendFile(place, length) ?? 0,
    hasten() {
      const calls = socketCalls();
      const fd = descriptorOf(socket);
      if (calls === undefined || fd === undefined) return;
      haste = new Haste(socket, fd, calls);
      // TCP sees to it by itself.
      if (socket.remoteAddress === undefined) calls.enlarge(fd);
    },
    end: () => void socket.end(),
    destroy: () => void socket.destroy(),
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
  };
  sockets.set(stream, socket);
  return stream;
}

/** Of a plain socket; what is encrypted must not be gone around. */
function descriptorOf(socket: Socket): number | undefined {
  if ('encrypted' in socket) return undefined;
  // Node tells it nowhere else.
  const { _handle: handle } = socket as { _handle?: { readonly fd?: unknown } | null };
  return typeof handle?.fd === 'number' && handle.fd >= 0 ? handle.fd : undefined;
}

/** Lets go of the socket, for one that takes it over with all that it has not read. */
export function releaseSocket(stream: ByteStream): Socket | undefined {
  const socket = sockets.get(stream);
  for (const name of ['data', 'end', 'error', 'close']) socket?.removeAllListeners(name);
  return socket;
}

/** Who is at the other side of an accepted socket. */
export function peerOf({ remoteAddress, remotePort, remoteFamily }: Socket): string {
  if (remoteAddress === undefined) return 'unix';
  return remoteFamily === 'IPv6' ? `[${remoteAddress}]:${remotePort}` : `${remoteAddress}:${remotePort}`;
}
