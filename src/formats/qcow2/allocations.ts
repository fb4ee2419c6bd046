/** Writes that are giving guest clusters storage, or changing parts of an entry: others wait for them (Q-WR-6). */

export interface Allocation {
  /** Guest bytes that nobody else may touch meanwhile. */
  readonly from: number;
  to: number;
  /** Resolves when it is over, or shorter than it was. */
  changed: Promise<void>;
}

interface Pending extends Allocation {
  wake: () => void;
}

export class Allocations {
  readonly #pending = new Set<Pending>();

  get size(): number {
    return this.#pending.size;
  }

  begin(from: number, to: number): Allocation {
    const pending: Pending = { from, to, changed: Promise.resolve(), wake: () => {} };
    arm(pending);
    this.#pending.add(pending);
    return pending;
  }

  /** What lies behind `to` is free for others. */
  shorten(allocation: Allocation, to: number): void {
    if (to >= allocation.to) return;
    const pending = allocation as Pending;
    pending.to = to;
    const { wake } = pending;
    arm(pending);
    wake();
  }

  end(allocation: Allocation): void {
    const pending = allocation as Pending;
    this.#pending.delete(pending);
    pending.wake();
  }

  /** The one that overlaps the range and begins first. */
  overlapping(from: number, to: number): Allocation | undefined {
    let found: Allocation | undefined;
    for (const each of this.#pending) {
      if (each.from < to && from < each.to && (found === undefined || each.from < found.from)) found = each;
    }
    return found;
  }
}

function arm(pending: Pending): void {
  pending.changed = new Promise((resolve) => {
    pending.wake = resolve;
  });
}
