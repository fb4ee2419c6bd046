/**
 * Changing what links hold, as one transaction over a part of the graph (BL-PERM-2, BL-PERM-3, BL-PERM-6):
 * all new sets are worked out and checked, protocols take their locks, and only then anything changes.
 */
import { BlockError } from './errors.ts';
import { BlockNode, type Link } from './node.ts';
import { ALL_PERMISSIONS, childPermissions, Permission, type Permissions, permissionNames } from './permissions.ts';
import type { Transaction } from './transaction.ts';

/**
 * Recomputes what is held at and below `roots`, where some parent links may carry `pending` sets, as a part of
 * `transaction`. Throws if any two users conflict, a node cannot be written, or a protocol refuses.
 */
export function updatePermissions(transaction: Transaction, roots: readonly BlockNode[]): void {
  const nodes = parentsFirst(roots);
  // First, so that it is put back or taken over after all protocols had their say.
  transaction.add({ commit: () => settle(nodes, true), abort: () => settle(nodes, false) });
  for (const node of nodes) {
    const wanted = cumulative(node);
    checkConflicts(node);
    checkWritable(node, wanted, transaction.reopened.has(node));
    if ((wanted.need & Permission.write) !== 0) checkOverlays(node);
    const change = node.isOpen ? node.impl.preparePermissions?.(wanted) : undefined;
    if (change !== undefined) transaction.add(change);
    for (const link of node.children) {
      const next =
        (node.isOpen ? node.impl.childPermissions?.(link.name, wanted) : undefined) ??
        childPermissions(link.role, { writable: node.writable && !node.inactive, noIO: node.settings.noIO }, wanted);
      const shared = node.inactive ? next.share | Permission.write | Permission.resize : next.share;
      link.pending = { need: next.need, share: link.node.settings.forceShare ? ALL_PERMISSIONS : shared };
    }
  }
}

/** What all parents of a node together need of it, and what every one of them shares (BL-PERM-1). */
function cumulative(node: BlockNode): Permissions {
  let need = 0;
  let share = ALL_PERMISSIONS;
  for (const link of node.parents) {
    const next = link.pending ?? link.held;
    need |= next.need;
    share &= next.share;
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

/** `roots` and all below them, each after all of these that use it. */
export function parentsFirst(roots: readonly BlockNode[]): BlockNode[] {
  const seen = new Set<BlockNode>();
  const order: BlockNode[] = [];
  const visit = (node: BlockNode) => {
    if (seen.has(node)) return;
    seen.add(node);
    for (const link of node.children) visit(link.node);
    order.push(node);
  };
  for (const root of roots) visit(root);
  return order.reverse();
}

/** For any two links, each must share what the other needs (BL-PERM-2). */
function checkConflicts(node: BlockNode): void {
  for (const user of node.parents) {
    const needed = user.pending ?? user.held;
    for (const other of node.parents) {
      if (other === user) continue;
      const shared = other.pending ?? other.held;
      const refused = needed.need & ~shared.share;
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
function checkWritable(node: BlockNode, wanted: Permissions, reopened: boolean): void {
  if ((wanted.need & (Permission.write | Permission.writeUnchanged)) === 0) return;
  if (!node.writable) {
    const text = reopened
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
