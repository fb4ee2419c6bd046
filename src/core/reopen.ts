/** Changing the options of open nodes, many at a time and all or none (BL-REOPEN). */
import { exchangeBacking } from './chain-change.ts';
import type { ReopenStep } from './driver.ts';
import { BlockError, codeOf, errorText, withErrno } from './errors.ts';
import type { Graph } from './graph.ts';
import { moveLink } from './graph-change.ts';
import type { BlockNode } from './node.ts';
import type { NestedOptions } from './options.ts';
import { updatePermissions } from './permission-update.ts';
import { planReopen, type ReopenEntry, type ReopenRequest } from './reopen-plan.ts';
import * as request from './request.ts';
import type { Transaction } from './transaction.ts';

/**
 * Reopens nodes with all that inherit from them. What is not given stays ("keep"), or goes back to its default (`reset`).
 * Throws BlockError, and then nothing has changed.
 */
export async function reopen(graph: Graph, requests: readonly ReopenRequest[]): Promise<void> {
  const roots = requests.flatMap(({ node, options }) => [node, ...namedNodes(graph, options)]);
  const unused = await graph.control.run('alone', roots, () => reopenNow(graph, requests));
  await graph.closeLeft(unused);
}

/** Other nodes that the options put into places of children. */
function namedNodes(graph: Graph, options: NestedOptions): BlockNode[] {
  return Object.values(options).flatMap((value) => (typeof value === 'string' ? (graph.node(value) ?? []) : []));
}

/**
 * The same inside a change that has this part of the graph to itself already. Returns nodes that nobody may use any more,
 * for the caller to close.
 */
export async function reopenNow(graph: Graph, requests: readonly ReopenRequest[]): Promise<BlockNode[]> {
  graph.requireOpen(...requests.map(({ node }) => node));
  const plan = planReopen(graph, requests);
  const nodes = plan.map(({ node }) => node);
  const drain = await graph.drain(...nodes);
  try {
    for (const node of [...nodes, ...plan.flatMap(replacedChildren)]) await flushBefore(node);
    const steps = await prepareAll(plan);
    const unused = commitOrAbort(graph, plan, steps);
    // What jobs have under way may still be in what a driver is about to close.
    for (const node of nodes) await node.tracker.whenPassed();
    for (const step of steps) await step.finish?.().catch((error) => graph.host.notice(String(error)));
    return unused;
  } finally {
    drain.end();
  }
}

function commitOrAbort(graph: Graph, plan: readonly ReopenEntry[], steps: readonly ReopenStep[]): BlockNode[] {
  const unused: BlockNode[] = [];
  try {
    graph.change((transaction) => {
      for (const entry of plan) unused.push(...apply(graph, transaction, entry));
      updatePermissions(transaction, [...plan.map(({ node }) => node), ...transaction.touched()]);
      transaction.add({ commit: () => commitAll(steps), abort() {} });
    });
  } catch (error) {
    abortAll(steps);
    throw error;
  }
  return unused;
}

/** A reopen that changes one thing and keeps the rest (BL-REOPEN-7). */
export async function setReadOnly(graph: Graph, node: BlockNode, readOnly: boolean): Promise<void> {
  await reopen(graph, [{ node, options: { 'read-only': readOnly } }]);
}

/** Written back while a failure still stops the change. */
function replacedChildren({ node, children }: ReopenEntry): BlockNode[] {
  return node.children.filter(({ name }) => children[name] !== undefined).map((link) => link.node);
}

async function flushBefore(node: BlockNode): Promise<void> {
  if (!node.writable || node.inactive) return;
  try {
    await request.flush(node);
  } catch (cause) {
    throw withErrno(codeOf(cause), 'Error flushing drive', { cause, node: node.name });
  }
}

/** The drivers' first phase, in order; the first failure takes all back (BL-REOPEN-3). */
async function prepareAll(plan: readonly ReopenEntry[]): Promise<ReopenStep[]> {
  const steps: ReopenStep[] = [];
  try {
    for (const entry of plan) {
      const step = await prepare(entry);
      if (step !== undefined) steps.push(step);
    }
  } catch (error) {
    abortAll(steps);
    throw error;
  }
  return steps;
}

async function prepare(entry: ReopenEntry): Promise<ReopenStep | undefined> {
  const { node, settings, writable, values, optionsChanged } = entry;
  const { impl, driver, copyOnRead } = node;
  if (!writable && node.writable && copyOnRead > 0) {
    throw new BlockError('EINVAL', `Can't set node '${node.name}' to r/o with copy-on-read enabled`, {
      node: node.name,
    });
  }
  if (impl.prepareReopen === undefined) {
    const sameCache = settings.cache.direct === node.settings.cache.direct;
    if (writable === node.writable && sameCache && !optionsChanged) return undefined;
    const text = `Block format '${driver.name}' used by node '${node.name}' does not support reopening files`;
    throw new BlockError('ENOTSUP', text, { node: node.name });
  }
  try {
    return await impl.prepareReopen({ options: values, writable, cache: settings.cache, discard: settings.discard });
  } catch (error) {
    if (!(error instanceof BlockError) || error.message !== errorText(error.code)) throw error;
    const text = `failed while preparing to reopen image '${node.filename}'`;
    throw new BlockError(error.code, text, { node: node.name, cause: error });
  }
}

/** Sets what the node will be, and swaps its children; returns nodes that nobody may use afterwards. */
function apply(graph: Graph, transaction: Transaction, entry: ReopenEntry): BlockNode[] {
  const { node, settings, writable, options, explicit, children } = entry;
  transaction.remember(node);
  if (node.writable && !writable) transaction.madeReadOnly.add(node);
  node.settings = settings;
  node.options = options;
  node.origin = { ...node.origin, explicit };
  node.writable = writable;
  const left: BlockNode[] = [];
  for (const [name, reference] of Object.entries(children)) {
    const target = reference === null ? undefined : graph.lookUp({ node: reference });
    if (name === 'backing' && node.driver.kind === 'format') {
      const before = exchangeBacking(transaction, node, target);
      if (before !== undefined) left.push(before);
      continue;
    }
    const link = node.child(name);
    if (link === undefined || target === undefined || link.node === target) continue;
    left.push(link.node);
    moveLink(transaction, link, target);
  }
  return left;
}

function abortAll(steps: readonly ReopenStep[]): void {
  for (const step of [...steps].reverse()) step.abort();
}

/** Children before parents (BL-REOPEN-3). */
function commitAll(steps: readonly ReopenStep[]): void {
  for (const step of [...steps].reverse()) step.commit();
}
