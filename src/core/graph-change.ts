/** The elementary changes of links, each a part of a transaction: making one, moving it to another node, dropping it. */
import { BLOCKED_ON_BACKING, block, unblock } from './blockers.ts';
import { joinContexts } from './context.ts';
import { BlockError } from './errors.ts';
import { invariant } from './invariant.ts';
import { BlockNode, type GraphUser, Link } from './node.ts';
import type { ChildRole } from './permissions.ts';
import type { Transaction } from './transaction.ts';
import { withDescendants } from './walks.ts';

/** Links a parent to a node; the permissions are taken when they are next updated. Refuses loops (BL-CHAIN-4). */
export function addLink(
  transaction: Transaction,
  name: string,
  parent: BlockNode | GraphUser,
  node: BlockNode,
  role: ChildRole,
): Link {
  refuseClosing(node);
  refuseLoop(name, parent, node);
  if (parent instanceof BlockNode) checkRoles(parent, name, role);
  const link = new Link(name, parent, node, role);
  attachTo(transaction, link, node);
  if (parent instanceof BlockNode) {
    transaction.remember(parent);
    parent.children = [link, ...parent.children];
  }
  joinContexts(transaction, link);
  return link;
}

/** Makes a link lead to another node (BL-CHAIN-13). Refuses loops and frozen links. */
export function moveLink(transaction: Transaction, link: Link, node: BlockNode): void {
  if (link.node === node) return;
  refuseFrozen(link);
  refuseClosing(node);
  refuseLoop(link.name, link.parent, node);
  transaction.rememberLink(link);
  detachFrom(transaction, link);
  link.node = node;
  attachTo(transaction, link, node);
  joinContexts(transaction, link);
}

/** Takes a link away on both sides (BL-CLOSE-6); a node that nobody uses then is closed by the caller. */
export function dropLink(transaction: Transaction, link: Link): void {
  refuseFrozen(link);
  const { parent, node } = link;
  detachFrom(transaction, link);
  if (!(parent instanceof BlockNode)) return;
  transaction.remember(parent);
  parent.children = parent.children.filter((other) => other !== link);
  // The mark goes with the last link between the two.
  if (node.origin.inheritsFrom === parent && !parent.children.some((other) => other.node === node)) {
    node.origin = { ...node.origin, inheritsFrom: undefined };
  }
}

function attachTo(transaction: Transaction, link: Link, node: BlockNode): void {
  transaction.remember(node);
  node.parents = [link, ...node.parents];
  if (link.role !== 'cow' || !(link.parent instanceof BlockNode)) return;
  const reason = { text: `node is used as backing hd of '${link.parent.deviceOrNodeName}'` };
  transaction.add({
    commit() {
      // The same transaction may have moved it on.
      if (!node.parents.includes(link)) return;
      link.blockReason = reason;
      block(node, reason, BLOCKED_ON_BACKING);
    },
    abort() {},
  });
}

function detachFrom(transaction: Transaction, link: Link): void {
  const { node, blockReason } = link;
  transaction.remember(node);
  node.parents = node.parents.filter((other) => other !== link);
  if (blockReason === undefined) return;
  transaction.add({ commit: () => unblock(node, blockReason, BLOCKED_ON_BACKING), abort() {} });
}

/** A user may have found the node before it began to close. */
function refuseClosing(node: BlockNode): void {
  if (node.closing) throw new BlockError('ENOMEDIUM', `Node '${node.name}' is closed`, { node: node.name });
}

/** One child at most for what is below in the chain, one that is filtered; a filter has no backing image (BL-TERM-5). */
function checkRoles(parent: BlockNode, name: string, role: ChildRole): void {
  invariant(parent.child(name) === undefined, `'${parent.name}' has one child '${name}'`);
  if (role !== 'cow' && role !== 'filtered') return;
  invariant(
    role !== 'cow' || parent.driver.kind === 'format',
    `'${parent.name}' is a format and may have an image below`,
  );
  invariant(!parent.children.some((link) => link.role === role), `'${parent.name}' has one ${role} child`);
}

/** BL-CHAIN-4, BL-CHAIN-17. */
function refuseFrozen(link: Link): void {
  if (!link.frozen) return;
  const text = `Cannot change frozen '${link.name}' link from '${describeParent(link)}' to '${link.node.name}'`;
  throw new BlockError('EPERM', text, { node: link.node.name });
}

function describeParent({ parent }: Link): string {
  return parent instanceof BlockNode ? parent.name : parent.description;
}

export function refuseLoop(name: string, parent: BlockNode | GraphUser, node: BlockNode): void {
  if (!(parent instanceof BlockNode) || !reaches(node, parent)) return;
  const text = `Making '${node.name}' a ${name} child of '${parent.name}' would create a cycle`;
  throw new BlockError('EINVAL', text, { node: parent.name });
}

/** Whether `to` is `from` or below it. */
export function reaches(from: BlockNode, to: BlockNode): boolean {
  return withDescendants([from]).has(to);
}
