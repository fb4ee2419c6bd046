/** Changing the disk's size (Q-SIZE). */
import { alignDown, alignUp } from '../../bytes/align.ts';
import { setU64, viewOf } from '../../bytes/big-endian.ts';
import type { TruncateOptions } from '../../core/driver.ts';
import { BlockError, codeOf, withErrno } from '../../core/errors.ts';
import { SECTOR } from '../../crypto/sector-cipher.ts';
import { cropClusters, dropClusters } from './clear.ts';
import { GROWN_L1, growL1 } from './grow-l1.ts';
import { Autoclear, FIELD_AT } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { L1_ENTRY_BYTES } from './l1-table.ts';
import { L1_BYTES_MAX, l1EntriesFor } from './layout.ts';
import { loadRun } from './map.ts';
import { writeHeaderField, writeMetadata } from './metadata-io.ts';
import { MetadataClass } from './overlap.ts';
import { preallocate } from './preallocate.ts';
import { readInside } from './read.ts';
import { shrinkFile } from './shrink-file.ts';
import { Kind } from './tables.ts';
import { dropVmState } from './vm-state.ts';
import { write } from './write.ts';
import { flushAll } from './write-back.ts';

/** Bytes of zeroes that are written at a time. */
const ZERO_PIECE = 1 << 20;

export async function resize(image: Qcow2Image, length: number, options: TruncateOptions): Promise<void> {
  image.requireUsable();
  checkResize(image, length, { ...options, version: image.header.version });
  await image.beforeChange?.();
  await dropVmState(image);
  if (length < image.length) await shrink(image, length);
  else await grow(image, length, options);
  image.preallocated = undefined;
}

/** What speaks against a size (Q-SIZE-1), of an image that has the version by then. Throws BlockError. */
export function checkResize(
  image: Qcow2Image,
  length: number,
  { preallocation = 'off', version }: TruncateOptions & { readonly version: number },
): void {
  if (length % 512 !== 0) throw new BlockError('EINVAL', 'The new size must be a multiple of 512');
  if (image.snapshots.length > 0 && version < 3) {
    throw new BlockError('ENOTSUP', "Can't resize a v2 image which has snapshots");
  }
  image.bitmaps.checkResize(length);
  if (length < image.length && preallocation !== 'off') {
    throw new BlockError('EINVAL', "Preallocation can't be used for shrinking an image");
  }
  if (l1EntriesFor(image.layout, length) * L1_ENTRY_BYTES > L1_BYTES_MAX) {
    throw withErrno('EFBIG', GROWN_L1, { node: image.node });
  }
}

/** All that must not come to light is zero, durably, before the size is the new one (BL-SIZE-4, Q-ORD-11). */
async function grow(image: Qcow2Image, length: number, { preallocation = 'off' }: TruncateOptions): Promise<void> {
  const old = image.length;
  await growL1(image, l1EntriesFor(image.layout, length));
  const raw = (image.header.autoclear & Autoclear.rawDataFile) !== 0n;
  const mode = raw && preallocation === 'off' ? 'metadata' : preallocation;
  if (image.layout.hasDataFile) {
    const { data } = image;
    const below = preallocation === 'metadata' ? 'off' : preallocation;
    const shown = Math.min(length, data.length());
    // What is linked below shows what the file has there already.
    if (mode !== 'off' && shown > old) await data.writeZeroes(old, shown - old, { unmap: true });
    if (data.length() < length) await data.truncate(length, { preallocation: below });
  }
  const hidden = Math.min(length, lengthBelow(image));
  await zeroTail(image, length, hidden);
  await clearBeyondEnd(image, length, hidden);
  try {
    if (mode !== 'off') await preallocate(image, old, length, mode);
  } catch (error) {
    await shrinkFile(image);
    throw error;
  }
  await flushAll(image);
  try {
    await setSize(image, length);
  } catch (error) {
    throw withErrno(codeOf(error), 'Failed to update the image size', { cause: error, node: image.node });
  }
}

/** How far the backing file may show something. Where it is named and not open, nobody knows. */
function lengthBelow(image: Qcow2Image): number {
  return image.backing?.length() ?? (image.hasBacking ? Number.POSITIVE_INFINITY : 0);
}

const STORED: ReadonlySet<Kind> = new Set([
  Kind.normal,
  Kind.zeroAllocated,
  Kind.unallocatedAllocated,
  Kind.compressed,
]);

/** What the last cluster holds behind the old end, or the backing file has there up to `hidden`. */
async function zeroTail(image: Qcow2Image, length: number, hidden: number): Promise<void> {
  const end = Math.min(length, alignUp(image.length, image.layout.clusterSize));
  // What is encrypted is written by sectors; the old end may be within one.
  const start = image.cipher === undefined ? image.length : alignDown(image.length, SECTOR);
  for (let at = start; at < end; ) {
    const run = await loadRun(image, at, end - at);
    const isStored = run.kind === Kind.normal || run.kind === Kind.compressed;
    const shows = run.kind === Kind.unallocated || run.kind === Kind.unallocatedAllocated;
    if (isStored || (shows && at < hidden)) await write(image, at, await zeroesFrom(image, at, run.length));
    at += run.length;
  }
}

/** What entries behind the last cluster name, and what the backing file has there up to `hidden`. */
async function clearBeyondEnd(image: Qcow2Image, length: number, hidden: number): Promise<void> {
  const from = alignUp(image.length, image.layout.clusterSize);
  for (let at = from; at < length; ) {
    const run = await loadRun(image, at, length - at);
    // Asked first: a table that a snapshot has too is not copied for nothing.
    if (STORED.has(run.kind)) await dropClusters(image, at, at + run.length, 'always', true);
    at += run.length;
  }
  if (image.layout.version >= 3) return dropClusters(image, from, hidden, 'always', false);
  for (let at = from; at < hidden; at += ZERO_PIECE) {
    await write(image, at, new Uint8Array(Math.min(ZERO_PIECE, hidden - at)));
  }
}

/** Zeroes from the disk's end on, behind what is before it. */
async function zeroesFrom(image: Qcow2Image, at: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  if (at >= image.length) return bytes;
  await readInside(image, at, bytes);
  return bytes.fill(0, image.length - at);
}

async function setSize(image: Qcow2Image, length: number): Promise<void> {
  const field = new Uint8Array(8);
  setU64(viewOf(field), 0, length);
  await writeHeaderField(image, FIELD_AT.size, field, () => {
    image.header.size = length;
  });
}

/** Until the new size is durable, nothing may show what the backing file has where data or zeroes were (Q-ORD-11). */
async function shrink(image: Qcow2Image, length: number): Promise<void> {
  const { layout } = image;
  const from = alignUp(length, layout.clusterSize);
  const to = alignUp(image.length, layout.clusterSize);
  const raw = (image.header.autoclear & Autoclear.rawDataFile) !== 0n;
  try {
    // A raw data file holds what the disk reads, also when a later step fails.
    if (raw && from < image.length) await image.data.writeZeroes(from, image.length - from, { unmap: true });
    await cropClusters(image, from, to);
  } catch (error) {
    throw withErrno(codeOf(error), 'Failed to discard cropped clusters', { cause: error, node: image.node });
  }
  await flushAll(image);
  await setSize(image, length);
  await dropClusters(image, from, Math.min(to, alignUp(from, layout.l2Reach)), 'always', true);
  await cutL1(image, l1EntriesFor(layout, length));
  await flushAll(image);
  if (layout.hasDataFile) await image.data.truncate(length, { shrink: true });
  await shrinkFile(image);
}

/** Drops the L2 tables from an entry on: their entries become zero first, durably. */
async function cutL1(image: Qcow2Image, keep: number): Promise<void> {
  const { l1, layout, file, metadata, releases, l2 } = image;
  if (keep >= l1.entries) return;
  await image.raise('l1_shrink_write_table');
  const at = keep * L1_ENTRY_BYTES;
  await writeMetadata(image, MetadataClass.activeL1, l1.offset + at, new Uint8Array(l1.bytes.length - at));
  await file.flush();
  await image.raise('l1_shrink_free_l2_clusters');
  for (let index = keep; index < l1.entries; index++) {
    const offset = l1.l2Offset(index);
    if (offset === 0 || offset % layout.clusterSize !== 0) continue;
    for (let byte = 0; byte < layout.clusterSize; byte += l2.entryBytes) l2.drop(offset + byte);
    metadata.remove(MetadataClass.activeL2, offset, layout.clusterSize);
    releases.add(offset, layout.clusterSize, 'always');
  }
  l1.bytes.fill(0, at);
}
