/** L2 tables that may be changed: made, or copied when a snapshot shares them (Q-WR-2, Q-ORD-6). */

import { withErrno } from '../../core/errors.ts';
import type { CacheEntry } from './cache.ts';
import { corruption } from './corruption.ts';
import { allocateClusters } from './free-space.ts';
import { GROWN_L1, growL1 } from './grow-l1.ts';
import type { Qcow2Image } from './image.ts';
import { L1_ENTRY_BYTES } from './l1-table.ts';
import { L1_BYTES_MAX } from './layout.ts';
import { beforeL2Change } from './lazy.ts';
import { sliceOffset, spotOf } from './map.ts';
import { writeMetadata } from './metadata-io.ts';
import { MetadataClass } from './overlap.ts';
import { invalidPlace } from './refcount-growth.ts';
import { type HostOffset, hexOffset } from './tables.ts';

/** Whether entries of the table for `guest` may be changed at once. */
export function isL2Writable(image: Qcow2Image, guest: number): boolean {
  const l1Index = Math.floor(guest / image.layout.l2Reach);
  return image.l1.isCopied(l1Index) && image.l1.l2Offset(l1Index) !== 0;
}

/** The slice with the entry for `guest`, to be changed before the caller waits for anything. Throws BlockError. */
export async function sliceToChange(image: Qcow2Image, guest: number): Promise<CacheEntry> {
  await beforeL2Change(image);
  for (;;) {
    const { l1Index, l2Offset, index } = spotOf(image, guest);
    if (!isL2Writable(image, guest)) {
      await makeL2Writable(image, l1Index);
      continue;
    }
    if (l2Offset % image.layout.clusterSize !== 0) {
      const text = `L2 table offset ${hexOffset(l2Offset)} unaligned (L1 index: ${hexOffset(l1Index)})`;
      throw await corruption(image, { fatal: true, text });
    }
    const offset = sliceOffset(image, l2Offset, index);
    const slice = image.l2.peek(offset);
    if (slice !== undefined) return slice;
    await image.l2.get(offset);
  }
}

/** Gives an L1 entry a table of its own, durably. */
export function makeL2Writable(image: Qcow2Image, l1Index: number): Promise<void> {
  return image.l1Lock.run(async () => {
    if (l1Index >= image.l1.entries) await growForVmState(image, l1Index);
    const { l1, refcounts, layout } = image;
    if (l1.isCopied(l1Index) && l1.l2Offset(l1Index) !== 0) return;
    const old = l1.l2Offset(l1Index);
    if (old % layout.clusterSize !== 0) {
      const text = `L2 table offset ${hexOffset(old)} unaligned (L1 index: ${hexOffset(l1Index)})`;
      throw await corruption(image, { fatal: true, text });
    }
    const place = await allocateClusters(refcounts, 1);
    if (place === 0) throw await corruption(image, { fatal: true, text: invalidPlace('L2 table') });
    try {
      await writeTable(image, old, place);
    } catch (error) {
      await refcounts.change(place, layout.clusterSize, -1).catch(() => {});
      throw error;
    }
    // When this fails the file may name the table already: it stays counted, a leak at worst.
    await writeL1Entry(image, l1Index, place);
    if (old === 0) return;
    image.metadata.remove(MetadataClass.activeL2, old, layout.clusterSize);
    image.releases.add(old, layout.clusterSize, 'other');
  });
}

/** Only machine state lies past the table; it grows by half, so that it need not grow often (Q-WR-2). EFBIG past 32 MiB. */
async function growForVmState(image: Qcow2Image, l1Index: number): Promise<void> {
  const most = L1_BYTES_MAX / L1_ENTRY_BYTES;
  if (l1Index >= most) throw withErrno('EFBIG', GROWN_L1, { node: image.node });
  await growL1(image, Math.min(most, Math.max(l1Index + 1, Math.ceil(image.l1.entries * 1.5))));
}

/** A table of zeroes, or a copy of another; with its count durable. */
async function writeTable(image: Qcow2Image, old: HostOffset, place: HostOffset): Promise<void> {
  const { l2, layout, file, refcounts } = image;
  if (!image.dirtyBitSet) await refcounts.writeBack();
  await file.flush();
  for (let at = 0; at < layout.clusterSize; at += l2.entryBytes) {
    let bytes = new Uint8Array(l2.entryBytes);
    if (old !== 0) {
      await image.raise('l2_alloc_cow_read');
      bytes = (await l2.get(old + at)).bytes.slice();
    }
    await image.raise('l2_alloc_write');
    // A table is written like any change of one, also where it is new.
    await image.raise('l2_update');
    await writeMetadata(image, MetadataClass.activeL2, place + at, bytes);
    // A table that is one slice is used at once.
    if (l2.entryBytes === layout.clusterSize) l2.put(place, bytes).dirty = false;
    else l2.drop(place + at);
  }
  await file.flush();
}

async function writeL1Entry(image: Qcow2Image, l1Index: number, place: HostOffset): Promise<void> {
  const { l1, file, metadata, layout } = image;
  const at = l1Index * L1_ENTRY_BYTES;
  const before = l1.bytes.slice(at, at + L1_ENTRY_BYTES);
  l1.set(l1Index, place, true);
  const entry = l1.bytes.slice(at, at + L1_ENTRY_BYTES);
  // Requests must not see it before it is there for good.
  l1.bytes.set(before, at);
  await image.raise('l1_update');
  await writeMetadata(image, MetadataClass.activeL1, l1.offset + at, entry);
  await file.flush();
  l1.bytes.set(entry, at);
  metadata.add(MetadataClass.activeL2, place, layout.clusterSize);
}
