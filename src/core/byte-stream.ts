/**
 * A connection as a stream of bytes in both directions: a socket, a MessagePort, a WebSocket. The protocols above know no
 * more of it than this.
 */
import type { FilePlace } from './host-bulk.ts';

/** What is told of a stream; set by who uses it, before the first turn of the event loop. */
export interface ByteStreamListener {
  /**
   * Bytes that stay as they are; or true, where they are not needed any more. Not called while the stream is paused.
   * `more`: it is seen at once whether there is more, and answers may wait for that, or for {@link rest}.
   */
  data(bytes: Uint8Array, more?: boolean): unknown;
  /** There is no more for now. Without it `more` is never told. */
  rest?(): void;
  /** What was told before is still being worked at, and will be answered later. Absent: never. */
  busy?(): boolean;
  /** The other side sends no more, but may still receive. */
  end(): void;
  /** Nothing goes either way any more; called once. `error`: why, where it did not just end. */
  close(error?: Error): void;
}

/** A connection of bytes in both directions: a socket, a pipe, a port of messages. */
export interface ByteStream {
  /** Whom to tell; another one takes over from then on. */
  listen(listener: ByteStreamListener): void;
  /**
   * Sends pieces in order, as one portion where it can. They stay as they are until `done`, which is called later, when
   * they are the system's or lost.
   */
  write(pieces: readonly Uint8Array[], done: () => void): void;
  /** Sends what the system takes at once; returns how many bytes that is, 0 while earlier ones wait. Absent: none. */
  writeNow?(pieces: readonly Uint8Array[]): number;
  /**
   * Whether a range of a file can go out now, without being copied and without waiting for a disk. Absent: never. The file's
   * pages are sent as they are when the other side takes them.
   */
  sendsFile?(place: FilePlace, length: number): boolean;
  /** Sends what the system takes of it at once, where {@link sendsFile} has just said that it can; returns how many bytes. */
  sendFileNow?(place: FilePlace, length: number): number;
  /** From now on answers follow requests at once: the stream may look for more as soon as some came, before others do. */
  hasten?(): void;
  /** Sends no more, after what was written. */
  end(): void;
  /** Ends both directions at once; what was written and is not sent is lost. */
  destroy(): void;
  /** Stops and starts `data`. What comes meanwhile waits, at the other side at last. */
  pause(): void;
  resume(): void;
  /** Who is at the other side, for messages and for who decides what it may do. */
  readonly peer: string;
}
