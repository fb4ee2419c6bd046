/** The steps of closing a node that are its own (BL-CLOSE-2). */
import type { BlockNode, Link } from './node.ts';
import * as request from './request.ts';

/** What a node does last: it lets requests end, and writes back what it holds. The failure that tells most comes first. */
export async function finish(node: BlockNode, failures: unknown[]): Promise<void> {
  // What a filter makes wait, by limits say, is to finish at once, and what is held back below must not hold this up.
  for (const each of onlyBelow(node)) if (each.isOpen) each.impl.letGo?.();
  if (node.isOpen) node.impl.quiesce?.();
  await node.tracker.whenIdle();
  if (!node.isOpen) return;
  const first = failures.length;
  const flushed = node.writable && !node.inactive ? request.flush(node) : undefined;
  await flushed?.catch((error) => failures.push(error));
  try {
    await node.impl.close?.();
  } catch (error) {
    // The driver knows what it could not write back: before its flush, behind what the nodes above it told.
    failures.splice(first, 0, error);
  }
}

/** The backing link goes first, then the file (BL-CLOSE-2). */
export function closingOrder(node: BlockNode): Link[] {
  const rank = (link: Link) => (link.role === 'cow' ? 0 : link.name === 'file' ? 1 : 2);
  return [...node.children].sort((a, b) => rank(a) - rank(b));
}

/** The node and those below it that nobody else uses. */
function onlyBelow(node: BlockNode): Set<BlockNode> {
  const found = new Set([node]);
  // A set is walked in the order of adding, with what is added meanwhile.
  for (const each of found) {
    for (const { node: child } of each.children) {
      const others = child.holds > 0 || child.parents.some(({ parent }) => !found.has(parent as BlockNode));
      if (!others) found.add(child);
    }
  }
  return found;
}
