/** Memory for O_DIRECT, which wants buffers that begin at a multiple of the block size. */
import { BlockError } from '../core/errors.ts';
import type { Syscalls } from './syscalls.ts';

/** Enough for every device: a page. */
const ALIGNMENT = 4096;
const KEPT = 4;
const LARGEST_KEPT = 2 * 1024 * 1024;

export class AlignedMemory {
  readonly #syscalls: Syscalls;
  readonly #needed: number;
  readonly #free: Uint8Array[] = [];

  /** `needed`: what memory addresses must be a multiple of, a power of two up to a page. */
  constructor(syscalls: Syscalls, needed: number) {
    this.#syscalls = syscalls;
    this.#needed = needed;
  }

  isAligned(bytes: Uint8Array): boolean {
    return this.#syscalls.addressModulo(bytes, this.#needed) === 0;
  }

  /** Aligned memory of `length` bytes with any content; give it back when done. */
  take(length: number): Uint8Array {
    const index = this.#free.findIndex((candidate) => candidate.length >= length);
    const found = index >= 0 ? this.#free.splice(index, 1)[0] : undefined;
    return (found ?? this.#make(length)).subarray(0, length);
  }

  give(bytes: Uint8Array): void {
    if (this.#free.length >= KEPT || bytes.buffer.byteLength > LARGEST_KEPT) return;
    this.#free.push(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.buffer.byteLength - ALIGNMENT));
  }

  #make(length: number): Uint8Array {
    // A power of two, so that buffers fit again.
    const size = 2 ** Math.ceil(Math.log2(Math.max(length, ALIGNMENT)));
    const whole = new Uint8Array(size + ALIGNMENT);
    const modulo = this.#syscalls.addressModulo(whole, ALIGNMENT);
    if (modulo === undefined)
      throw new BlockError('EINVAL', 'Access past the cache needs system calls that are missing');
    const skip = (ALIGNMENT - modulo) % ALIGNMENT;
    return whole.subarray(skip, skip + size);
  }
}
