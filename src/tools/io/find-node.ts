/** Nodes of the image that is open, for commands that are about one of them. */
import type { BlockNode } from '../../core/node.ts';

/** The first node of such a driver, from the top down. */
export function findNode(top: BlockNode, isIt: (driver: string) => boolean): BlockNode | undefined {
  const pending: BlockNode[] = [top];
  for (let node = pending.shift(); node !== undefined; node = pending.shift()) {
    if (isIt(node.driver.name)) return node;
    pending.push(...node.children.map((link) => link.node));
  }
  return undefined;
}
