/**
 * Changing what links hold, as one transaction over a part of the graph (BL-PERM-2, BL-PERM-3, BL-PERM-6):
 * all new sets are worked out and checked, protocols take their locks, and only then anything changes.
 */
import type { PendingChange } from './driver.ts';
import { BlockError } from './errors.ts';
import { BlockNode, type Link } from './node.ts';
import {
  ALL_PERMISSIONS,
  childPermissions,
  Permission,
  type PermissionSet,
  type Permissions,
  permissionNames,
} from './permissions.ts';
import type { Transaction } from './transaction.ts';
import { parentsFirst } from './walks.ts';

/**
 * Recomputes what is held at and below `roots`, where some parent links may carry `pending` sets, as a part of
 * `transaction`. Throws if any two users conflict, a node cannot be written, or a protocol refuses; not if the change only
 * `loosens`: then a protocol that refuses holds what it held before (BL-PERM-6). Once in a transaction, at its end.
 */
export function updatePermissions(
  transaction: Transaction,
  roots: readonly BlockNode[],
  { loosens = false }: { readonly loosens?: boolean } = {},
): void {
  transaction.endChanges();
  const nodes = parentsFirst(roots);
  // First, so that it is put back or taken over after all protocols had their say.
  transaction.add({ commit: () => settle(nodes, true), abort: () => settle(nodes, false) });
  for (const node of nodes) {
    const wanted = cumulative(node);
    if (!loosens) check(node, wanted, transaction);
    const change = prepare(node, wanted, loosens);
    if (change !== undefined) transaction.add(change);
    for (const link of node.children) {
      const next =
        (node.isOpen ? node.impl.childPermissions?.(link.name, wanted) : undefined) ??
        childPermissions(link.role, { writable: node.writable && !node.inactive, noIO: node.settings.noIO }, wanted);
      const share = node.inactive ? next.share | Permission.write | Permission.resize : next.share;
      link.pending = { need: next.need, share };
    }
  }
}

function check(node: BlockNode, wanted: Permissions, transaction: Transaction): void {
  checkConflicts(node);
  checkWritable(node, wanted, transaction.madeReadOnly.has(node));
  if ((wanted.need & Permission.write) !== 0) checkOverlays(node);
}

function prepare(node: BlockNode, wanted: Permissions, loosens: boolean): PendingChange | undefined {
  if (!node.isOpen) return undefined;
  try {
    return node.impl.preparePermissions?.(wanted);
  } catch (error) {
    if (loosens && error instanceof BlockError) return undefined;
    throw error;
  }
}

/** What a user shares of a node; everything if the node is opened so (BL-PERM-7). */
function sharedBy(link: Link, node: BlockNode): PermissionSet {
  return node.settings.forceShare ? ALL_PERMISSIONS : (link.pending ?? link.held).share;
}

/** What all parents of a node together need of it, and what every one of them shares (BL-PERM-1). */
function cumulative(node: BlockNode): Permissions {
  let need = 0;
  let share = ALL_PERMISSIONS;
  for (const link of node.parents) {
    need |= (link.pending ?? link.held).need;
    share &= sharedBy(link, node);
  }
  return { need, share };
}

function settle(nodes: readonly BlockNode[], commit: boolean): void {
  for (const node of nodes) {
    for (const link of node.parents) {
      if (commit && link.pending !== undefined) link.held = link.pending;
      link.pending = undefined;
    }
  }
}

/** For any two links, each must share what the other needs (BL-PERM-2). */
function checkConflicts(node: BlockNode): void {
  for (const user of node.parents) {
    const needed = user.pending ?? user.held;
    for (const other of node.parents) {
      if (other === user) continue;
      const refused = needed.need & ~sharedBy(other, node);
      if (refused === 0) continue;
      throw new BlockError(
        'EPERM',
        `Permission conflict on node '${node.name}': permissions '${permissionNames(refused)}' are both required by ${describe(user)} and unshared by ${describe(other)}.`,
        { node: node.name },
      );
    }
  }
}

function describe(link: Link): string {
  const user = link.parent instanceof BlockNode ? `node '${link.parent.name}'` : link.parent.description;
  return `${user} (uses node '${link.node.name}' as '${link.name}' child)`;
}

/** What is written under an image that was not made over it would not fit what that one stores (V-50). */
function checkOverlays(node: BlockNode): void {
  for (const { parent, role } of node.parents) {
    if (!(parent instanceof BlockNode) || !parent.isOpen) continue;
    if (role === 'cow') parent.impl.checkBacking?.();
    else if (role === 'filtered') checkOverlays(parent);
  }
}

/** BL-PERM-3. */
function checkWritable(node: BlockNode, wanted: Permissions, madeReadOnly: boolean): void {
  if ((wanted.need & (Permission.write | Permission.writeUnchanged)) === 0) return;
  if (!node.writable) {
    const text = madeReadOnly
      ? `Read-only block node '${node.name}' cannot support read-write users`
      : 'Block node is read-only';
    throw new BlockError('EPERM', text, { node: node.name });
  }
  if (node.inactive) throw new BlockError('EPERM', `Node '${node.name}' is inactive`, { node: node.name });
  if (!node.isOpen || (wanted.need & Permission.resize) !== 0) return;
  if (node.impl.length() % node.limits.requestAlign !== 0) {
    throw new BlockError(
      'EPERM',
      "Cannot get 'write' permission without 'resize': Image size is not a multiple of request alignment",
      { node: node.name },
    );
  }
}
