/**
 * Which places of the data area are taken (V-22, V-27). A slot that a discard gave up is pending until the map that no
 * longer names it is durable: used before, a crash would show another block's data in the discarded one.
 */
import { type Bits, clearBit, findBit, hasBit, newBits, setBit } from './bits.ts';

/** Slots given up before a moment, on their way to being free. */
export interface Released {
  readonly bits: Bits;
  readonly count: number;
}

export class Slots {
  /** No slot from here on is taken; the next new one. */
  end: number;
  /** Free slots below `end`. */
  free: number;
  /** Slots that are given up but not free yet. */
  pending = 0;
  /** Slots there can be: as many as blocks. */
  capacity: number;
  /** Taken or pending. */
  #taken: Bits;
  #pendingBits: Bits | undefined;
  #pendingHere = 0;
  /** No slot below is free. */
  #searchFrom = 0;

  /** `taken` has `count` bits set, all below `end`; it is copied. */
  constructor(capacity: number, taken: Bits, count: number, end: number) {
    this.capacity = capacity;
    this.#taken = newBits(capacity);
    this.#taken.set(taken.subarray(0, this.#taken.length));
    this.end = end;
    this.free = end - count;
  }

  /** How many are taken. */
  get used(): number {
    return this.end - this.free - this.pending;
  }

  /** How many can be taken now. */
  get available(): number {
    return this.free + this.capacity - this.end;
  }

  /** Takes the lowest free slot below `limit`; -1: there is none. */
  takeFreeBelow(limit: number): number {
    if (this.free === 0) return -1;
    const slot = findBit(this.#taken, false, this.#searchFrom, Math.min(this.end, limit));
    if (slot < 0) return -1;
    this.#searchFrom = slot;
    this.take(slot);
    return slot;
  }

  /** Takes the lowest free slot, else a new one at the end; -1 when all are taken. */
  takeAny(): number {
    const slot = this.takeFreeBelow(this.end);
    if (slot >= 0) return slot;
    return this.take(this.end) ? this.end - 1 : -1;
  }

  /** Takes the lowest free slot from `first` on, else a new one, for which more may be made room than there are blocks. */
  takeFrom(first: number): number {
    const found = findBit(this.#taken, false, first, this.end);
    const slot = found < 0 ? Math.max(first, this.end) : found;
    if (slot >= this.capacity) this.#resize(2 * slot + 32);
    setBit(this.#taken, slot);
    if (slot < this.end) this.free--;
    else {
      this.free += slot - this.end;
      this.end = slot + 1;
    }
    return slot;
  }

  /** Takes this very slot, if it is free or the next new one. */
  take(slot: number): boolean {
    if (slot > this.end || slot >= this.capacity || hasBit(this.#taken, slot)) return false;
    setBit(this.#taken, slot);
    if (slot === this.end) this.end++;
    else this.free--;
    return true;
  }

  /** Frees a slot that no map on disk or in memory names. */
  giveBack(slot: number): void {
    clearBit(this.#taken, slot);
    this.free++;
    this.#searchFrom = Math.min(this.#searchFrom, slot);
    this.#trim();
  }

  /** Gives up a slot that the map on disk may still name. */
  release(slot: number): void {
    this.#pendingBits ??= newBits(this.capacity);
    setBit(this.#pendingBits, slot);
    this.#pendingHere++;
    this.pending++;
  }

  /** Everything released so far, to be settled or put back. */
  takeReleased(): Released | undefined {
    if (this.#pendingBits === undefined) return undefined;
    const released = { bits: this.#pendingBits, count: this.#pendingHere };
    this.#pendingBits = undefined;
    this.#pendingHere = 0;
    return released;
  }

  /** The map without them could not be made durable: they stay pending. */
  putBack(released: Released): void {
    const { bits } = released;
    if (this.#pendingBits !== undefined) {
      for (let i = 0; i < bits.length; i++) bits[i] = word(bits, i) | word(this.#pendingBits, i);
    }
    this.#pendingBits = bits;
    this.#pendingHere += released.count;
  }

  /** Frees them: the map that no longer names them is durable, and no request knows them. */
  settle(released: Released): void {
    for (let i = 0; i < released.bits.length; i++) this.#taken[i] = word(this.#taken, i) & ~word(released.bits, i);
    this.pending -= released.count;
    this.free += released.count;
    this.#searchFrom = 0;
    this.#trim();
  }

  #resize(capacity: number): void {
    const taken = newBits(capacity);
    taken.set(this.#taken);
    this.#taken = taken;
    this.capacity = capacity;
    if (this.#pendingBits === undefined) return;
    const pending = newBits(capacity);
    pending.set(this.#pendingBits);
    this.#pendingBits = pending;
  }

  #trim(): void {
    while (this.end > 0 && !hasBit(this.#taken, this.end - 1)) {
      this.end--;
      this.free--;
    }
  }
}

/** Runs of released slots, ascending. */
export function* releasedRuns({ bits }: Released): Generator<{ slot: number; count: number }> {
  const limit = bits.length * 32;
  for (let slot = findBit(bits, true, 0, limit); slot >= 0; ) {
    const next = findBit(bits, false, slot, limit);
    const end = next < 0 ? limit : next;
    yield { slot, count: end - slot };
    slot = findBit(bits, true, end, limit);
  }
}

function word(bits: Bits, index: number): number {
  return bits[index] ?? 0;
}
