/**
 * Contexts of nodes: who makes their blocking system calls (BL-CTX). Nodes that are linked are in one context, so moving
 * one moves all parents and children too, or none of them.
 */
import { BlockError } from './errors.ts';
import type { Graph } from './graph.ts';
import type { HostContext } from './host.ts';
import { BlockNode, type GraphUser, type Link } from './node.ts';
import { type Transaction, transact } from './transaction.ts';
import { linkedWith } from './walks.ts';

/** Who is told when a node changes its context (BL-CTX-3). */
export interface ContextNotifier<T = unknown> {
  /** The node is in `context` now; undefined: the main one. */
  attached(context: HostContext | undefined, value: T): void;
  /** The node is about to leave its context. */
  detach(value: T): void;
  readonly value: T;
}

/** Tells `notifier` of changes from now on. The same may be added more than once. */
export function addContextNotifier<T>(node: BlockNode, notifier: ContextNotifier<T>): void {
  const { attached, detach, value } = notifier;
  node.contextNotifiers = [...node.contextNotifiers, { attached, detach, value }];
}

/**
 * Removes one notifier whose functions and value are all the same. In the middle of a change it is no longer called.
 * TypeError if there is none.
 */
export function removeContextNotifier<T>(node: BlockNode, { attached, detach, value }: ContextNotifier<T>): void {
  const index = node.contextNotifiers.findIndex(
    (each) => each.attached === attached && each.detach === detach && each.value === value,
  );
  if (index < 0) throw new TypeError(`node '${node.name}' has no such context notifier`);
  node.contextNotifiers = node.contextNotifiers.toSpliced(index, 1);
}

/** Options of a move to another context. */
export interface SetContextOptions {
  /** Users who asked for the change, and so do not stand in its way. */
  readonly ignore?: readonly GraphUser[];
}

/**
 * Moves a node, and all that are linked with it, to a context: drains them, detaches, attaches (BL-CTX-2). Undefined: the
 * main context. Waits for requests under way, those that hang too. BlockError EPERM when a user has no support for it,
 * ENODEV when the node is closed meanwhile; then all are where they were.
 */
export async function setContext(
  graph: Graph,
  node: BlockNode,
  context: HostContext | undefined,
  { ignore = [] }: SetContextOptions = {},
): Promise<void> {
  for (;;) {
    const nodes = linkedNodes(node);
    if (nodes.every((each) => each.context === context)) return;
    // Before any waiting, so that what is refused disturbs nobody.
    refuseFixedUsers(nodes, ignore);
    const drain = await graph.drain(...nodes);
    try {
      if (graph.node(node.name) !== node) throw new BlockError('ENODEV', `Node '${node.name}' is closed`);
      const now = new Set(linkedNodes(node));
      if (now.size !== nodes.length || !nodes.every((each) => now.has(each))) continue;
      transact((transaction) => move(transaction, nodes, context, ignore));
      return;
    } finally {
      drain.end();
    }
  }
}

/**
 * Brings both ends of a new link into one context: what is in the main one follows the other, else the child its parent;
 * or the other way round, where a user stands in the way. BlockError EPERM when none will do.
 */
export function joinContexts(transaction: Transaction, { parent, node }: Link): void {
  if (!(parent instanceof BlockNode) || parent.context === node.context) return;
  const [first, second] = parent.context === undefined ? [parent, node] : [node, parent];
  // Now that they are linked, the sides are told apart by where they are.
  const side = (of: BlockNode) => linkedNodes(of).filter((each) => each.context === of.context);
  try {
    move(transaction, side(first), second.context, []);
  } catch (error) {
    if (!(error instanceof BlockError) || error.code !== 'EPERM') throw error;
    move(transaction, side(second), first.context, []);
  }
}

function refuseFixedUsers(nodes: readonly BlockNode[], ignore: readonly GraphUser[]): void {
  for (const { parents, name } of nodes) {
    for (const { parent } of parents) {
      if (parent instanceof BlockNode || parent.fixedContext !== true || ignore.includes(parent)) continue;
      throw new BlockError('EPERM', `Changing iothreads is not supported by ${parent.description}`, { node: name });
    }
  }
}

/** The change itself, which does not wait: requests still under way end where they began. */
function move(
  transaction: Transaction,
  nodes: readonly BlockNode[],
  context: HostContext | undefined,
  ignore: readonly GraphUser[],
): void {
  const moving = nodes.filter((node) => node.context !== context);
  refuseFixedUsers(moving, ignore);
  const upwards = [...moving].reverse();
  const steps = new Map(
    upwards.map((node) => {
      const step = node.isOpen ? node.impl.prepareContext?.(context) : undefined;
      if (step !== undefined) transaction.add({ commit() {}, abort: () => step.abort() });
      return [node, step];
    }),
  );
  const before = moving.map((node) => node.context);
  for (const node of moving) node.context = context;
  transaction.add({
    commit() {
      for (const node of moving) notify(node, (notifier) => notifier.detach(notifier.value));
      for (const node of upwards) {
        steps.get(node)?.commit();
        notify(node, (notifier) => notifier.attached(context, notifier.value));
      }
    },
    abort() {
      moving.forEach((node, index) => {
        node.context = before[index];
      });
    },
  });
}

function notify(node: BlockNode, call: (notifier: ContextNotifier) => void): void {
  for (const notifier of node.contextNotifiers) if (node.contextNotifiers.includes(notifier)) call(notifier);
}

/** A node and all that links lead to from it, up or down; each after its parents, and below each `file` first, then `backing`. */
function linkedNodes(node: BlockNode): BlockNode[] {
  const upwards: BlockNode[] = [];
  const done = new Set<BlockNode>();
  const visit = (each: BlockNode) => {
    if (done.has(each)) return;
    done.add(each);
    for (const link of [...each.children].sort((a, b) => rank(b) - rank(a))) visit(link.node);
    upwards.push(each);
  };
  const tops = [...linkedWith([node])].filter(
    ({ parents }) => !parents.some(({ parent }) => parent instanceof BlockNode),
  );
  for (const top of tops) visit(top);
  return upwards.reverse();
}

function rank({ name, role }: Link): number {
  return name === 'file' ? 0 : role === 'cow' ? 1 : 2;
}
