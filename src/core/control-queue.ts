/**
 * Who may work on which part of the graph at a time. What changes nodes and waits between its steps (reopening, changes of
 * chains) has its part to itself; opening, closing and checking go beside each other, but not beside those. A part is
 * all that is linked, above and below. Control plane only: requests are held back by drains.
 */
import type { BlockNode } from './node.ts';
import { linkedWith } from './walks.ts';

/** `alone`: no other work on the part; `shared`: other shared work may go on there. */
export type ControlMode = 'alone' | 'shared';

interface Entry {
  readonly mode: ControlMode;
  /** While it waits: where the part is looked for, since links may change until its turn. */
  readonly roots: readonly BlockNode[];
  /** Since its turn. */
  part: ReadonlySet<BlockNode> | undefined;
}

export class ControlQueue {
  /** Running and waiting, in the order they came. An entry waits for earlier ones only, so none waits in a circle. */
  #entries: Entry[] = [];
  #waiting: (() => void)[] = [];

  /**
   * Runs `work` when no earlier work stands in the way; at once, in the same turn, if there is none. Must not be called
   * from inside other such work on the same part, which would wait for itself.
   */
  async run<T>(mode: ControlMode, roots: readonly BlockNode[], work: () => Promise<T>): Promise<T> {
    const entry: Entry = { mode, roots, part: undefined };
    this.#entries.push(entry);
    try {
      while (this.#mustWait(entry)) await new Promise<void>((resolve) => this.#waiting.push(resolve));
      entry.part = linkedWith(roots);
      return await work();
    } finally {
      this.#entries = this.#entries.filter((other) => other !== entry);
      const waiting = this.#waiting;
      this.#waiting = [];
      for (const resolve of waiting) resolve();
    }
  }

  #mustWait(entry: Entry): boolean {
    const earlier = this.#entries.slice(0, this.#entries.indexOf(entry));
    const others = earlier.filter(({ mode }) => mode === 'alone' || entry.mode === 'alone');
    if (others.length === 0) return false;
    const part = linkedWith(entry.roots);
    return others.some((other) => intersect(part, other.part ?? linkedWith(other.roots)));
  }
}

function intersect(a: ReadonlySet<BlockNode>, b: ReadonlySet<BlockNode>): boolean {
  for (const node of a) if (b.has(node)) return true;
  return false;
}
