/** Which nodes links lead to, and in what order. */
import { BlockNode, type Link } from './node.ts';

/** The nodes and all that use them. */
export function withAncestors(roots: Iterable<BlockNode>): Set<BlockNode> {
  return reached(roots, parentsOf);
}

/** The nodes and all below them. */
export function withDescendants(roots: Iterable<BlockNode>): Set<BlockNode> {
  const found = new Set(roots);
  // A set is walked in the order of adding, with what is added meanwhile.
  for (const node of found) for (const link of node.children) found.add(link.node);
  return found;
}

/** The nodes with all above and below them, and so on. */
export function linkedWith(roots: Iterable<BlockNode>): Set<BlockNode> {
  return reached(roots, (node) => [...parentsOf(node), ...node.children.map((link) => link.node)]);
}

/** `roots` and all below them that links which are `followed` lead to, each after all of these that use it. */
export function parentsFirst(
  roots: readonly BlockNode[],
  followed: (parent: BlockNode, link: Link) => boolean = () => true,
): BlockNode[] {
  const seen = new Set<BlockNode>();
  const order: BlockNode[] = [];
  const visit = (node: BlockNode) => {
    if (seen.has(node)) return;
    seen.add(node);
    for (const link of node.children) if (followed(node, link)) visit(link.node);
    order.push(node);
  };
  for (const root of roots) visit(root);
  return order.reverse();
}

function parentsOf({ parents }: BlockNode): BlockNode[] {
  return parents.flatMap(({ parent }) => (parent instanceof BlockNode ? [parent] : []));
}

function reached(roots: Iterable<BlockNode>, next: (node: BlockNode) => readonly BlockNode[]): Set<BlockNode> {
  const found = new Set<BlockNode>();
  const pending = [...roots];
  for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
    if (found.has(node)) continue;
    found.add(node);
    pending.push(...next(node));
  }
  return found;
}
