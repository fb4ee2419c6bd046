/** Writes that were acknowledged and are not done yet: a disk's cache that reorders (BD-61). */
import type { SeededRandom } from '../../bytes/random.ts';

interface HeldWrite {
  readonly offset: number;
  readonly data: Uint8Array;
}

export class HeldWrites {
  #writes: HeldWrite[] = [];
  readonly #put: (offset: number, data: Uint8Array) => Promise<void>;

  constructor(put: (offset: number, data: Uint8Array) => Promise<void>) {
    this.#put = put;
  }

  get empty(): boolean {
    return this.#writes.length === 0;
  }

  hold(offset: number, data: Uint8Array): void {
    this.#writes.push({ offset, data: data.slice() });
  }

  /** Does those that touch a range, in their own order: who reads it, or writes it past us, must see them. */
  async settle(offset: number, length: number): Promise<void> {
    let held = this.#writes;
    // Doing one may mean doing an earlier one that it overlaps, and so on.
    let [start, end] = [offset, offset + length];
    let touching: HeldWrite[] = [];
    for (;;) {
      const found = held.filter((write) => write.offset < end && start < write.offset + write.data.length);
      if (found.length === touching.length) break;
      touching = found;
      start = Math.min(start, ...found.map((write) => write.offset));
      end = Math.max(end, ...found.map((write) => write.offset + write.data.length));
    }
    held = held.filter((write) => !touching.includes(write));
    this.#writes = held;
    for (const { offset: at, data } of touching) await this.#put(at, data);
  }

  /** Does all, in an order that chance picks; of two that overlap, the later one stays the later one. */
  async settleAll(chance: SeededRandom): Promise<void> {
    const waiting = this.#writes;
    this.#writes = [];
    while (waiting.length > 0) {
      const free = waiting.filter((write, index) => !waiting.slice(0, index).some((other) => overlap(write, other)));
      const next = free[chance.below(free.length)];
      if (next === undefined) return;
      waiting.splice(waiting.indexOf(next), 1);
      await this.#put(next.offset, next.data);
    }
  }
}

function overlap(a: HeldWrite, b: HeldWrite): boolean {
  return a.offset < b.offset + b.data.length && b.offset < a.offset + a.data.length;
}
