/** Storage for one cluster without waiting: behind the end of the file, where all that is not written is zero. */
import { alignDown } from '../../bytes/align.ts';
import { isEmptyEntry, readEntry, writeEntry } from './entries.ts';
import type { Qcow2Image } from './image.ts';
import { isL2Writable } from './l2-tables.ts';
import { sliceOffset, spotOf } from './map.ts';
import { highWord, lowWord } from './tables.ts';

/** True: written and linked, not durable. False: nothing happened. Nobody gives clusters storage or moves any meanwhile. */
export function tryAllocateNow(image: Qcow2Image, guest: number, source: Uint8Array): boolean {
  const { layout, file, refcounts, settings } = image;
  const { clusterSize } = layout;
  const start = alignDown(guest, clusterSize);
  const end = guest + source.length;
  if (end > start + clusterSize || layout.extended || layout.hasDataFile || image.cipher !== undefined) return false;
  if (image.allocations.size > 0 || (settings.lazyRefcounts && !image.dirtyBitSet)) return false;
  if (!isL2Writable(image, guest) || !file.growable) return false;
  const { l2Offset, index } = spotOf(image, guest);
  const slice = image.l2.peek(sliceOffset(image, l2Offset, index));
  if (slice === undefined || !isEmptyEntry(readEntry(image, slice, start))) return false;
  // What an image below shows around the data must be copied.
  const isWhole = guest === start && (end === start + clusterSize || end >= image.length);
  if (!isWhole && (image.backing?.length() ?? 0) > start) return false;
  const cluster = refcounts.freeNow();
  const host = cluster * clusterSize;
  if (cluster <= 0 || host < file.length() || image.overlapIn(host, clusterSize, 0) !== 0) return false;
  if (!file.tryWriteNow(host + (guest - start), source)) return false;
  refcounts.takeNow(cluster);
  image.preallocated = undefined;
  writeEntry(image, slice, start, { high: highWord(host, true), low: lowWord(host), zero: 0, allocated: 0 });
  return true;
}
