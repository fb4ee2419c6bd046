/** The process's output streams, written synchronously, so that nothing is lost at exit and nothing comes out of order. */
import { fstatSync, statSync, writeSync } from 'node:fs';
import type { HurriedLog } from './hurried-log.ts';

/** More than this is not held back, so that a long listing needs no memory. */
const HOLD_MAX = 1 << 20;

const pause = new Int32Array(new SharedArrayBuffer(4));

/** Writes all of `text`. False: nobody reads any more. */
function writeAll(descriptor: number, text: string | Uint8Array): boolean {
  let bytes = typeof text === 'string' ? Buffer.from(text) : text;
  while (bytes.length > 0) {
    try {
      bytes = bytes.subarray(writeSync(descriptor, bytes));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // A pipe that the reader made non-blocking and has not emptied yet.
      if (code === 'EAGAIN') Atomics.wait(pause, 0, 0, 2);
      else if (code === 'EPIPE') return false;
      else throw error;
    }
  }
  return true;
}

/** Asks the system first, as node:tty takes milliseconds to load: a terminal is a character device other than the null one. */
function isTerminal(descriptor: number): boolean {
  try {
    const stats = fstatSync(descriptor);
    if (!stats.isCharacterDevice() || stats.rdev === statSync('/dev/null').rdev) return false;
  } catch {
    // Where there is no such device.
  }
  return process.getBuiltinModule('node:tty').isatty(descriptor);
}

/**
 * Standard output (T-GEN-3): held back until the end unless it is a terminal, for scripts that merge both streams.
 */
export class HeldOutput {
  readonly isTerminal: boolean;
  /** Nobody reads any more; what is written is dropped. */
  broken = false;
  readonly #descriptor: number;
  #held: (string | Uint8Array)[] = [];
  #heldLength = 0;

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
    this.isTerminal = isTerminal(descriptor);
  }

  /** Bytes are not copied: they must stay as they are. */
  write(text: string | Uint8Array): void {
    if (this.broken) return;
    this.#held.push(text);
    this.#heldLength += text.length;
    if (this.isTerminal || this.#heldLength > HOLD_MAX) this.flush();
  }

  line(text: string): void {
    this.write(`${text}\n`);
  }

  /** Throws what writing throws (ENOSPC, EIO), but for a reader that went away. */
  flush(): void {
    const held = this.#held;
    this.#held = [];
    this.#heldLength = 0;
    let text = '';
    for (const piece of held) {
      if (typeof piece === 'string') text += piece;
      else {
        this.#writeNow(text);
        this.#writeNow(piece);
        text = '';
      }
    }
    this.#writeNow(text);
  }

  #writeNow(text: string | Uint8Array): void {
    if (text.length > 0 && !this.broken) this.broken = !writeAll(this.#descriptor, text);
  }
}

/** Standard error: unbuffered. */
export class Messages {
  /** Its name as invoked. */
  readonly program: string;
  readonly #descriptor: number;
  #log: HurriedLog | undefined;

  constructor(program: string, descriptor: number) {
    this.program = program;
    this.#descriptor = descriptor;
  }

  /**
   * From now on no message waits for its reader (a pipe that nobody empties), since others wait for this process. Returns
   * what ends that: from then on they wait for a second at most.
   */
  async hurry(): Promise<() => void> {
    const [{ HurriedLog }, { writerNow }] = await Promise.all([import('./hurried-log.ts'), import('./write-now.ts')]);
    try {
      const log = new HurriedLog(this.program, writerNow(this.#descriptor));
      this.#log = log;
      return () => log.beLast();
    } catch {
      // Without a stderr there is nothing to wait for.
      return () => {};
    }
  }

  get isTerminal(): boolean {
    return isTerminal(this.#descriptor);
  }

  /** `program: message`, and the hint's lines without prefix (T-GEN-2). */
  error(message: string, hint?: string): void {
    this.raw(`${this.program}: ${message}\n${hint === undefined ? '' : `${hint}\n`}`);
  }

  warning(message: string, hint?: string): void {
    this.error(`warning: ${message}`, hint);
  }

  /** A message about a place in a file. */
  errorAt(place: string, message: string): void {
    this.raw(`${this.program}:${place}: ${message}\n`);
  }

  /** Lines that bear no prefix. */
  raw(text: string): void {
    try {
      if (this.#log !== undefined) this.#log.write(text);
      else writeAll(this.#descriptor, text);
    } catch {
      // Without a stderr there is nobody to tell.
    }
  }
}
