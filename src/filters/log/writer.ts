/** Appends to a log: entries get their places in the order they are given, and are written side by side. */
import type { Child } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { encodeEntry, encodeSuper, type LogEntry } from './format.ts';

export class LogWriter {
  readonly #log: Child;
  readonly sectorSize: number;
  readonly #superInterval: number;
  #end: number;
  #entries: number;
  /** Entries that the superblock counts. */
  #counted: number;
  /** Appends under way: the superblock must not count what is not there. */
  readonly #pending = new Set<Promise<void>>();

  constructor(log: Child, at: { sectorSize: number; entries: number; end: number; superInterval: number }) {
    this.#log = log;
    this.sectorSize = at.sectorSize;
    this.#superInterval = at.superInterval;
    this.#end = at.end;
    this.#entries = at.entries;
    this.#counted = at.entries;
  }

  /** Writes an entry and its data: bytes, or so many zeroes. */
  async append(entry: LogEntry, data?: Uint8Array | number): Promise<void> {
    const head = encodeEntry(entry, this.sectorSize);
    const length = typeof data === 'number' ? data : (data?.length ?? 0);
    const place = this.#end;
    if (!Number.isSafeInteger(place + head.length + length)) throw new BlockError('EFBIG', 'The log is too long');
    this.#end = place + head.length + length;
    this.#entries++;
    const writing = this.#write(place, head, data);
    this.#pending.add(writing);
    try {
      await writing;
    } finally {
      this.#pending.delete(writing);
    }
    if (this.#entries - this.#counted >= this.#superInterval) await this.writeSuper();
  }

  /**
   * An entry of a write at once, or false. It is behind the log's end until `done` is true of the write itself; where that
   * is not done, the next entry takes its place.
   */
  tryAppend(entry: LogEntry, data: Uint8Array, done: () => boolean): boolean {
    // The superblock is to be written behind it.
    if (this.#entries + 1 - this.#counted >= this.#superInterval) return false;
    const place = this.#end;
    const bytes = new Uint8Array(this.sectorSize + data.length);
    if (!Number.isSafeInteger(place + bytes.length)) return false;
    bytes.set(encodeEntry(entry, this.sectorSize));
    bytes.set(data, this.sectorSize);
    if (!this.#log.tryWriteNow(place, bytes) || !done()) return false;
    this.#end = place + bytes.length;
    this.#entries++;
    return true;
  }

  async #write(place: number, head: Uint8Array, data: Uint8Array | number | undefined): Promise<void> {
    const behind = place + head.length;
    if (data === undefined) return this.#log.write(place, head);
    const body = typeof data === 'number' ? this.#log.writeZeroes(behind, data) : this.#log.write(behind, data);
    await Promise.all([this.#log.write(place, head), body]);
  }

  /** Counts all entries that are there; those that are being written are waited for. */
  async writeSuper(): Promise<void> {
    const entries = this.#entries;
    await Promise.allSettled(this.#pending);
    if (entries <= this.#counted) return;
    this.#counted = entries;
    await this.#log.write(0, encodeSuper({ entries, sectorSize: this.sectorSize }));
  }
}
