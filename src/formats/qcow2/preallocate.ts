/** Giving a range of the disk its storage before anything is written (Q-SIZE-4). */
import { alignDown, alignUp } from '../../bytes/align.ts';
import type { Preallocation } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { isInPlace, readEntry, writeEntry } from './entries.ts';
import { allocateClusters } from './free-space.ts';
import { CryptMethod } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { sliceToChange } from './l2-tables.ts';
import { type HostOffset, highWord, lowWord } from './tables.ts';
import { write } from './write.ts';

/** Bytes that get storage side by side. */
const PIECE = 1 << 30;
/** Bytes of zeroes that are written at a time. */
const ZERO_PIECE = 1 << 20;

/** Links storage for [from, to) of the disk, where there is none; with subclusters they stay unallocated, so backing shows. */
export async function preallocate(image: Qcow2Image, from: number, to: number, mode: Preallocation): Promise<void> {
  const { layout, refcounts, file } = image;
  const { clusterSize } = layout;
  const start = alignDown(from, clusterSize);
  const end = alignUp(to, clusterSize);
  for (let guest = start; guest < end; ) {
    const length = Math.min(PIECE, end - guest);
    const host = layout.hasDataFile ? guest : await allocateClusters(refcounts, length / clusterSize);
    let linked = 0;
    try {
      if (!layout.hasDataFile) {
        // What was used before must not come to light.
        if (host < file.length()) await file.writeZeroes(host, length);
        await extendFile(image, host + length, mode);
      }
      for (; linked < length; linked += clusterSize) {
        const isNew = await link(image, guest + linked, host + linked);
        if (!isNew && !layout.hasDataFile) await refcounts.change(host + linked, clusterSize, -1);
      }
    } catch (error) {
      if (!layout.hasDataFile) await refcounts.change(host + linked, length - linked, -1).catch(() => {});
      throw error;
    }
    guest += length;
  }
  if (image.cipher !== undefined) await zeroPreallocated(image, from, to, mode);
}

/**
 * Zeroes in the file are none for the guest of an encrypted image. Where entries cannot say so, in version 2, new storage is
 * written to.
 */
export async function zeroPreallocated(
  image: Qcow2Image,
  from: number,
  to: number,
  mode: Preallocation,
): Promise<void> {
  if (mode === 'off' || image.layout.version >= 3) return;
  for (let at = from; at < to; at += ZERO_PIECE) await write(image, at, new Uint8Array(Math.min(ZERO_PIECE, to - at)));
}

async function extendFile(image: Qcow2Image, end: number, mode: Preallocation): Promise<void> {
  const { file } = image;
  if (file.length() >= end) return;
  const preallocation = mode === 'metadata' ? 'off' : mode;
  try {
    await file.truncate(end, { preallocation });
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw new BlockError(error.code, `Failed to resize underlying file: ${error.message}`, { cause: error });
  }
}

/** Puts the storage into the entry; false: the cluster has some already. */
async function link(image: Qcow2Image, guest: number, host: HostOffset): Promise<boolean> {
  const slice = await sliceToChange(image, guest);
  const old = readEntry(image, slice, guest);
  if (isInPlace(image, old)) return false;
  // Zeroes in the file are none for the guest of an encrypted image: the entry says so, where it can.
  const zero = image.header.cryptMethod !== CryptMethod.none && image.layout.version >= 3 && !image.layout.extended;
  writeEntry(image, slice, guest, {
    high: highWord(host, true),
    low: lowWord(host, zero),
    zero: old.zero,
    allocated: 0,
  });
  return true;
}
