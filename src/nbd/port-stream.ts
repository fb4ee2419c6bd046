/**
 * A MessagePort as a stream of bytes, between a page and its workers or frames. Both sides speak through one of these: a
 * message is bytes, the end of a direction, or word that bytes were taken, which is what holds a fast sender back.
 */
import type { ByteStream, ByteStreamListener } from './byte-stream.ts';

/** What is used of a MessagePort. */
export interface PortLike {
  postMessage(message: unknown): void;
  addEventListener(type: 'message' | 'close', listener: (event: { readonly data?: unknown }) => void): void;
  start(): void;
  close(): void;
}

type Message = Uint8Array | { readonly taken: number } | 'end' | 'close';

export function portStream(port: PortLike, peer = 'port'): ByteStream {
  let listener: ByteStreamListener | undefined;
  let paused = false;
  let over = false;
  /** What came while it was paused. */
  const held: (Uint8Array | 'end')[] = [];
  /** Portions that the other side has not taken. */
  const sent: { left: number; readonly done: () => void }[] = [];
  let ended = 0;

  const finish = () => {
    if (over) return;
    over = true;
    for (const { done } of sent.splice(0)) done();
    port.close();
    listener?.close();
  };
  const endOne = () => {
    if (++ended === 2) queueMicrotask(finish);
  };
  const deliver = (message: Uint8Array | 'end') => {
    if (message === 'end') {
      listener?.end();
      endOne();
      return;
    }
    port.postMessage({ taken: message.length });
    listener?.data(message);
  };
  const taken = (bytes: number) => {
    for (let left = bytes; left > 0; ) {
      const [first] = sent;
      if (first === undefined) return;
      const part = Math.min(left, first.left);
      first.left -= part;
      left -= part;
      if (first.left > 0) return;
      sent.shift();
      first.done();
    }
  };
  const receive = (message: Message) => {
    if (over) return;
    if (message === 'close') finish();
    else if (message !== 'end' && !(message instanceof Uint8Array)) taken(message.taken);
    else if (paused) held.push(message);
    else deliver(message);
  };
  return {
    peer,
    listen(next) {
      const first = listener === undefined;
      listener = next;
      if (!first) return;
      port.addEventListener('message', ({ data }) => receive(data as Message));
      port.addEventListener('close', finish);
      port.start();
    },
    write(pieces, done) {
      let bytes = 0;
      for (const piece of pieces) bytes += piece.length;
      if (over || bytes === 0) return queueMicrotask(done);
      sent.push({ left: bytes, done });
      // Copied, since pieces are parts of larger buffers.
      for (const piece of pieces) port.postMessage(piece.slice());
    },
    end() {
      port.postMessage('end');
      endOne();
    },
    destroy() {
      if (over) return;
      port.postMessage('close');
      queueMicrotask(finish);
    },
    pause() {
      paused = true;
    },
    resume() {
      paused = false;
      queueMicrotask(() => {
        while (!paused && !over) {
          const next = held.shift();
          if (next === undefined) return;
          deliver(next);
        }
      });
    },
  };
}
