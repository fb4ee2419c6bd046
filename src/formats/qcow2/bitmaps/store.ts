/** Bitmaps in memory become those of the image (Q-BMP-5, Q-BMP-6), and what they took up before is given up. */
import type { BitmapList } from '../../../bitmaps/bitmap-list.ts';
import type { DirtyBitmap } from '../../../bitmaps/dirty-bitmap.ts';
import type { HierarchicalBitmap } from '../../../bitmaps/hierarchical-bitmap.ts';
import { BlockError, codeOf, withErrno } from '../../../core/errors.ts';
import type { Qcow2Image } from '../image.ts';
import { MetadataClass } from '../overlap.ts';
import { writeBitmap } from './content.ts';
import {
  BitmapFlag,
  DIRECTORY_BYTES_MAX,
  directoryBytes,
  fitsImage,
  isUnderstood,
  type StoredBitmap,
} from './directory.ts';
import { switchDirectory } from './directory-io.ts';
import { addRange, type FileRange, rangesOf, readTable } from './table.ts';

/** Which content is in the file, by its table's offset: what has not changed since need not be written. */
export type KnownContents = Map<number, { readonly content: HierarchicalBitmap; readonly changes: number }>;

/** Sets the mark that says that a bitmap is outdated unless it is stored again, on all that may be. Durable. */
export function markInUse(image: Qcow2Image): Promise<void> {
  return image.bitmaps.lock.run(async () => {
    const { stored, broken } = image.bitmaps;
    if (broken !== undefined) throw broken;
    if (stored.some(isToMark)) {
      const marked = stored.map((bitmap) =>
        isToMark(bitmap) ? { ...bitmap, flags: bitmap.flags | BitmapFlag.inUse } : bitmap,
      );
      await switchDirectory(image, marked, []).catch((error: unknown) => {
        throw withErrno(codeOf(error), "Can't update bitmap directory", { node: image.node, cause: error });
      });
    }
    image.beforeChange = undefined;
  });
}

/** One that is not understood is left as it is where it does not claim to record what is written now. */
export function isToMark(bitmap: StoredBitmap): boolean {
  if ((bitmap.flags & BitmapFlag.inUse) !== 0) return false;
  return isUnderstood(bitmap) || (bitmap.flags & BitmapFlag.auto) !== 0;
}

/**
 * Stores what the list has: what is persistent and consistent with its content, in new clusters if that has changed. What
 * is inconsistent stays as it is, what the list has no more goes. Durable. Throws BlockError, and then the image has what
 * it had.
 */
export function storeBitmaps(image: Qcow2Image, list: BitmapList, known: KnownContents): Promise<void> {
  return image.bitmaps.lock.run(async () => {
    const before = image.bitmaps.stored;
    const taken: FileRange[] = [];
    const next: StoredBitmap[] = [];
    try {
      for (const stored of before) {
        const bitmap = list.find(stored.name);
        if (bitmap?.persistent === true) next.push(await storeOne(image, bitmap, stored, known, taken));
      }
      const names = new Set(before.map(({ name }) => name));
      for (const bitmap of list.all) {
        if (!bitmap.persistent || bitmap.inconsistent || bitmap.name === undefined || names.has(bitmap.name)) continue;
        next.push(await storeOne(image, bitmap, newRecord(bitmap.name, bitmap.granularity), known, taken));
      }
      if (next.length === before.length && next.every((bitmap, index) => bitmap === before[index])) return;
      await replaceDirectory(image, next, taken);
    } catch (error) {
      for (const { tableOffset } of next)
        if (!before.some((b) => b.tableOffset === tableOffset)) forget(image, tableOffset, known);
      for (const { offset, length } of taken) await image.refcounts.change(offset, length, -1).catch(() => {});
      throw error;
    }
    const kept = new Set(next.map(({ tableOffset }) => tableOffset));
    for (const bitmap of before) if (!kept.has(bitmap.tableOffset)) await giveUp(image, bitmap, known);
  });
}

/** Takes one out of the image; it need not be there. Durable. */
export function removeStored(image: Qcow2Image, name: string, known: KnownContents): Promise<void> {
  return image.bitmaps.lock.run(async () => {
    const { stored } = image.bitmaps;
    const removed = stored.find((bitmap) => bitmap.name === name);
    if (removed === undefined) return;
    await replaceDirectory(
      image,
      stored.filter((bitmap) => bitmap !== removed),
      [],
    );
    await giveUp(image, removed, known);
  });
}

async function replaceDirectory(image: Qcow2Image, next: readonly StoredBitmap[], taken: FileRange[]): Promise<void> {
  const { node } = image;
  const text = 'Failed to update bitmap extension';
  if (directoryBytes(next) > DIRECTORY_BYTES_MAX) throw withErrno('EFBIG', text, { node });
  try {
    await switchDirectory(image, next, taken);
  } catch (error) {
    throw withErrno(codeOf(error), text, { node, cause: error });
  }
}

/** The record of a bitmap that is not in the image yet. */
function newRecord(name: string, granularity: number): StoredBitmap {
  const nameBytes = new TextEncoder().encode(name);
  return { tableOffset: 0, tableEntries: 0, flags: 0, granularity, name, nameBytes, extra: new Uint8Array(0) };
}

/** The record for what a bitmap is now; the same object if nothing about it has changed. */
async function storeOne(
  image: Qcow2Image,
  bitmap: DirtyBitmap,
  stored: StoredBitmap,
  known: KnownContents,
  taken: FileRange[],
): Promise<StoredBitmap> {
  if (bitmap.inconsistent) return stored;
  const { successor } = bitmap;
  const recorder = successor ?? bitmap;
  const auto = recorder.disabled ? 0 : BitmapFlag.auto;
  const flags = (stored.flags & BitmapFlag.extraCompatible) | auto;
  const before = known.get(stored.tableOffset);
  const isSame = before?.content === bitmap.content && before.changes === bitmap.content.changes;
  if (isSame && (successor === undefined || successor.content.empty)) {
    return flags === stored.flags ? stored : { ...stored, flags };
  }
  const { content, name = '' } = bitmap;
  if (!fitsImage(content.size, content.granularity, image.layout.clusterSize)) throw tooLarge(image, name);
  const changes = content.changes;
  const whole = successor === undefined ? content : union(content, successor.content);
  try {
    const { ranges, ...place } = await writeBitmap(image, whole, taken);
    image.bitmaps.places.set(place.tableOffset, ranges);
    for (const { offset, length } of ranges) image.metadata.add(MetadataClass.bitmapData, offset, length);
    if (successor === undefined) known.set(place.tableOffset, { content, changes });
    return { ...stored, ...place, flags, granularity: content.granularity };
  } catch (error) {
    throw withErrno(codeOf(error), `Failed to write bitmap '${name}' to file`, { node: image.node, cause: error });
  }
}

/** A job that has frozen the bitmap ends with the image: nothing that was recorded may be lost. */
function union(a: HierarchicalBitmap, b: HierarchicalBitmap): HierarchicalBitmap {
  const both = a.copy();
  both.merge(b);
  return both;
}

function tooLarge({ node }: Qcow2Image, name: string): BlockError {
  const why = 'Too much space will be occupied by the bitmap. Use larger granularity';
  return new BlockError('EINVAL', `Bitmap '${name}' doesn't satisfy the constraints: ${why}`, { node });
}

/** Its clusters are free once nobody can name them; those that are something else besides are left alone. */
async function giveUp(image: Qcow2Image, bitmap: StoredBitmap, known: KnownContents): Promise<void> {
  const { bitmaps, metadata, layout, releases, file } = image;
  const { clusterSize } = layout;
  const ranges = bitmaps.places.get(bitmap.tableOffset) ?? (await findRanges(image, bitmap));
  forget(image, bitmap.tableOffset, known);
  const free: FileRange[] = [];
  for (const { offset, length } of ranges) {
    for (let at = offset; at < offset + length; at += clusterSize) {
      if (at < file.length() && metadata.classesIn(at, clusterSize, -1) === 0) addRange(free, at, clusterSize);
    }
  }
  for (const { offset, length } of free) releases.add(offset, length, 'other');
}

function forget({ bitmaps, metadata }: Qcow2Image, tableOffset: number, known: KnownContents): void {
  for (const { offset, length } of bitmaps.places.get(tableOffset) ?? []) {
    metadata.remove(MetadataClass.bitmapData, offset, length);
  }
  bitmaps.places.delete(tableOffset);
  known.delete(tableOffset);
}

/** What cannot be found out is a leak. */
async function findRanges(image: Qcow2Image, bitmap: StoredBitmap): Promise<FileRange[]> {
  try {
    return rangesOf(bitmap, await readTable(image, bitmap), image.layout.clusterSize);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return [];
  }
}
