/** What a node tells of itself, through the layers that do not know it themselves (BL-INFO-1 to 3, BL-SIZE-5, -6, BL-MEDIA-1). */
import type { BlockSizes, DiskGeometry, DriverInfo } from './driver.ts';
import { BlockError, codeOf, notSupported, withErrno } from './errors.ts';
import type { BlockNode } from './node.ts';

const CLUSTER_MAX = 2 ** 30;

/** BL-INFO-1. Throws BlockError: ENOTSUP where the driver tells nothing, ENOMEDIUM for a node that is not open. */
export function nodeInfo(node: BlockNode): DriverInfo {
  if (!node.isOpen) throw new BlockError('ENOMEDIUM', `Node '${node.name}' is ejected`, { node: node.name });
  const info = driverInfo(node);
  if (info === undefined) throw notSupported(node, 'information');
  const { clusterSize, subclusterSize = clusterSize } = info;
  return subclusterSize === undefined ? info : { ...info, subclusterSize };
}

/**
 * The same, or undefined where the driver tells nothing. What a filter does not tell is what its child does, save for
 * what only the child's format has. Throws BlockError EINVAL for clusters that are too large.
 */
export function driverInfo(node: BlockNode): DriverInfo | undefined {
  const own = node.impl.info?.();
  if (own === undefined) {
    const below = node.filtered && driverInfo(node.filtered.node);
    if (below === undefined) return undefined;
    const { specific: _childs, ...rest } = below;
    return rest;
  }
  const { clusterSize = 0 } = own;
  if (clusterSize > CLUSTER_MAX) {
    const text = `Clusters of ${clusterSize} bytes are too large, at most ${CLUSTER_MAX} are possible`;
    throw new BlockError('EINVAL', text, { node: node.name });
  }
  return own;
}

/** The disk's size, bytes. A failure is told with `text`, as one of `node`. */
export function lengthOf(asked: BlockNode, text: string, node = asked): number {
  try {
    return asked.impl.length();
  } catch (cause) {
    throw withErrno(codeOf(cause), text, { cause, node: node.name });
  }
}

/** Whether a fresh image of this kind reads as zeroes where nothing was written; never one with a backing file (BL-INFO-3). */
export function zeroInit(node: BlockNode): boolean {
  if (!node.isOpen || node.backing !== undefined) return false;
  return node.impl.zeroInit?.() ?? (node.filtered !== undefined && zeroInit(node.filtered.node));
}

/**
 * Bytes of host storage in use by a node and those below it, backing images not counted; undefined when some of it is not
 * known (BL-SIZE-5). What is named like a protocol (`blkdebug:`) only knows what it answers itself.
 */
export function allocatedSize(node: BlockNode): number | undefined {
  const { driver, impl, filtered } = node;
  const own = impl.allocatedSize?.();
  if (own !== undefined || driver.kind === 'protocol') return own;
  if (driver.kind === 'filter') {
    return driver.parseFilename === undefined && filtered !== undefined ? allocatedSize(filtered.node) : undefined;
  }
  let sum = 0;
  for (const link of node.children) {
    if (link.role === 'cow') continue;
    const part = allocatedSize(link.node);
    if (part === undefined) return undefined;
    sum += part;
  }
  return sum;
}

/** Whether there is a medium: by the driver's answer, else if all children have one (BL-MEDIA-1). */
export function isInserted(node: BlockNode): boolean {
  if (!node.isOpen) return false;
  return node.impl.inserted?.() ?? node.children.every((link) => isInserted(link.node));
}

/** Block sizes of the device that the node is; ENOTSUP for what is none (BL-SIZE-6). */
export function blockSizes(node: BlockNode): BlockSizes {
  return throughFilters(node, (each) => each.impl.blockSizes?.(), 'telling block sizes');
}

/** Its geometry, likewise. */
export function diskGeometry(node: BlockNode): DiskGeometry {
  return throughFilters(node, (each) => each.impl.geometry?.(), 'telling its geometry');
}

function throughFilters<T>(node: BlockNode, ask: (node: BlockNode) => T | undefined, what: string): T {
  let asked: BlockNode | undefined = node;
  while (asked !== undefined) {
    const answer = ask(asked);
    if (answer !== undefined) return answer;
    asked = asked.filtered?.node;
  }
  throw notSupported(node, what);
}
