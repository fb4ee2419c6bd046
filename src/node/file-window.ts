/**
 * Writes by way of a mapping. tmpfs takes one lock for all who write a file, so two threads do not write at the same time;
 * the pages of a mapping are had without it.
 */
import type { Syscalls } from './syscalls.ts';

/** A window begins at a multiple of this many bytes, of which pages are in the process's memory count at most. */
const STEP = 8 * 1024 * 1024;

/** Shorter writes hold the lock for a moment only. */
const SHORTEST = 64 * 1024;

/** A part of a file in memory, moved to where it is written. */
export class FileWindow {
  readonly #fd: number;
  readonly #syscalls: Syscalls;
  /** Longest write, bytes: windows overlap by as much. */
  readonly #longest: number;
  #start = -1;
  #address = 0;
  /** What went wrong once, does so again. */
  #usable = true;

  constructor(fd: number, longest: number, syscalls: Syscalls) {
    this.#fd = fd;
    this.#longest = longest;
    this.#syscalls = syscalls;
  }

  /**
   * False: not written, or in part, and to be written another way, which tells errors. Files are not made longer:
   * their pages are there as far as they reach.
   */
  write(offset: number, source: Uint8Array): boolean {
    const length = source.length;
    if (!this.#usable || length < SHORTEST || length > this.#longest) return false;
    if (this.#syscalls.seek(this.#fd, 'end', 0) < offset + length) return false;
    const start = offset - (offset % STEP);
    if (start !== this.#start) this.#move(start);
    if (!this.#usable) return false;
    this.#usable = this.#syscalls.store(source, this.#address + offset - start) === length;
    return this.#usable;
  }

  close(): void {
    if (this.#start >= 0) this.#syscalls.unmap(this.#address, STEP + this.#longest);
    this.#start = -1;
  }

  #move(start: number): void {
    this.close();
    this.#address = this.#syscalls.map(this.#fd, start, STEP + this.#longest);
    this.#usable = this.#address > 0;
    if (this.#usable) this.#start = start;
  }
}
