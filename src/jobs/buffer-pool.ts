import { transferBuffer } from '../bytes/transfer-buffer.ts';

/** Buffers that take turns: the bound on a job's memory, and on how many requests it has under way. */
export class BufferPool {
  readonly #length: number;
  readonly #free: Uint8Array<ArrayBuffer>[] = [];
  readonly #waiting: ((buffer: Uint8Array<ArrayBuffer>) => void)[] = [];
  #unmade: number;

  /** Up to `count` buffers of `length` bytes, made when first needed. */
  constructor(count: number, length: number) {
    this.#unmade = count;
    this.#length = length;
  }

  /** Resolves with a buffer of unknown content, in the order asked. */
  take(): Promise<Uint8Array<ArrayBuffer>> {
    const free = this.#free.pop();
    if (free !== undefined) return Promise.resolve(free);
    if (this.#unmade > 0) {
      this.#unmade--;
      return Promise.resolve(transferBuffer(this.#length));
    }
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  give(buffer: Uint8Array<ArrayBuffer>): void {
    const next = this.#waiting.shift();
    if (next !== undefined) next(buffer);
    else this.#free.push(buffer);
  }
}
