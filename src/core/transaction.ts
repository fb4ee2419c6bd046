/** Changes of the graph that happen together or not at all (BL-PERM-6). Control plane only: nothing here waits. */
import type { PendingChange } from './driver.ts';
import { invariant } from './invariant.ts';
import type { BlockNode, Link, NodeOrigin, NodeSettings } from './node.ts';
import type { OptionTree } from './options.ts';

/** What an abort gives back to a node. */
interface Remembered {
  readonly parents: readonly Link[];
  readonly children: readonly Link[];
  readonly settings: NodeSettings;
  readonly options: OptionTree;
  readonly origin: NodeOrigin;
  readonly writable: boolean;
  readonly noBacking: boolean;
  readonly automaticBackingName: string;
  readonly inactive: boolean;
}

/**
 * Whoever changes a node or a link first lets the transaction remember it, then changes it in place; an abort puts all
 * back. Steps of drivers are kept beside, and committed or aborted after the graph's own.
 */
export class Transaction {
  readonly #nodes = new Map<BlockNode, Remembered>();
  readonly #links = new Map<Link, BlockNode>();
  readonly #steps: PendingChange[] = [];
  /** Nodes that only this transaction makes read-only: refusals are worded for it (BL-PERM-3). */
  readonly madeReadOnly = new Set<BlockNode>();
  #changesEnded = false;

  remember(node: BlockNode): void {
    invariant(!this.#changesEnded, 'a transaction updates permissions at its end');
    if (this.#nodes.has(node)) return;
    const { parents, children, settings, options, origin, writable, noBacking, automaticBackingName, inactive } = node;
    this.#nodes.set(node, {
      parents,
      children,
      settings,
      options,
      origin,
      writable,
      noBacking,
      automaticBackingName,
      inactive,
    });
  }

  rememberLink(link: Link): void {
    if (!this.#links.has(link)) this.#links.set(link, link.node);
  }

  add(step: PendingChange): void {
    this.#steps.push(step);
  }

  /** Permissions are taken for the graph as it will be, so nothing changes after them. */
  endChanges(): void {
    invariant(!this.#changesEnded, 'permissions are updated once in a transaction');
    this.#changesEnded = true;
  }

  /** Nodes that were changed. */
  touched(): BlockNode[] {
    return [...this.#nodes.keys()];
  }

  commit(): void {
    for (const step of this.#steps) step.commit();
  }

  abort(): void {
    for (const step of this.#steps.reverse()) step.abort();
    for (const [node, before] of this.#nodes) Object.assign(node, before);
    for (const [link, node] of this.#links) link.node = node;
  }
}

/** Runs `change`, and commits what it did, or puts all back and throws what it threw. */
export function transact<T>(change: (transaction: Transaction) => T): T {
  const transaction = new Transaction();
  let result: T;
  try {
    result = change(transaction);
  } catch (error) {
    transaction.abort();
    throw error;
  }
  transaction.commit();
  return result;
}
