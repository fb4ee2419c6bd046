/** Block status through layers: each driver tells of its own layer, this walks on to where the bytes are. */
import { skipFilters } from './chain.ts';
import type { Extent, ExtentPlace } from './driver.ts';
import { invariant } from './invariant.ts';
import type { BlockNode } from './node.ts';
import { withDescendants } from './walks.ts';

/** A run of like status, as the whole graph below a node sees it. */
export interface BlockStatus {
  /** Bytes from the place that was asked about for which all of this holds. */
  readonly length: number;
  /** Stored somewhere in the chain. */
  readonly allocated: boolean;
  /** Has stored bytes to read. */
  readonly data: boolean;
  /** Reads as zeroes. Holds together with `data` where storage is allocated but a hole below makes it zero. */
  readonly zero: boolean;
  /** How many backing links below the top the deciding layer is. */
  readonly depth: number;
  /** Where the bytes are plainly stored. */
  readonly at?: { readonly filename: string; readonly offset: number };
}

/** Status of a run from `offset`, at most `length` long, both inside the node. */
export async function status(node: BlockNode, offset: number, length: number): Promise<BlockStatus> {
  const extent = tryExtent(node, offset, length) ?? (await node.impl.status?.(offset, length));
  const own = checked(extent ?? allData(length), length);
  const below = belowOf(node, own, offset);
  if (below === undefined) return ofExtent(node, own);
  const inside = below.node.impl.length() - below.offset;
  if (inside <= 0) return combine(node, own, pastEnd(below, own));
  return combine(node, own, await status(below.node, below.offset, Math.min(own.length, inside)));
}

/** The same at once, or undefined where some layer must wait. */
export function tryStatus(node: BlockNode, offset: number, length: number): BlockStatus | undefined {
  const extent = tryExtent(node, offset, length);
  if (extent === undefined) return undefined;
  const own = checked(extent, length);
  const below = belowOf(node, own, offset);
  if (below === undefined) return ofExtent(node, own);
  const inside = below.node.impl.length() - below.offset;
  if (inside <= 0) return combine(node, own, pastEnd(below, own));
  const child = tryStatus(below.node, below.offset, Math.min(own.length, inside));
  return child && combine(node, own, child);
}

/** Status of a run in some layers of a chain only. */
export interface LayerStatus {
  readonly length: number;
  /** Some of the layers decides what is read. */
  readonly allocated: boolean;
  /** It reads as zeroes, by the layers' own decision. */
  readonly zero: boolean;
}

/**
 * Status of a run in the layers from `node` down to the last above `base`. What is past the end of a layer is decided by
 * it, zero, even if `base` is longer. Without `base`: the whole chain.
 */
export async function statusAbove(
  node: BlockNode,
  base: BlockNode | undefined,
  offset: number,
  length: number,
): Promise<LayerStatus> {
  if (skipFilters(node) === base) return { length, allocated: false, zero: false };
  const { filtered, backing } = node;
  const extent = tryExtent(node, offset, length) ?? (await node.impl.status?.(offset, length));
  const own = checked(extent ?? allData(length), length);
  if (own.kind === 'delegate' && filtered !== undefined) return statusAbove(filtered.node, base, offset, own.length);
  if (own.kind !== 'unallocated') {
    const { length: run, zero } = own.kind === 'zero' ? { ...own, zero: true } : await status(node, offset, own.length);
    return { length: run, allocated: true, zero };
  }
  if (backing === undefined) return { length: own.length, allocated: false, zero: true };
  if (skipFilters(backing.node) === base) return { length: own.length, allocated: false, zero: false };
  const inside = backing.length() - offset;
  if (inside <= 0) return { length: own.length, allocated: true, zero: true };
  return statusAbove(backing.node, base, offset, Math.min(own.length, inside));
}

function tryExtent(node: BlockNode, offset: number, length: number): Extent | undefined {
  const { impl } = node;
  if (impl.tryStatusNow !== undefined) return impl.tryStatusNow(offset, length);
  return impl.status === undefined ? allData(length) : undefined;
}

function allData(length: number): Extent {
  return { kind: 'data', length };
}

function checked(extent: Extent, asked: number): Extent {
  invariant(extent.length > 0 && extent.length <= asked, 'a status run is non-empty and inside the range asked for');
  return extent;
}

interface Below {
  readonly node: BlockNode;
  readonly offset: number;
}

/** Where to ask on, if the extent leaves that open. */
function belowOf(node: BlockNode, extent: Extent, offset: number): Below | undefined {
  if (extent.kind === 'unallocated') {
    const { backing } = node;
    return backing && { node: backing.node, offset };
  }
  const asks = extent.kind === 'delegate' || (extent.kind === 'data' && extent.recurse === true);
  if (!asks || extent.at?.child === undefined) return undefined;
  const link = node.child(extent.at.child);
  invariant(link, `the extent names an existing child of '${node.name}'`);
  return { node: link.node, offset: extent.at.offset };
}

/** A tail that is not there reads as zeroes (BL-OPEN-18, step 5); a file's has its place all the same. */
function pastEnd({ node, offset }: Below, { kind, length }: Extent): BlockStatus {
  // The layer above decides what is behind the end of its backing image.
  if (kind === 'unallocated') return { length, allocated: false, data: false, zero: true, depth: -1 };
  return { length, allocated: true, data: false, zero: true, depth: 0, at: { filename: node.filename, offset } };
}

function combine(node: BlockNode, own: Extent, child: BlockStatus): BlockStatus {
  if (own.kind === 'delegate') return child;
  if (own.kind === 'unallocated') return { ...child, depth: child.depth + 1 };
  const plain = ofExtent(node, own);
  return { ...plain, length: child.length, zero: child.zero };
}

function ofExtent(node: BlockNode, extent: Extent): BlockStatus {
  const { length } = extent;
  const depth = 0;
  switch (extent.kind) {
    case 'unallocated': {
      const plain = { length, allocated: false, data: false, zero: true, depth };
      const at = placeOf(node, extent.at);
      return at === undefined ? plain : { ...plain, at };
    }
    case 'unknown':
      return { length, allocated: false, data: false, zero: false, depth };
    case 'encoded':
      return { length, allocated: true, data: true, zero: false, depth };
    case 'zero':
    case 'data': {
      const zero = extent.kind === 'zero';
      const data = !zero || extent.stored === true;
      const at = placeOf(node, extent.at);
      if (at === undefined) return { length, allocated: true, data, zero, depth };
      // Spelled out, not spread, which is ten times slower: walks over millions of blocks end here.
      return { length, allocated: true, data, zero, depth, at };
    }
    case 'delegate':
      return { length, allocated: true, data: true, zero: false, depth };
  }
}

function placeOf(node: BlockNode, at: ExtentPlace | undefined): BlockStatus['at'] {
  if (at === undefined) return undefined;
  const holder = at.child === undefined ? node : node.child(at.child)?.node;
  return holder && { filename: holder.filename, offset: at.offset };
}

/** Lets drivers keep what they are told of status while a job runs; call what is returned when it ends. */
export function holdStatus(node: BlockNode): () => void {
  const releases = [...withDescendants([node])].map(({ isOpen, impl }) => (isOpen ? impl.holdStatus?.() : undefined));
  return () => {
    for (const release of releases) release?.();
  };
}
