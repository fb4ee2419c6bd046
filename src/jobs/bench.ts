/** Requests of one size at even distances, for their speed: the engine of `bench` (T-BENCH-1). */
import type { Disk } from '../core/disk.ts';
import { BlockError, errorText } from '../core/errors.ts';
import type { HostClock } from '../core/host.ts';

export interface BenchOptions {
  readonly write: boolean;
  /** Requests in all. */
  readonly count: number;
  /** Requests under way at a time, 1 or more. */
  readonly depth: number;
  /** Bytes of each. */
  readonly size: number;
  /** Byte of the first one, and from each to the next; positions wrap at the disk's end. */
  readonly offset: number;
  readonly step: number;
  /** What is written, 0 to 255. */
  readonly pattern: number;
  /** Flush whenever so many requests, or none, are left; 0: never. */
  readonly flushInterval: number;
  /** Let the requests before a flush end first. */
  readonly drain: boolean;
  readonly clock: HostClock;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Sends the requests, and tells how many milliseconds they took. Throws BlockError: EIO for one that reaches past the
 * disk's end, or what the disk throws; or the signal's reason. Then none is under way.
 */
export async function benchDisk(disk: Disk, options: BenchOptions): Promise<number> {
  const run = new Run(disk, options);
  const start = options.clock.now();
  await run.all();
  return options.clock.now() - start;
}

class Run {
  readonly #disk: Disk;
  readonly #options: BenchOptions;
  readonly #flushes: Promise<void>[] = [];
  #left: number;
  #position: number;
  #failure: { readonly error: unknown } | undefined;

  constructor(disk: Disk, options: BenchOptions) {
    this.#disk = disk;
    this.#options = options;
    this.#left = options.count;
    this.#position = options.offset;
  }

  async all(): Promise<void> {
    const { flushInterval: interval, drain } = this.#options;
    if (interval === 0 || !drain) await this.#sendUntil(0);
    else {
      while (this.#left > 0) {
        await this.#sendUntil(this.#left - (this.#left % interval || interval));
        await this.#disk.flush();
      }
    }
    for (const flush of this.#flushes) await flush;
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Until so many are left to be sent, and none is under way. */
  async #sendUntil(left: number): Promise<void> {
    const { depth, size, write, pattern } = this.#options;
    const shared = write ? new Uint8Array(size).fill(pattern) : undefined;
    const workers = Math.min(depth, this.#left - left);
    await Promise.all(Array.from({ length: workers }, () => this.#work(left, shared ?? new Uint8Array(size))));
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  async #work(left: number, buffer: Uint8Array): Promise<void> {
    const { write, flushInterval: interval, drain, signal } = this.#options;
    try {
      while (this.#left > left && this.#failure === undefined) {
        signal?.throwIfAborted();
        const at = this.#next(buffer.length);
        if (write) await this.#disk.write(at, buffer);
        else await this.#disk.read(at, buffer);
        if (interval > 0 && !drain && this.#left % interval === 0) this.#flushes.push(this.#flush());
      }
    } catch (error) {
      this.#failure ??= { error };
    }
  }

  #next(size: number): number {
    const { length } = this.#disk;
    const at = this.#position;
    if (at + size > length) throw new BlockError('EIO', errorText('EIO'), { node: this.#disk.node.name });
    this.#position = length === 0 ? 0 : (at + this.#options.step) % length;
    this.#left--;
    return at;
  }

  async #flush(): Promise<void> {
    await this.#disk.flush().catch((error: unknown) => {
      this.#failure ??= { error };
    });
  }
}
