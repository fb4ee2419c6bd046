/** Told of changes of a node's content and size; dirty bitmaps are such. */
export interface ChangeTracker {
  /** Bytes [offset, offset + length) were or may have been changed. Must not throw. */
  changed(offset: number, length: number): void;
  /** Before the size changes; throws BlockError to refuse (BL-BITMAP-11). */
  checkResize(length: number): void;
  /** The size has changed. Must not throw. */
  resized(length: number): void;
  /** What a listing of nodes tells of it, newest first (BL-BITMAP-12). */
  query?(): readonly object[];
}

/** Has a node's changes told to a tracker, or no more. */
export function setTracked(
  node: { trackers: readonly ChangeTracker[] },
  tracker: ChangeTracker,
  tracked: boolean,
): void {
  const others = node.trackers.filter((other) => other !== tracker);
  node.trackers = tracked ? [...others, tracker] : others;
}
