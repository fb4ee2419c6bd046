/** The directory of bitmaps in the file: read when an image is opened, and replaced as a whole (Q-EXT-5, Q-ORD-7, Q-BMP-5). */
import { alignUp } from '../../../bytes/align.ts';
import { setU64, viewOf } from '../../../bytes/big-endian.ts';
import { BlockError, codeOf, withErrno } from '../../../core/errors.ts';
import { type BitmapsExtension, encodeBitmaps, findBitmaps } from '../extensions.ts';
import { allocateClusters } from '../free-space.ts';
import { Autoclear, FIELD_AT } from '../header.ts';
import type { Qcow2Image } from '../image.ts';
import { writeHeaderField, writeMetadata } from '../metadata-io.ts';
import { MetadataClass } from '../overlap.ts';
import { changeHeader } from '../write-header.ts';
import { decodeDirectory, encodeDirectory, type StoredBitmap } from './directory.ts';
import type { FileRange } from './table.ts';

const SECTOR = 512;
const LEAKS = "Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix.";

/**
 * Finds out which bitmaps an image has. `tolerant`: a directory that cannot be read is noted and told of; else this throws
 * BlockError. Outdated ones are warned of and forgotten (Q-FEAT-7).
 */
export async function openDirectory(image: Qcow2Image, tolerant: boolean): Promise<void> {
  const { extensions, header, bitmaps, host } = image;
  if (extensions.bitmaps === undefined) return;
  if ((header.autoclear & Autoclear.bitmaps) === 0n) {
    const why =
      header.version < 3
        ? 'This qcow2 v2 image contains bitmaps, but they may have been modified by a program without persistent bitmap ' +
          'support; so now they must all be considered inconsistent'
        : 'a program lacking bitmap support modified this file, so all bitmaps are now considered inconsistent';
    host.warn(`warning: ${why}\n${LEAKS}`);
    bitmaps.stale = true;
    extensions.bitmaps = undefined;
    return;
  }
  try {
    bitmaps.stored = await readDirectory(image, extensions.bitmaps);
  } catch (error) {
    if (!tolerant || !(error instanceof BlockError)) throw error;
    bitmaps.broken = error;
  }
}

/** Throws BlockError. */
async function readDirectory(
  { file, layout, node, length }: Qcow2Image,
  { count, directorySize, directoryOffset }: BitmapsExtension,
): Promise<StoredBitmap[]> {
  const [offset, size] = [Number(directoryOffset), Number(directorySize)];
  if (size === 0) throw new BlockError('EINVAL', 'Requested bitmap directory size is zero', { node });
  const bytes = new Uint8Array(Math.min(size, Math.max(0, alignUp(file.length(), layout.clusterSize) - offset)));
  try {
    if (bytes.length < size) throw new BlockError('EIO', 'The directory is past the end of the file');
    await file.read(offset, bytes);
  } catch (error) {
    throw withErrno(codeOf(error), 'Failed to read bitmap directory', { node, cause: error });
  }
  return decodeDirectory(bytes, count, { clusterSize: layout.clusterSize, diskSize: length, node });
}

/**
 * Makes other bitmaps those of the image: a new directory, durable with all it names, then the switch, in one sector where
 * there is a directory already, then the old one is given up. Throws BlockError, and then all is as before; once the switch
 * may have been made, `taken` is emptied: what it holds is to be given back only if the image does not name it.
 */
export async function switchDirectory(
  image: Qcow2Image,
  next: readonly StoredBitmap[],
  taken: FileRange[],
): Promise<void> {
  const { header, extensions, bitmaps, metadata, layout, releases } = image;
  const before = extensions.bitmaps;
  if (next.length > 0) {
    const to = await writeDirectory(image, next);
    taken.length = 0;
    await pointTo(image, to);
    metadata.add(MetadataClass.bitmapDirectory, Number(to.directoryOffset), Number(to.directorySize));
  } else if (before !== undefined) {
    taken.length = 0;
    await changeHeader(image, { autoclear: header.autoclear & ~Autoclear.bitmaps }, { bitmaps: undefined });
  }
  bitmaps.stored = next;
  if (before === undefined) return;
  const [offset, length] = [Number(before.directoryOffset), Number(before.directorySize)];
  metadata.remove(MetadataClass.bitmapDirectory, offset, length);
  releases.add(offset, alignUp(length, layout.clusterSize), 'other');
}

/** Counts are durable before anything names what they count. */
async function writeDirectory(image: Qcow2Image, next: readonly StoredBitmap[]): Promise<BitmapsExtension> {
  const { refcounts, file, layout } = image;
  const bytes = encodeDirectory(next);
  const length = alignUp(bytes.length, layout.clusterSize);
  const offset = await allocateClusters(refcounts, length / layout.clusterSize);
  try {
    await refcounts.writeBack();
    await writeMetadata(image, MetadataClass.bitmapDirectory, offset, bytes);
    await file.flush();
  } catch (error) {
    await refcounts.change(offset, length, -1).catch(() => {});
    throw error;
  }
  return { count: next.length, directorySize: bytes.length, directoryOffset: offset };
}

async function pointTo(image: Qcow2Image, to: BitmapsExtension): Promise<void> {
  const { header, extensions, layout, file } = image;
  const bit = Autoclear.bitmaps;
  if (extensions.bitmaps === undefined || (header.autoclear & bit) === 0n) {
    return changeHeader(image, { autoclear: header.autoclear | bit }, { bitmaps: to });
  }
  const cluster = new Uint8Array(layout.clusterSize);
  await file.read(0, cluster);
  const at = findBitmaps(header, cluster);
  if (at === undefined) throw new BlockError('EIO', 'The bitmaps extension is gone', { node: image.node });
  const bytes = encodeBitmaps(to);
  const set = () => {
    extensions.bitmaps = to;
  };
  const isWhole = Math.floor(at / SECTOR) === Math.floor((at + bytes.length - 1) / SECTOR);
  if (isWhole) return writeHeaderField(image, at, bytes, set);
  // What lies in two sectors may be written by half: until it is whole, the image has no bitmaps.
  await writeAutoclear(image, header.autoclear & ~bit);
  await writeHeaderField(image, at, bytes, set);
  await writeAutoclear(image, header.autoclear);
}

/** The word in the file alone; in memory it stays as it is. */
function writeAutoclear(image: Qcow2Image, word: bigint): Promise<void> {
  const bytes = new Uint8Array(8);
  setU64(viewOf(bytes), 0, word);
  return writeHeaderField(image, FIELD_AT.autoclear, bytes);
}
