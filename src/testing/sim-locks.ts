/** Advisory byte-range locks that belong to open files, as Linux's F_OFD_SETLK. */

interface HeldLock {
  readonly owner: object;
  readonly kind: 'shared' | 'exclusive';
  readonly start: number;
  readonly end: number;
}

export class SimLocks {
  #held: HeldLock[] = [];

  /** The owner of a lock that stands in the way of one of `kind`, if any. Length 0: to the end of time. */
  blocker(owner: object, kind: 'shared' | 'exclusive', offset: number, length: number): object | undefined {
    const end = length === 0 ? Number.POSITIVE_INFINITY : offset + length;
    return this.#held.find(
      (lock) =>
        lock.owner !== owner &&
        lock.start < end &&
        lock.end > offset &&
        (kind === 'exclusive' || lock.kind === 'exclusive'),
    )?.owner;
  }

  /** Takes, changes or drops the owner's lock on the range; false when another owner is in the way. */
  set(owner: object, kind: 'shared' | 'exclusive' | 'none', offset: number, length: number): boolean {
    const end = length === 0 ? Number.POSITIVE_INFINITY : offset + length;
    if (kind !== 'none' && this.blocker(owner, kind, offset, length) !== undefined) return false;
    const next: HeldLock[] = [];
    for (const lock of this.#held) {
      if (lock.owner !== owner || lock.end <= offset || lock.start >= end) next.push(lock);
      else {
        if (lock.start < offset) next.push({ ...lock, end: offset });
        if (lock.end > end) next.push({ ...lock, start: end });
      }
    }
    if (kind !== 'none') next.push({ owner, kind, start: offset, end });
    this.#held = next;
    return true;
  }

  release(owner: object): void {
    this.#held = this.#held.filter((lock) => lock.owner !== owner);
  }
}
