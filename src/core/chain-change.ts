/** Changes of chains while they are in use: each is drained, done as one transaction, and then shown in all names. */
import { resolveStoredName } from './backing-name.ts';
import { requireUnblocked } from './blockers.ts';
import { chainContains, findOverlay, skipFilters } from './chain.ts';
import type { BackingReference } from './driver.ts';
import { addContext, BlockError, codeOf, withErrno } from './errors.ts';
import type { Graph } from './graph.ts';
import { addLink, dropLink, moveLink, reaches } from './graph-change.ts';
import { BlockNode, type Link } from './node.ts';
import type { NestedOptions } from './options.ts';
import { updatePermissions } from './permission-update.ts';
import { refreshAbove } from './refresh.ts';
import { reopenNow } from './reopen.ts';
import * as request from './request.ts';
import type { Transaction } from './transaction.ts';

/** Makes `target` the image below `node`, or none (BL-CHAIN-1 to 4). What the header says stays. Throws BlockError. */
export async function setBacking(graph: Graph, node: BlockNode, target: BlockNode | undefined): Promise<void> {
  const nodes = target === undefined ? [node] : [node, target];
  await drained(
    graph,
    nodes,
    () => node.backing?.node,
    (transaction) => {
      exchangeBacking(transaction, node, target);
    },
  );
}

/** The same as a part of a transaction; permissions are the caller's to update. Returns the node that was there. */
export function exchangeBacking(
  transaction: Transaction,
  node: BlockNode,
  target: BlockNode | undefined,
): BlockNode | undefined {
  const { backing: link, driver } = node;
  if (link?.node === target) return undefined;
  if (target !== undefined) requireBackingSupport(node);
  const before = link?.node;
  if (link !== undefined) dropLink(transaction, link);
  transaction.remember(node);
  node.noBacking = target === undefined;
  if (target !== undefined && driver.kind === 'format') addLink(transaction, 'backing', node, target, 'cow');
  return before;
}

function requireBackingSupport(node: BlockNode): void {
  const { driver, name } = node;
  if (!node.isOpen) throw new BlockError('EINVAL', 'Node corrupted', { node: name });
  if (driver.kind === 'format' && driver.supportsBacking === true) return;
  throw new BlockError('ENOTSUP', `Driver '${driver.name}' of node '${name}' does not support backing files`, {
    node: name,
  });
}

/**
 * Puts `overlay` on top of `top`: all that use `top` use `overlay` from then on (BL-CHAIN-14). It must have no backing
 * image, unless it is a filter over `top`.
 */
export async function append(graph: Graph, overlay: BlockNode, top: BlockNode): Promise<void> {
  const nothing = () => undefined;
  await drained(graph, [overlay, top], nothing, (transaction) => {
    if (overlay.filtered?.node !== top) {
      if (overlay.backing !== undefined) {
        throw new BlockError('EINVAL', `Node '${overlay.name}' has a backing file already`, { node: overlay.name });
      }
      exchangeBacking(transaction, overlay, top);
    }
    moveParents(transaction, top, overlay);
  });
}

/** All that use `from` use `to` from then on, save where that would be a loop (BL-CHAIN-13). `from` closes if unused. */
export async function replaceNode(graph: Graph, from: BlockNode, to: BlockNode): Promise<void> {
  await drained(
    graph,
    [from, to],
    () => from,
    (transaction) => {
      moveParents(transaction, from, to);
    },
  );
}

/** Not where that would be a loop, nor away from where its user works. */
function mayMove({ parent }: Link, to: BlockNode): boolean {
  return parent instanceof BlockNode ? !reaches(to, parent) : parent.stays !== true;
}

function moveParents(transaction: Transaction, from: BlockNode, to: BlockNode): void {
  // The newest last, which is first again then (BL-TERM-4).
  for (const link of [...from.parents].reverse()) {
    if (!mayMove(link, to)) continue;
    moveLink(transaction, link, to);
  }
}

/**
 * Opens a filter over `node`, by its driver's options without the child, and puts it on top (BL-CHAIN-16).
 * Returns the filter's node, which goes when its users go, or by {@link removeFilter}.
 */
export async function insertFilter(graph: Graph, node: BlockNode, options: NestedOptions): Promise<BlockNode> {
  if (options.driver === undefined) throw new BlockError('EINVAL', 'driver is not specified');
  const driver = graph.driver(String(options.driver));
  if (driver === undefined) throw new BlockError('EINVAL', `Unknown driver: '${options.driver}'`);
  if (driver.kind !== 'filter') throw new BlockError('EINVAL', `Driver '${driver.name}' is no filter`);
  const child = driver.filters ?? 'file';
  if (node.parents.length === 0) {
    throw new BlockError('EINVAL', `Node '${node.name}' has no user that a filter could come between`);
  }
  const readOnly = node.writable ? {} : { 'read-only': true };
  const filter = await graph.add({ ...readOnly, ...options, [child]: node.name }).catch((error) => {
    throw addContext('Could not create node', error);
  });
  try {
    await append(graph, filter, node).catch((error) => {
      throw addContext('Could not replace node', error);
    });
  } catch (error) {
    await graph.release(filter).catch(() => {});
    throw error;
  }
  await graph.release(filter);
  return filter;
}

/** Takes a filter out: all that use it use its child, and it closes. Throws TypeError for a node that is no filter. */
export async function removeFilter(graph: Graph, filter: BlockNode): Promise<void> {
  const child = filter.filtered?.node;
  if (child === undefined) throw new TypeError(`node '${filter.name}' is no filter`);
  await replaceNode(graph, filter, child);
}

/**
 * Changes what a header names as the image below, and not what is linked (BL-CHAIN-11). Throws BlockError: EINVAL for a
 * format without a file, and with `requireFormat` for a file without a format; ENOTSUP; ENOSPC without room for the name.
 */
export function changeBackingFile(
  graph: Graph,
  node: BlockNode,
  reference: BackingReference | undefined,
  { requireFormat = false }: { readonly requireFormat?: boolean } = {},
): Promise<void> {
  return changing(graph, [node], async () => {
    const { filename = '', format = '' } = reference ?? {};
    if ((filename === '' && format !== '') || (requireFormat && filename !== '' && format === '')) {
      throw withErrno('EINVAL', `Cannot change the backing file of '${node.name}'`, { node: node.name });
    }
    const drain = await graph.drain(node);
    try {
      await writeReference(graph, node, filename === '' ? undefined : reference);
    } finally {
      drain.end();
    }
  });
}

async function writeReference(graph: Graph, node: BlockNode, reference: BackingReference | undefined): Promise<void> {
  const { impl, driver, name } = node;
  if (impl.changeBacking === undefined) {
    throw new BlockError('ENOTSUP', `Driver '${driver.name}' cannot change what its header names`, { node: name });
  }
  const before = node.storedBacking;
  try {
    await storeReference(node, reference);
  } catch (error) {
    if (isOther(node.storedBacking, before)) {
      await storeReference(node, before).catch((failure) => noteNotUndone(graph, node, failure));
    }
    throw error;
  } finally {
    const stored = node.storedBacking?.filename ?? '';
    node.automaticBackingName = stored === '' ? '' : impliedName(node, stored);
    refreshAbove([node]);
  }
}

async function storeReference(node: BlockNode, reference: BackingReference | undefined): Promise<void> {
  try {
    await node.impl.changeBacking?.(reference);
  } finally {
    node.writeGeneration++;
  }
  await request.flush(node);
}

function isOther(a: BackingReference | undefined, b: BackingReference | undefined): boolean {
  return a?.filename !== b?.filename || a?.format !== b?.format;
}

function noteNotUndone(graph: Graph, node: BlockNode, cause: unknown): void {
  graph.host.notice(`a change of '${node.filename}' that failed could not be undone: ${String(cause)}`);
}

/** What a stored name leads to; a name that leads nowhere shows when it is opened. */
function impliedName(node: BlockNode, stored: string): string {
  try {
    return resolveStoredName(node, stored);
  } catch (error) {
    if (error instanceof BlockError) return stored;
    throw error;
  }
}

/**
 * Takes the images from above `base` up to `top` out of the chain of `active` (BL-CHAIN-12): all that use `top` use `base`
 * then, and the images among them name `text`, or base's file name. If a header cannot be written, all is as before. EIO
 * where the chain is none.
 */
export async function dropIntermediate(
  graph: Graph,
  active: BlockNode,
  top: BlockNode,
  base: BlockNode,
  text?: string,
): Promise<void> {
  try {
    await changing(graph, [active, top, base], async () => {
      if (findOverlay(active, top) === undefined || !chainContains(top, base)) {
        throw new BlockError('EIO', `Node '${base.name}' is not below '${top.name}' in the chain of '${active.name}'`);
      }
      if (top === base) return;
      const image = skipFilters(base);
      const drain = await graph.drain(top, base);
      try {
        await flushLeft(top);
        await moveDown(graph, top, base, { filename: text ?? image.filename, format: image.driver.name });
      } finally {
        drain.end();
      }
    });
  } finally {
    await graph.closeLeft([top]);
  }
}

async function moveDown(graph: Graph, top: BlockNode, base: BlockNode, reference: BackingReference): Promise<void> {
  const links = top.parents;
  graph.change((transaction) => repoint(transaction, links, base));
  try {
    await renameBacking(graph, links, reference);
  } catch (cause) {
    try {
      // Users may have gone meanwhile.
      const moved = links.filter((link) => base.parents.includes(link));
      graph.change((transaction) => repoint(transaction, moved, top));
    } catch (failure) {
      noteNotUndone(graph, top, failure);
    }
    throw withErrno(codeOf(cause), 'Could not update backing file link', { cause });
  }
}

function repoint(transaction: Transaction, links: readonly Link[], node: BlockNode): void {
  const before = new Set(links.map((link) => link.node));
  for (const link of [...links].reverse()) {
    if (!mayMove(link, node)) {
      throw new BlockError('EINVAL', `Should not change '${link.name}' link to '${node.name}'`, { node: node.name });
    }
    if (link.frozen) {
      throw new BlockError('EPERM', `Cannot change '${link.name}' link to '${node.name}'`, { node: node.name });
    }
    moveLink(transaction, link, node);
  }
  updatePermissions(transaction, [...parentNodes(links), node, ...before]);
}

/** Writes the headers of the images above, all or none of them, as far as those that were written can be written again. */
async function renameBacking(graph: Graph, links: readonly Link[], reference: BackingReference): Promise<void> {
  const written: { readonly overlay: BlockNode; readonly before: BackingReference | undefined }[] = [];
  try {
    for (const overlay of overlaysOf(links)) {
      const before = overlay.storedBacking;
      if (overlay.impl.changeBacking === undefined) continue;
      written.push({ overlay, before });
      await writeWhileWritable(graph, overlay, reference);
    }
  } catch (error) {
    for (const { overlay, before } of written.reverse()) {
      if (!isOther(overlay.storedBacking, before)) continue;
      await writeWhileWritable(graph, overlay, before).catch((failure) => noteNotUndone(graph, overlay, failure));
    }
    throw error;
  }
}

/** The images that have the linked nodes below them, filters between or not. */
function overlaysOf(links: readonly Link[]): Set<BlockNode> {
  const found = new Set<BlockNode>();
  for (const { parent, role } of links) {
    if (!(parent instanceof BlockNode)) continue;
    if (role === 'cow') found.add(parent);
    else if (parent.driver.kind === 'filter') for (const overlay of overlaysOf(parent.parents)) found.add(overlay);
  }
  return found;
}

/** One that is read-only is made writable meanwhile. */
async function writeWhileWritable(
  graph: Graph,
  overlay: BlockNode,
  reference: BackingReference | undefined,
): Promise<void> {
  const setWritable = (writable: boolean) => reopenNow(graph, [{ node: overlay, options: { 'read-only': !writable } }]);
  if (overlay.writable) return writeReference(graph, overlay, reference);
  const { explicit } = overlay.origin;
  await setWritable(true);
  try {
    await writeReference(graph, overlay, reference);
  } finally {
    await setWritable(false).catch((error) => noteNotUndone(graph, overlay, error));
    // Nobody asked for it, so that later it takes on again what its parent is.
    overlay.origin = { ...overlay.origin, explicit };
  }
}

function parentNodes(links: readonly Link[]): BlockNode[] {
  return links.flatMap(({ parent }) => (parent instanceof BlockNode ? [parent] : []));
}

/** Has the part of the graph around `nodes` to itself; all of them must be open still. */
function changing<T>(graph: Graph, nodes: readonly BlockNode[], work: () => Promise<T>): Promise<T> {
  return graph.control.run('alone', nodes, () => {
    graph.requireOpen(...nodes);
    return work();
  });
}

/** Drains, changes, and closes `leaving` if nobody uses it then. */
async function drained(
  graph: Graph,
  nodes: readonly BlockNode[],
  leaving: () => BlockNode | undefined,
  change: (transaction: Transaction) => void,
): Promise<void> {
  const left = await changing(graph, nodes, async () => {
    const drain = await graph.drain(...nodes);
    try {
      const node = leaving();
      if (node !== undefined) await flushLeft(node);
      graph.change((transaction) => {
        change(transaction);
        updatePermissions(transaction, [...nodes, ...transaction.touched()]);
      });
      return node;
    } finally {
      drain.end();
    }
  });
  if (left !== undefined) await graph.closeLeft([left]);
}

/** Written back while a failure still stops the change. */
async function flushLeft(node: BlockNode): Promise<void> {
  if (node.writable && !node.inactive) await request.flush(node);
}

/**
 * Refuses to put another node in the place of `name` unless it is what `parent` shows, itself or through filters only
 * (BL-FILTER-3): else data would change abruptly. Returns the node.
 */
export function requireReplaceable(graph: Graph, parent: BlockNode, name: string): BlockNode {
  const node = graph.node(name);
  if (node === undefined) throw new BlockError('EINVAL', `Failed to find node with node-name='${name}'`);
  requireUnblocked(node, 'replace', node.deviceOrNodeName);
  if (shows(parent, node)) return node;
  throw new BlockError(
    'EINVAL',
    `Cannot replace '${name}' by a node mirrored from '${parent.name}', because it cannot be guaranteed that doing so would not lead to an abrupt change of visible data`,
    { node: name },
  );
}

/** Whether `parent` shows just what `node` does: by filtering it, or because its driver says so of a child. */
function shows(parent: BlockNode, node: BlockNode): boolean {
  if (parent === node) return true;
  const { filtered } = parent;
  const links = parent.children.filter((link) => link === filtered || parent.impl.showsChild?.(link.name) === true);
  return links.some((link) => shows(link.node, node));
}
