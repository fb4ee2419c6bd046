/**
 * A MessagePort as a stream of bytes, between a page and its workers or frames. Both sides speak through one of these: a
 * message is bytes, the end of a direction, or word that bytes were taken, which is what holds a fast sender back.
 */
import type { ByteStream, ByteStreamListener } from '../core/byte-stream.ts';

/** What is used of a MessagePort. */
export interface PortLike {
  postMessage(message: unknown): void;
  addEventListener(type: 'message' | 'close', listener: (event: { readonly data?: unknown }) => void): void;
  start(): void;
  close(): void;
}

type Message = Uint8Array | { readonly taken: number } | 'end' | 'close';

/** Bytes that may come while it is paused: more than who waits for word of what was taken ever sends ahead. */
const HELD_MAX = 128 * 1024 * 1024;
/** What a message takes at least, bytes. */
const MESSAGE_BYTES = 256;

/** A stream over one end of a MessageChannel, or anything like it. `peer` names the other side in messages. */
export function portStream(port: PortLike, peer = 'port'): ByteStream {
  return new PortStream(port, peer);
}

class PortStream implements ByteStream {
  readonly peer: string;
  readonly #port: PortLike;
  #listener: ByteStreamListener | undefined;
  #paused = false;
  #over = false;
  /** What came while it was paused. */
  readonly #held: (Uint8Array | 'end')[] = [];
  #heldBytes = 0;
  /** Portions that the other side has not taken. */
  readonly #sent: { left: number; readonly done: () => void }[] = [];
  /** Directions that are at their end. */
  #ended = 0;

  constructor(port: PortLike, peer: string) {
    this.#port = port;
    this.peer = peer;
  }

  listen(listener: ByteStreamListener): void {
    const first = this.#listener === undefined;
    this.#listener = listener;
    if (!first) return;
    this.#port.addEventListener('message', ({ data }) => this.#receive(data));
    this.#port.addEventListener('close', () => this.#finish());
    this.#port.start();
  }

  write(pieces: readonly Uint8Array[], done: () => void): void {
    let bytes = 0;
    for (const piece of pieces) bytes += piece.length;
    if (this.#over || bytes === 0) {
      queueMicrotask(done);
      return;
    }
    this.#sent.push({ left: bytes, done });
    // Copied, since pieces are parts of larger buffers.
    for (const piece of pieces) this.#port.postMessage(piece.slice());
  }

  end(): void {
    this.#port.postMessage('end');
    this.#endOne();
  }

  destroy(): void {
    if (this.#over) return;
    this.#port.postMessage('close');
    queueMicrotask(() => this.#finish());
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    queueMicrotask(() => {
      while (!this.#paused && !this.#over) {
        const next = this.#held.shift();
        if (next === undefined) return;
        this.#heldBytes -= sizeOf(next);
        this.#deliver(next);
      }
    });
  }

  #receive(data: unknown): void {
    if (this.#over) return;
    if (!isMessage(data)) this.destroy();
    else if (data === 'close') this.#finish();
    else if (data !== 'end' && !(data instanceof Uint8Array)) this.#taken(data.taken);
    else if (this.#paused) this.#hold(data);
    else this.#deliver(data);
  }

  #hold(message: Uint8Array | 'end'): void {
    this.#heldBytes += sizeOf(message);
    if (this.#heldBytes > HELD_MAX) this.destroy();
    else this.#held.push(message);
  }

  #deliver(message: Uint8Array | 'end'): void {
    if (message === 'end') {
      this.#listener?.end();
      this.#endOne();
      return;
    }
    this.#port.postMessage({ taken: message.length });
    this.#listener?.data(message);
  }

  #taken(bytes: number): void {
    for (let left = bytes; left > 0; ) {
      const [first] = this.#sent;
      if (first === undefined) return;
      const part = Math.min(left, first.left);
      first.left -= part;
      left -= part;
      if (first.left > 0) return;
      this.#sent.shift();
      first.done();
    }
  }

  #endOne(): void {
    if (++this.#ended === 2) queueMicrotask(() => this.#finish());
  }

  #finish(): void {
    if (this.#over) return;
    this.#over = true;
    for (const { done } of this.#sent.splice(0)) done();
    this.#port.close();
    this.#listener?.close();
  }
}

/** In memory: of a part of a buffer, all of it came. */
function sizeOf(message: Uint8Array | 'end'): number {
  return MESSAGE_BYTES + (message === 'end' ? 0 : message.buffer.byteLength);
}

/** The other side may be anyone's page. */
function isMessage(data: unknown): data is Message {
  if (data instanceof Uint8Array || data === 'end' || data === 'close') return true;
  const { taken } = (data ?? {}) as { readonly taken?: unknown };
  return typeof taken === 'number' && taken >= 0;
}
