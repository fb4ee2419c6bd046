/** Draining: users' requests are held back until what is under way has ended (BL-CTX-5). */
import type { BlockNode } from './node.ts';
import { withAncestors, withDescendants } from './walks.ts';

export class Drain {
  readonly #roots: readonly BlockNode[];
  readonly #held = new Set<BlockNode>();
  readonly #ended: () => void;
  /** Nodes below that let requests pass until the end. */
  readonly #passing: (() => void)[] = [];
  #over = false;

  /** Holds back at once; {@link whenIdle} waits. */
  constructor(roots: readonly BlockNode[], ended: () => void) {
    this.#roots = roots;
    this.#ended = ended;
    this.follow();
  }

  /** Takes in what is above the drained nodes now; new parents must not let requests through. */
  follow(): void {
    for (const node of withAncestors(this.#roots)) {
      if (this.#held.has(node)) continue;
      this.#held.add(node);
      if (node.drainDepth++ === 0 && node.isOpen && !node.closing) node.impl.quiesce?.();
    }
  }

  async whenIdle(): Promise<void> {
    for (const node of withDescendants(this.#held)) {
      const end = node.isOpen ? node.impl.letPass?.() : undefined;
      if (end !== undefined) this.#passing.push(end);
    }
    const busy = () => [...this.#held].find((node) => !node.tracker.idle);
    for (let node = busy(); node !== undefined; node = busy()) await node.tracker.whenIdle();
  }

  /** Lets requests go on. Once only. */
  end(): void {
    if (this.#over) return;
    this.#over = true;
    this.#ended();
    for (const end of this.#passing) end();
    for (const node of this.#held) {
      if (--node.drainDepth > 0) continue;
      if (node.isOpen && !node.closing) node.impl.resume?.();
      node.wake();
    }
  }
}
