/** Bytes kept aside: in memory while they are few, the rest in a file without a name. */
import type { StreamSpool } from '../core/driver.ts';
import { BlockError } from '../core/errors.ts';
import type { Host, HostFile } from '../core/host.ts';
import { makeTemporaryFile } from '../core/temporary-file.ts';

const PIECE = 1 << 20;
/** Bytes that stay in memory. */
const MEMORY_MAX = 32 << 20;

export class Spool implements StreamSpool {
  length = 0;
  readonly #host: Host;
  readonly #memoryMax: number;
  readonly #kept: Uint8Array[] = [];
  #last = new Uint8Array(PIECE);
  #filled = 0;
  #file: HostFile | undefined;
  /** Its name, where the host keeps that until the file is closed. */
  #filename: string | undefined;
  #inFile = 0;

  constructor(host: Host, memoryMax = MEMORY_MAX) {
    this.#host = host;
    this.#memoryMax = memoryMax;
  }

  /** Throws BlockError: the file cannot be made or written. */
  async append(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const part = bytes.subarray(done, done + PIECE - this.#filled);
      this.#last.set(part, this.#filled);
      this.#filled += part.length;
      done += part.length;
      if (this.#filled === PIECE) await this.#put();
    }
    this.length += bytes.length;
  }

  async *pieces(): AsyncGenerator<Uint8Array> {
    yield* this.#kept;
    const buffer = new Uint8Array(this.#inFile === 0 ? 0 : PIECE);
    for (let offset = 0; offset < this.#inFile; offset += PIECE) {
      const count = await this.#file?.read(offset, buffer);
      if (count !== PIECE) throw new BlockError('EIO', 'A temporary file is shorter than what was written to it');
      yield buffer;
    }
    yield this.#last.subarray(0, this.#filled);
  }

  /** Gives all of it back. */
  async close(): Promise<void> {
    this.#kept.length = 0;
    this.#filled = 0;
    const file = this.#file;
    this.#file = undefined;
    await file?.close();
    if (this.#filename !== undefined) await this.#host.files.remove(this.#filename).catch(() => {});
  }

  async #put(): Promise<void> {
    this.#filled = 0;
    if ((this.#kept.length + 1) * PIECE <= this.#memoryMax) {
      this.#kept.push(this.#last);
      this.#last = new Uint8Array(PIECE);
      return;
    }
    this.#file ??= await this.#open();
    await this.#file.write(this.#inFile, this.#last);
    this.#inFile += PIECE;
  }

  async #open(): Promise<HostFile> {
    const { files } = this.#host;
    const filename = await makeTemporaryFile(this.#host);
    try {
      const file = await files.open(filename, { write: true });
      // Whatever becomes of us, nothing is left.
      await files.remove(filename).catch(() => {
        this.#filename = filename;
      });
      return file;
    } catch (error) {
      await files.remove(filename).catch(() => {});
      throw error;
    }
  }
}
