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
const TURN_MS = 0.5;
/** The next request is waited for twice as long as it took of late, and what sleep costs; so long at most, milliseconds. */
const WAIT_MAX_MS = 0.25;
/** A client that takes longer is not waited for: little would be gained for much work of the processor. */
const SOON_MS = 0.15;
/** To sleep and be woken takes about as long, and is not the client's time. */
const WAKE_MS = 0.08;
/** A gap counts for no more, so that one long one does not spoil the average. */
const GAP_MAX_MS = 1;
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
  /** How long it takes, on average, until there is something again, milliseconds. */
  #gap = GAP_MAX_MS;
  #goesOn = false;
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
    this.#noteGap(began - WAKE_MS);
    listener.data(first, this.#holds);
    this.#receiveMore(listener, began);
  }

  #receiveMore(listener: ByteStreamListener, began: number): void {
    /** Milliseconds; negative: there was something the last time. */
    let patience = -1;
    while (this.#mayReceive()) {
      const count = this.#calls.receive(this.#fd, this.#buffer);
      // The end is told by the event loop.
      if (count === 0) break;
      const now = performance.now();
      if (count < 0) {
        this.#release(listener);
        if (patience < 0) {
          this.#idleAt = now;
          patience = this.#patience(listener, now);
        }
        if (now - this.#idleAt < patience) continue;
        if (patience > 0) this.#waitedInVain();
        break;
      }
      if (patience > 0) this.#nextSkips = 1;
      if (patience >= 0) this.#noteGap(now);
      // Of a client that sends many requests, one after the other, the answers are sent together.
      this.#holds = patience < 0 && listener.rest !== undefined;
      patience = -1;
      const bytes = count < BUFFER_BYTES ? this.#buffer.subarray(0, count) : this.#buffer;
      if (listener.data(bytes, this.#holds) !== true) this.#buffer = new Uint8Array(BUFFER_BYTES);
      if (now - began < TURN_MS) continue;
      this.#idleAt = performance.now();
      if (this.#holds) listener.rest?.();
      this.#goOnLater(listener);
      return;
    }
    this.#release(listener);
  }

  /** Answers wait no longer for what else may come. */
  #release(listener: ByteStreamListener): void {
    if (this.#holds) listener.rest?.();
    this.#holds = false;
  }

  /** Lets the event loop turn, without letting it sleep: more is about to come. */
  #goOnLater(listener: ByteStreamListener): void {
    if (this.#goesOn) return;
    this.#goesOn = true;
    setImmediate(() => {
      this.#goesOn = false;
      this.#receiveMore(listener, performance.now());
    });
  }

  #noteGap(at: number): void {
    this.#gap += (Math.min(GAP_MAX_MS, Math.max(0, at - this.#idleAt)) - this.#gap) / 4;
  }

  #waitedInVain(): void {
    this.#skips = this.#nextSkips;
    this.#nextSkips = Math.min(VAIN_MAX, 2 * this.#nextSkips);
  }

  #mayReceive(): boolean {
    const { destroyed, readableLength, readableFlowing } = this.#socket;
    return !destroyed && readableLength === 0 && readableFlowing === true;
  }

  /** How long to wait, milliseconds. What is under way, and what waits to be sent, goes on by the event loop only. */
  #patience(listener: ByteStreamListener, now: number): number {
    if (this.#gap > SOON_MS || now - latestSince < ALONE_MS) return 0;
    if (this.#socket.writableLength > 0 || listener.busy?.() === true) return 0;
    if (this.#skips > 0) {
      this.#skips--;
      return 0;
    }
    return Math.min(WAIT_MAX_MS, WAKE_MS + 2 * this.#gap);
  }
}
