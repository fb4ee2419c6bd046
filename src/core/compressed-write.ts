/** Writes that a format stores compressed: who takes them, and in which shape. */

import { BlockError, notSupported } from './errors.ts';
import { invariant } from './invariant.ts';
import type { BlockNode } from './node.ts';
import type { TrackedRequest } from './tracker.ts';

/** Who, at or below a node, keeps compressed writes from a format that takes them; undefined: nobody does. */
export function refusesCompressed(node: BlockNode): BlockNode | undefined {
  let asked = node;
  while (asked.impl.writeCompressed !== undefined) {
    const below = asked.filtered?.node;
    if (below === undefined) return asked.limits.compressUnit > 0 ? undefined : asked;
    asked = below;
  }
  return asked;
}

/** Whole units, or up to the disk's end: EINVAL for other ranges. ENOTSUP where nobody compresses. */
export async function writeCompressed(
  node: BlockNode,
  request: TrackedRequest,
  offset: number,
  source: Uint8Array,
): Promise<void> {
  const { impl, limits, tracker } = node;
  if (impl.writeCompressed === undefined || refusesCompressed(node) !== undefined) {
    throw notSupported(node, 'compressed writes');
  }
  const unit = limits.compressUnit;
  const end = offset + source.length;
  invariant(unit % limits.requestAlign === 0, 'a unit of compressed writes is aligned');
  if (offset % unit !== 0 || (end % unit !== 0 && end !== impl.length())) {
    const text = `Compressed writes must be whole clusters of ${unit} bytes, not bytes ${offset} to ${end}`;
    throw new BlockError('EINVAL', text, { node: node.name });
  }
  if (tracker.mustWait(request)) await tracker.wait(request);
  await impl.writeCompressed(offset, source);
}
