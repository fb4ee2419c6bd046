/**
 * The short way to a socket, while requests and answers follow each other: what the system has is taken without a turn of the
 * event loop, and a peer that answers within microseconds is waited for as long, since to sleep and be woken takes longer.
 */
import type { Socket } from 'node:net';
import type { ByteStreamListener } from '../../core/byte-stream.ts';
import type { FilePlace } from '../../core/host-bulk.ts';
import { NodeFile } from '../file.ts';
import type { SocketCalls } from './socket-calls.ts';

const BUFFER_BYTES = 64 * 1024;
/** The event loop turns at least so often, milliseconds. */
const TURN_MS = 1;
/** So long the next request is waited for, milliseconds, where the last came that soon or little later. */
const WAIT_MS = 0.05;
const SOON_MS = 0.15;
/** Other streams that had something to say so recently are not kept waiting. */
const ALONE_MS = 5;
/** Waiting in vain is not tried again for 1, 2, 4, … and at most so many times that it could be. */
const VAIN_MAX = 256;

/** The stream that received last, and since when it was no other. */
let latest: Haste | undefined;
let latestSince = Number.NEGATIVE_INFINITY;

export class Haste {
  readonly #socket: Socket;
  readonly #fd: number;
  readonly #calls: SocketCalls;
  #buffer = new Uint8Array(BUFFER_BYTES);
  /** When there was nothing to receive, milliseconds. */
  #idleAt = Number.NEGATIVE_INFINITY;
  /** There was more at once after the last bytes: answers wait until it is seen whether there is again. */
  #holds = false;
  /** How often waiting is left out, and how often it will be after the next time in vain. */
  #skips = 0;
  #nextSkips = 1;

  constructor(socket: Socket, fd: number, calls: SocketCalls) {
    this.#socket = socket;
    this.#fd = fd;
    this.#calls = calls;
  }

  /** Bytes sent; none while others wait to be sent. */
  send(pieces: readonly Uint8Array[]): number {
    const { writable, writableLength } = this.#socket;
    return writable && writableLength === 0 ? Math.max(0, this.#calls.send(this.#fd, pieces)) : 0;
  }

  /** Whether a range of a file can be sent at once. */
  sendsFile({ file, offset }: FilePlace, length: number): boolean {
    const { writable, writableLength } = this.#socket;
    return writable && writableLength === 0 && file instanceof NodeFile && file.isCached(offset, length);
  }

  /** Bytes of the file sent. */
  sendFile({ file, offset }: FilePlace, length: number): number {
    if (!(file instanceof NodeFile)) return 0;
    return Math.max(0, this.#calls.sendFile(this.#fd, file.bulkFd(), offset, length));
  }

  /** Hands over `first`, which came by the event loop, and what there is besides. */
  receive(listener: ByteStreamListener, first: Uint8Array): void {
    const began = performance.now();
    if (latest !== this) {
      latest = this;
      latestSince = began;
    }
    listener.data(first, this.#holds);
    this.#receiveMore(listener, began);
    if (this.#holds) listener.rest?.();
  }

  #receiveMore(listener: ByteStreamListener, began: number): void {
    const patience = this.#patience(began);
    let waited = false;
    for (let at = began; this.#mayReceive(); ) {
      const count = this.#calls.receive(this.#fd, this.#buffer);
      // The end is told by the event loop.
      if (count === 0) return;
      if (count < 0) {
        if (this.#holds) listener.rest?.();
        this.#holds = false;
        waited = true;
        const now = performance.now();
        if (now - at < patience) continue;
        this.#idleAt = now;
        if (patience > 0) this.#waitedInVain();
        return;
      }
      if (waited) this.#nextSkips = 1;
      // Of a client that sends many requests, one after the other, the answers are sent together.
      this.#holds = !waited && listener.rest !== undefined;
      waited = false;
      const bytes = count < BUFFER_BYTES ? this.#buffer.subarray(0, count) : this.#buffer;
      if (listener.data(bytes, this.#holds) !== true) this.#buffer = new Uint8Array(BUFFER_BYTES);
      at = performance.now();
      if (at - began > TURN_MS) {
        this.#idleAt = at;
        return;
      }
    }
  }

  #waitedInVain(): void {
    this.#skips = this.#nextSkips;
    this.#nextSkips = Math.min(VAIN_MAX, 2 * this.#nextSkips);
  }

  #mayReceive(): boolean {
    const { destroyed, readableLength, readableFlowing } = this.#socket;
    return !destroyed && readableLength === 0 && readableFlowing === true;
  }

  /** How long to wait, milliseconds. */
  #patience(now: number): number {
    if (now - this.#idleAt > SOON_MS || now - latestSince < ALONE_MS) return 0;
    if (this.#skips > 0) {
      this.#skips--;
      return 0;
    }
    return WAIT_MS;
  }
}
