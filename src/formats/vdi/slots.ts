/**
 * Places in the data area. A slot that a discard gave up holds old data, and the map on disk may still name it: it is
 * used again only when the map without it is durable and no request that may still know it is under way.
 */
export class Slots {
  /** Every slot from here on was never used: a new block goes here. */
  next: number;
  readonly #free: number[] = [];
  #pending: { readonly slot: number; readonly generation: number }[] = [];
  #generation = 0;
  readonly #active = new Map<number, number>();
  #leaving: (() => void)[] = [];

  constructor(next: number) {
    this.next = next;
  }

  /** Forgets everything; free are those below `next` that `isFree` says. */
  reset(next: number, isFree: (slot: number) => boolean): void {
    this.next = next;
    this.#pending = [];
    this.#free.length = 0;
    for (let slot = next - 1; slot >= 0; slot--) if (isFree(slot)) this.#free.push(slot);
  }

  /** A request that looks slots up begins; give what this returns to {@link leave}. */
  enter(): number {
    this.#active.set(this.#generation, (this.#active.get(this.#generation) ?? 0) + 1);
    return this.#generation;
  }

  leave(generation: number): void {
    const left = (this.#active.get(generation) ?? 1) - 1;
    if (left === 0) this.#active.delete(generation);
    else this.#active.set(generation, left);
    const waiting = this.#leaving;
    this.#leaving = [];
    for (const resolve of waiting) resolve();
  }

  /** Waits until a request under way ends; at once if there is none. */
  whenSomeLeave(): Promise<void> {
    if (this.#active.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#leaving.push(resolve));
  }

  /** Nothing in the map names `slot` any longer. */
  giveUp(slot: number): void {
    this.#pending.push({ slot, generation: this.#generation });
    // Requests that begin from now on cannot know it.
    this.#generation++;
  }

  /** A slot that no map, in memory or on disk, has ever named, or that is free beyond doubt. */
  putBack(slot: number): void {
    if (slot === this.next - 1) this.next--;
    else this.#free.push(slot);
  }

  /** What {@link release} may take once the map as it is now is durable. */
  mark(): number {
    return this.#generation;
  }

  /** The map as it was at `mark` is durable: slots given up before are free where no earlier request may know them. */
  release(mark: number): void {
    let oldest = Number.POSITIVE_INFINITY;
    for (const generation of this.#active.keys()) oldest = Math.min(oldest, generation);
    this.#pending = this.#pending.filter(({ slot, generation }) => {
      if (generation >= mark || generation >= oldest) return true;
      this.#free.push(slot);
      return false;
    });
  }

  get hasFree(): boolean {
    return this.#free.length > 0;
  }

  get hasPending(): boolean {
    return this.#pending.length > 0;
  }

  /** Slots that hold nothing. */
  get unused(): number {
    return this.#free.length + this.#pending.length;
  }

  takeFree(): number | undefined {
    return this.#free.pop();
  }

  /** Free slots in ascending order, taken out; the caller puts back what it does not use. */
  takeAllFree(): number[] {
    return this.#free.splice(0).sort((a, b) => a - b);
  }

  /** Drops free slots at the end of the data area; whether there were any. */
  trimEnd(): boolean {
    if (this.#free.length === 0) return false;
    this.#free.sort((a, b) => a - b);
    const before = this.next;
    while (this.#free.length > 0 && this.#free.at(-1) === this.next - 1) {
      this.#free.pop();
      this.next--;
    }
    return this.next !== before;
  }
}

/** Fills `slots` anew from a map: the next place is behind the last one in use, and what lies between is free. */
export function loadSlots(slots: Slots, map: Uint32Array, next: number): void {
  const used = new Uint8Array(next);
  for (const slot of map) if (slot < next) used[slot] = 1;
  slots.reset(next, (slot) => used[slot] === 0);
}
