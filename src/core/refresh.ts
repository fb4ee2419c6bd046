/** What follows from a change of links, in the nodes above it: limits, names, lengths (BL-REFRESH). */
import { BlockError } from './errors.ts';
import { refreshFilename } from './filename.ts';
import type { BlockNode } from './node.ts';
import * as request from './request.ts';
import { withAncestors } from './walks.ts';

/** Limits and names follow those of children, so children come first. A node that has no driver yet gets both later. */
export function refreshAbove(nodes: readonly BlockNode[]): void {
  const affected = withAncestors(nodes);
  const done = new Set<BlockNode>();
  const visit = (node: BlockNode) => {
    if (done.has(node) || !affected.has(node)) return;
    done.add(node);
    for (const link of node.children) visit(link.node);
    // What is closed keeps its names (BL-CLOSE-2).
    if (!node.isOpen || node.closing) return;
    refreshLimits(node);
    refreshFilename(node);
    request.noteLength(node);
  };
  for (const node of affected) visit(node);
}

/** Limits that make no sense leave those that were there (BL-CHAIN-1): the change is made and cannot fail any more. */
function refreshLimits(node: BlockNode): void {
  try {
    request.refreshLimits(node);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
  }
}
