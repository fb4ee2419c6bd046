/** Operations that users of a node refuse, each with a reason (BL-BLOCK). */
import { BlockError } from './errors.ts';
import type { BlockNode } from './node.ts';

/** What can be forbidden on a node while something else uses it, by QEMU's names. */
export const OPERATIONS = [
  'backup-source',
  'backup-target',
  'change',
  'commit-source',
  'commit-target',
  'dataplane',
  'drive-del',
  'eject',
  'external-snapshot',
  'internal-snapshot',
  'internal-snapshot-delete',
  'mirror-source',
  'mirror-target',
  'resize',
  'stream',
  'replace',
] as const;
/** One of {@link OPERATIONS}. */
export type Operation = (typeof OPERATIONS)[number];

/** Compared by identity, so that two users with the same text do not unblock each other. */
export interface BlockReason {
  readonly text: string;
}

/** Newest first. */
const reasons = new WeakMap<BlockNode, Map<Operation, BlockReason[]>>();

/** Adds a reason; twice adds two (BL-BLOCK-2). Without `operations`: for all. */
export function block(node: BlockNode, reason: BlockReason, operations: readonly Operation[] = OPERATIONS): void {
  let map = reasons.get(node);
  if (map === undefined) {
    map = new Map();
    reasons.set(node, map);
  }
  for (const operation of operations) map.set(operation, [reason, ...(map.get(operation) ?? [])]);
}

/** Removes all entries of this very reason. */
export function unblock(node: BlockNode, reason: BlockReason, operations: readonly Operation[] = OPERATIONS): void {
  const map = reasons.get(node);
  for (const operation of operations) {
    const left = map?.get(operation)?.filter((other) => other !== reason) ?? [];
    if (left.length === 0) map?.delete(operation);
    else map?.set(operation, left);
  }
}

/** No reason anywhere. */
export function isUnblocked(node: BlockNode): boolean {
  return (reasons.get(node)?.size ?? 0) === 0;
}

/** Whether anybody forbids the operation on the node now. */
export function isBlocked(node: BlockNode, operation: Operation): boolean {
  return reasons.get(node)?.has(operation) ?? false;
}

/** Throws BlockError EBUSY with the newest reason (BL-BLOCK-3); `name` is that of its device, if it has one. */
export function requireUnblocked(node: BlockNode, operation: Operation, name = node.name): void {
  const newest = reasons.get(node)?.get(operation)?.[0];
  if (newest === undefined) return;
  throw new BlockError('EBUSY', `Node '${name}' is busy: ${newest.text}`, { node: node.name });
}

/** What stays possible for a node that is another's backing image (BL-CHAIN-2). */
const ALLOWED_ON_BACKING: readonly Operation[] = ['commit-target', 'stream', 'backup-source', 'backup-target'];
export const BLOCKED_ON_BACKING: readonly Operation[] = OPERATIONS.filter((it) => !ALLOWED_ON_BACKING.includes(it));
