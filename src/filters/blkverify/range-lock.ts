/** Keeps requests apart that overlap, by byte range; readers share (BV-12). */

interface Held {
  readonly offset: number;
  readonly end: number;
  readonly exclusive: boolean;
  /** Those that came before it and overlap it must end first. */
  readonly ended: Promise<void>;
}

export class RangeLock {
  readonly #held: Set<Held> = new Set();

  /** Whether a request would have to wait now. */
  isFree(offset: number, length: number, exclusive: boolean): boolean {
    for (const other of this.#held) if (conflict(other, offset, offset + length, exclusive)) return false;
    return true;
  }

  /** Runs `work` when all earlier requests have ended that overlap it, unless both only read. In order of arrival. */
  async run<T>(offset: number, length: number, exclusive: boolean, work: () => Promise<T>): Promise<T> {
    const end = offset + length;
    const before = [...this.#held].filter((other) => conflict(other, offset, end, exclusive));
    let release = () => {};
    const ended = new Promise<void>((resolve) => {
      release = resolve;
    });
    const own: Held = { offset, end, exclusive, ended };
    this.#held.add(own);
    try {
      await Promise.all(before.map((other) => other.ended));
      return await work();
    } finally {
      this.#held.delete(own);
      release();
    }
  }
}

function conflict(other: Held, offset: number, end: number, exclusive: boolean): boolean {
  return (exclusive || other.exclusive) && other.offset < end && offset < other.end;
}
