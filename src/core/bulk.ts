/** Finding out where work may go past the request path: to plain ranges of host files, with nobody between who minds. */
import type { FilePlace } from './host-bulk.ts';
import type { NewStorage } from './new-storage.ts';
import type { BlockNode } from './node.ts';

/** Where a range is, read as it is stored; undefined where a layer does more than pass on what the file has. */
export function filePlace(node: BlockNode, offset: number, length: number): FilePlace | undefined {
  return placeBelow(node, offset, length, () => true);
}

/**
 * The same for what is looked at later than now: the range is at this place as long as the file is, and nobody changes it at
 * the moment. Undefined also where some layer ends within the range.
 */
export function lastingPlace(node: BlockNode, offset: number, length: number): FilePlace | undefined {
  if (givesOutStorage(node)) return undefined;
  return placeBelow(node, offset, length, ({ impl, tracker }, at) => {
    return at + length <= impl.length() && (tracker.idle || !tracker.overlaps(at, length, false));
  });
}

function placeBelow(
  node: BlockNode,
  offset: number,
  length: number,
  accepts: (holder: BlockNode, at: number) => boolean,
): FilePlace | undefined {
  let holder = node;
  let at = offset;
  for (;;) {
    if (holder.drainDepth > 0 || holder.context !== undefined || holder.copyOnRead > 0) return undefined;
    if (!accepts(holder, at)) return undefined;
    const { impl } = holder;
    if (impl.hostFile !== undefined) return { file: impl.hostFile(), offset: at };
    const place = impl.place?.(at, length);
    const below = place?.child === undefined ? undefined : holder.child(place.child)?.node;
    if (place === undefined || below === undefined) return undefined;
    holder = below;
    at = place.offset;
  }
}

/** The same for writing in place: a layer that gives out storage wants to know of it. */
export function writePlace(node: BlockNode, length: number): FilePlace | undefined {
  return givesOutStorage(node) ? undefined : filePlace(node, 0, length);
}

function givesOutStorage({ impl, children }: BlockNode): boolean {
  return impl.newStorage !== undefined || children.some((link) => givesOutStorage(link.node));
}

/** Whether writes to a node, and to those below it, may go past it: nobody is told of them, nothing looks at them. */
export function takesPlainWrites(node: BlockNode): boolean {
  const { settings } = node;
  if (!settings.cache.writeBack || settings.detectZeroes !== 'off' || node.probesAsOther !== undefined) return false;
  if (node.trackers.length > 0 || node.writeThreshold > 0) return false;
  return !node.inactive && node.children.every((link) => takesPlainWrites(link.node));
}

/** New storage of a disk by its driver, with its place in a host file. */
export interface NewFileStorage extends NewStorage {
  readonly place: FilePlace;
}

/** Undefined where the driver has none to give out. */
export async function newFileStorage(node: BlockNode): Promise<NewFileStorage | undefined> {
  const storage = await node.impl.newStorage?.();
  const below = storage?.at.child === undefined ? undefined : node.child(storage.at.child)?.node;
  const place = storage && below && filePlace(below, storage.at.offset, storage.unit);
  return place && { ...storage, place };
}

/** Runs work that changes a node past its requests: those that would change it or read it wait, and so does a drain. */
export async function pastNode<T>(node: BlockNode, work: () => Promise<T>): Promise<T> {
  const request = node.tracker.begin(0, Number.MAX_SAFE_INTEGER, true);
  node.tracker.serialise(request, request.offset, request.end);
  try {
    await node.tracker.wait(request);
    return await work();
  } finally {
    wasWritten(node);
    node.tracker.end(request);
  }
}

/** The next flush has something to do. */
function wasWritten(node: BlockNode): void {
  node.writeGeneration++;
  for (const link of node.children) wasWritten(link.node);
}
