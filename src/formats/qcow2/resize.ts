/** Changing the disk's size (Q-SIZE). */
import { alignDown, alignUp } from '../../bytes/align.ts';
import { setU64, viewOf } from '../../bytes/big-endian.ts';
import type { TruncateOptions } from '../../core/driver.ts';
import { BlockError, codeOf, withErrno } from '../../core/errors.ts';
import { SECTOR } from '../../crypto/sector-cipher.ts';
import { dropClusters } from './clear.ts';
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

async function grow(image: Qcow2Image, length: number, { preallocation = 'off' }: TruncateOptions): Promise<void> {
  const old = image.length;
  await growL1(image, l1EntriesFor(image.layout, length));
  const raw = (image.header.autoclear & Autoclear.rawDataFile) !== 0n;
  const mode = raw && preallocation === 'off' ? 'metadata' : preallocation;
  if (image.layout.hasDataFile) {
    const { data } = image;
    const below = preallocation === 'metadata' ? 'off' : preallocation;
    if (data.length() < length) await data.truncate(length, { preallocation: below });
  }
  await zeroTail(image, length);
  if (mode !== 'off') await preallocate(image, old, length, mode);
  await flushAll(image);
  try {
    await setSize(image, length);
  } catch (error) {
    throw withErrno(codeOf(error), 'Failed to update the image size', { cause: error, node: image.node });
  }
}

/** What the last cluster holds behind the old end must not come to light. */
async function zeroTail(image: Qcow2Image, length: number): Promise<void> {
  const end = Math.min(length, alignUp(image.length, image.layout.clusterSize));
  // What is encrypted is written by sectors; the old end may be within one.
  const start = image.cipher === undefined ? image.length : alignDown(image.length, SECTOR);
  for (let at = start; at < end; ) {
    const run = await loadRun(image, at, end - at);
    const isStored = run.kind === Kind.normal || run.kind === Kind.compressed;
    if (isStored) await write(image, at, await zeroesFrom(image, at, run.length));
    at += run.length;
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

async function shrink(image: Qcow2Image, length: number): Promise<void> {
  const { layout } = image;
  try {
    const from = alignUp(length, layout.clusterSize);
    const to = alignUp(image.length, layout.clusterSize);
    if (from < to) await dropClusters(image, from, to, 'always', true);
  } catch (error) {
    throw withErrno(codeOf(error), 'Failed to discard cropped clusters', { cause: error, node: image.node });
  }
  await flushAll(image);
  await cutL1(image, l1EntriesFor(layout, length));
  await flushAll(image);
  await setSize(image, length);
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
