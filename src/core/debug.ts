/** Debug hooks: events that drivers raise, and breakpoints on them (BL-DEBUG). */
import type { DebugBreakpoints } from './driver.ts';
import { BlockError } from './errors.ts';
import type { BlockNode } from './node.ts';
import { withAncestors } from './walks.ts';

/** Raises an event at one node, which may ignore it, or hold the request up by a promise (BL-DEBUG-1). */
export function debugEvent(node: BlockNode, event: string): Promise<void> | undefined {
  const held = node.isOpen ? node.impl.debugEvent?.(event) : undefined;
  return held && whileHeldUp(node, held);
}

/** Whoever lets the request go on may first want another one to overtake it: later changes do not wait for it meanwhile. */
async function whileHeldUp(node: BlockNode, held: Promise<void>): Promise<void> {
  const trackers = [...withAncestors([node])].map(({ tracker }) => tracker);
  for (const tracker of trackers) tracker.loosen();
  try {
    await held;
  } finally {
    for (const tracker of trackers) tracker.tighten();
  }
}

/** Requests that raise `event` stop under `tag` from now on. ENOTSUP where no node below can (BL-DEBUG-2). */
export function setBreakpoint(node: BlockNode, event: string, tag: string): void {
  required(node).breakpoint(event, tag);
}

/** ENOTSUP as above; ENOENT for a tag that no breakpoint has. */
export function removeBreakpoint(node: BlockNode, tag: string): void {
  required(node).removeBreakpoint(tag);
}

/** Lets the requests go on that stopped under `tag`. ENOTSUP as above. */
export function resumeBreakpoint(node: BlockNode, tag: string): void {
  required(node).resume(tag);
}

/** Whether a request has stopped under `tag`. */
export function isSuspended(node: BlockNode, tag: string): boolean {
  return breakpointsOf(node)?.isSuspended(tag) ?? false;
}

/** Of the first node down the primary children that has any. */
function breakpointsOf(node: BlockNode): DebugBreakpoints | undefined {
  for (let found: BlockNode | undefined = node; found?.isOpen; found = found.primary?.node) {
    if (found.impl.breakpoints !== undefined) return found.impl.breakpoints;
  }
  return undefined;
}

function required(node: BlockNode): DebugBreakpoints {
  const found = breakpointsOf(node);
  if (found === undefined) throw new BlockError('ENOTSUP', 'Operation not supported', { node: node.name });
  return found;
}
