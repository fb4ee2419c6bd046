/** Taking storage from clusters that need none: those that the disk shows as zeroes. */
import { isZero } from '../../bytes/zero.ts';
import { zeroEntry } from './clear.ts';
import type { CompactWatch } from './compact.ts';
import { type EntryWords, isInPlace, readEntry, releaseEntry, writeEntry } from './entries.ts';
import type { Qcow2Image } from './image.ts';
import { isL2Writable } from './l2-tables.ts';
import { sliceOffset, spotOf } from './map.ts';
import { readInside } from './read.ts';
import { RELEASES_MAX } from './releases.ts';
import { flush } from './write-back.ts';

/** Bytes read at a time. */
const READ_BYTES = 2 << 20;
const EMPTY: EntryWords = { high: 0, low: 0, zero: 0, allocated: 0 };

/** What shares its storage or its table with a snapshot is left alone, and so is VM state. */
export async function dropZeroes(image: Qcow2Image, watch: CompactWatch): Promise<void> {
  const { layout } = image;
  // Version 2 has no zeroes of its own that would hide what is below.
  if (layout.hasDataFile || (layout.version < 3 && image.hasBacking)) return;
  const buffer = new Uint8Array(Math.max(READ_BYTES, layout.clusterSize));
  for (let guest = 0; guest < image.length; ) {
    watch.signal?.throwIfAborted();
    if (!isL2Writable(image, guest)) {
      guest = (Math.floor(guest / layout.l2Reach) + 1) * layout.l2Reach;
      continue;
    }
    guest = await dropRun(image, guest, buffer, watch);
    if (image.releases.count > RELEASES_MAX) await flush(image);
  }
}

/** The clusters from `guest` on, as far as they are stored side by side in one slice. Returns where it went on to. */
async function dropRun(image: Qcow2Image, guest: number, buffer: Uint8Array, watch: CompactWatch): Promise<number> {
  const { clusterSize, entryBytes } = image.layout;
  const { l2Offset, index } = spotOf(image, guest);
  const at = sliceOffset(image, l2Offset, index);
  const sliceReach = (image.l2.entryBytes / entryBytes) * clusterSize;
  const stop = Math.min(image.length, (Math.floor(guest / sliceReach) + 1) * sliceReach, guest + buffer.length);
  const slice = await image.l2.get(at);
  let end = guest;
  while (end < stop && isInPlace(image, readEntry(image, slice, end))) end += clusterSize;
  if (end === guest) {
    while (end < stop && !isInPlace(image, readEntry(image, slice, end))) end += clusterSize;
    return end;
  }
  const bytes = buffer.subarray(0, Math.min(end, image.length) - guest);
  await readInside(image, guest, bytes);
  const entry = image.layout.version < 3 ? EMPTY : zeroEntry(image);
  const again = await image.l2.get(at);
  for (let cluster = guest; cluster < end; cluster += clusterSize) {
    if (!isZero(bytes.subarray(cluster - guest, cluster - guest + clusterSize))) continue;
    const old = readEntry(image, again, cluster);
    writeEntry(image, again, cluster, entry);
    releaseEntry(image, old, 'other');
  }
  watch.step((end - guest) / clusterSize);
  return end;
}
