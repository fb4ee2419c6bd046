/** Copies inside the host, without the data passing through the program. */
import { notSupported } from './errors.ts';
import type { BlockNode } from './node.ts';
import { noteChange } from './request.ts';

const WHAT = 'copying inside the host';

/**
 * Copies where both ranges are plainly in protocols of one driver; resolves with the bytes copied, which may be fewer. Throws
 * BlockError ENOTSUP elsewhere.
 */
export async function copyRange(
  source: BlockNode,
  sourceOffset: number,
  target: BlockNode,
  offset: number,
  length: number,
): Promise<number> {
  const from = await plainPlace({ node: source, offset: sourceOffset }, length);
  const to = await plainPlace({ node: target, offset }, length);
  const [read, written] = [from.place, to.place];
  const { impl, tracker } = written.node;
  if (impl.copyFrom === undefined || read.node.driver !== written.node.driver) throw notSupported(target, WHAT);
  // What is written to a raw image of guessed format must be looked at (BL-OPEN-16).
  if (to.path.some((place) => place.node.probesAsOther !== undefined)) throw notSupported(target, WHAT);
  // Whoever records changes in an image must know before they are made.
  if (to.path.some(({ node }) => node.impl.tracker !== undefined && node.trackers.length > 0)) {
    throw notSupported(target, WHAT);
  }
  const bytes = Math.min(from.length, to.length);
  const request = tracker.begin(written.offset, bytes, true);
  try {
    if (tracker.mustWait(request)) await tracker.wait(request);
    return await impl.copyFrom(read.node.impl, read.offset, written.offset, bytes);
  } finally {
    for (const place of to.path) noteChange(place.node, place.offset, bytes);
    tracker.end(request);
  }
}

interface Place {
  readonly node: BlockNode;
  readonly offset: number;
}

/** Follows layers that only pass requests on, or store plainly, down to a protocol. */
async function plainPlace(
  place: Place,
  length: number,
): Promise<{ readonly place: Place; readonly path: readonly Place[]; readonly length: number }> {
  const { node, offset } = place;
  if (node.driver.kind === 'protocol') return { place, path: [place], length };
  // A filter may do more than pass requests on, so that none is gone around.
  if (node.driver.kind === 'filter') throw notSupported(node, WHAT);
  const extent = node.impl.tryStatusNow?.(offset, length) ?? (await node.impl.status?.(offset, length));
  const plain = extent?.kind === 'delegate' || extent?.kind === 'data' ? extent : undefined;
  const child = plain?.at?.child === undefined ? undefined : node.child(plain.at.child);
  if (plain?.at === undefined || child === undefined) throw notSupported(node, WHAT);
  const below = await plainPlace({ node: child.node, offset: plain.at.offset }, Math.min(length, plain.length));
  return { ...below, path: [place, ...below.path] };
}
