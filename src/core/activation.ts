/** Giving images up to another program for a while, and taking them back, as when a running machine moves (BL-MISC-3). */
import type { DriverSpec } from './driver.ts';
import { BlockError } from './errors.ts';
import type { Graph } from './graph.ts';
import { BlockNode } from './node.ts';
import type { OpenRequest } from './open.ts';
import { updatePermissions } from './permission-update.ts';
import { Permission } from './permissions.ts';
import * as request from './request.ts';
import { parentsFirst } from './walks.ts';

/**
 * Makes nodes active again, with all below them; all of the graph by default. Children come first; then a node takes its
 * permissions, reads anew what others may have changed, and lets its users write again. Throws BlockError, and then all
 * is inactive that was.
 */
export function activate(graph: Graph, nodes: readonly BlockNode[] = graph.nodes()): Promise<void> {
  return graph.control.run('alone', nodes, () => activateAll(graph, nodes));
}

async function activateAll(graph: Graph, nodes: readonly BlockNode[]): Promise<void> {
  graph.requireOpen(...nodes);
  const activated: BlockNode[] = [];
  try {
    for (const node of parentsFirst(nodes).reverse()) {
      if (!node.inactive) continue;
      activated.push(node);
      await activateNode(graph, node);
    }
  } catch (error) {
    for (const node of activated.reverse()) if (!node.inactive) await inactivateNode(graph, node).catch(() => {});
    throw error;
  }
}

/**
 * Makes nodes inactive, with all below them that no active node uses; all of the graph by default. Parents come first.
 * Devices let go of writing. Throws BlockError, and then all is active that was: EPERM while someone else may write.
 */
export function inactivate(graph: Graph, nodes: readonly BlockNode[] = graph.nodes()): Promise<void> {
  return graph.control.run('alone', nodes, () => inactivateAll(graph, nodes));
}

async function inactivateAll(graph: Graph, nodes: readonly BlockNode[]): Promise<void> {
  graph.requireOpen(...nodes);
  const order = parentsFirst(nodes);
  for (const node of order) refuseMigration(node.driver, node.name);
  const drain = await graph.drain(...order);
  const done: BlockNode[] = [];
  try {
    for (const node of order) {
      const isUsed = node.parents.some(({ parent }) => parent instanceof BlockNode && !parent.inactive);
      if (node.inactive || isUsed) continue;
      done.push(node);
      await inactivateNode(graph, node);
    }
  } catch (error) {
    for (const node of done.reverse()) {
      if (node.inactive) await activateNode(graph, node).catch((failure) => graph.host.notice(String(failure)));
      else activateUsers(node);
    }
    throw error;
  } finally {
    drain.end();
  }
}

/** An image that cannot be handed over cannot be opened to be handed over either (BL-OPEN-9, V-16). */
export function refuseInactive(driver: DriverSpec, { options }: OpenRequest): void {
  if (options.inactive === true) refuseMigration(driver, options.nodeName ?? '');
}

function refuseMigration(driver: DriverSpec, node: string): void {
  if (driver.kind !== 'format' || driver.migratable !== false) return;
  const text = `The ${driver.name} format used by node '${node}' does not support live migration`;
  throw new BlockError('ENOTSUP', text, { node });
}

async function activateNode(graph: Graph, node: BlockNode): Promise<void> {
  mark(graph, node, false);
  try {
    await node.impl.activate?.();
    request.refreshLimits(node);
    request.noteLength(node);
    activateUsers(node);
  } catch (error) {
    mark(graph, node, true);
    throw error;
  }
}

function activateUsers(node: BlockNode): void {
  for (const { parent } of node.parents) if (!(parent instanceof BlockNode)) parent.activate?.();
}

async function inactivateNode(graph: Graph, node: BlockNode): Promise<void> {
  for (const { parent } of node.parents) if (!(parent instanceof BlockNode)) parent.inactivate?.();
  const writer = node.parents.find(({ held }) => (held.need & (Permission.write | Permission.writeUnchanged)) !== 0);
  if (writer !== undefined) {
    const text = `Node '${node.name}' cannot be made inactive while ${describe(writer.parent)} may write to it`;
    throw new BlockError('EPERM', text, { node: node.name });
  }
  if (node.writable) await request.flush(node);
  await node.impl.inactivate?.();
  mark(graph, node, true);
}

/** Loosening what is held never fails; taking it may. */
function mark(graph: Graph, node: BlockNode, inactive: boolean): void {
  graph.change((transaction) => {
    transaction.remember(node);
    node.inactive = inactive;
    updatePermissions(transaction, [node], { loosens: inactive });
  });
}

function describe(parent: BlockNode['parents'][number]['parent']): string {
  return parent instanceof BlockNode ? `node '${parent.name}'` : parent.description;
}
