/**
 * Writing map and header back, batched, so that a power cut at any point leaves at worst leaked blocks (V-24, V-25):
 * data first; then a raised count, so that no other writer takes a place that the map is about to name; then the map;
 * a lowered count and the file's new end last. Each is durable before the next.
 */
import { BlockError, codeOf, errorText } from '../../core/errors.ts';
import { settled } from '../../core/gate.ts';
import { HEADER_BYTES, headerEnd, patchHeader } from './header.ts';
import type { VdiImage } from './image.ts';
import { ENTRY_BYTES, mapBytes } from './map.ts';
import { type Released, releasedRuns } from './slots.ts';

/** Makes everything completed before the call durable. One runs at a time; those that wait share the next. */
export function flush(image: VdiImage): Promise<void> {
  if (image.writeBacks === 0 && !isDirty(image)) return image.file.flush();
  image.queuedFlush ??= withLock(image, () => {
    image.queuedFlush = undefined;
    return writeBack(image);
  });
  return image.queuedFlush;
}

/** Runs `work` with no request and no flush beside it. Not to be called from inside a request. */
export function alone<T>(image: VdiImage, work: () => Promise<T>): Promise<T> {
  return withLock(image, async () => {
    await image.gate.close();
    try {
      return await work();
    } finally {
      image.gate.open();
    }
  });
}

async function withLock<T>(image: VdiImage, work: () => Promise<T>): Promise<T> {
  image.writeBacks++;
  try {
    return await image.metadataLock.run(work);
  } finally {
    image.writeBacks--;
  }
}

export function isDirty({ dirtyPages, headerDirty, slots }: VdiImage): boolean {
  return dirtyPages.any || headerDirty || slots.pending > 0;
}

/** The same as {@link flush} for who holds the lock. What cannot be written stays dirty. */
export async function writeBack(image: VdiImage): Promise<void> {
  const { file, slots, dirtyPages } = image;
  if (!isDirty(image)) return file.flush();
  // Copied now: what is allocated while this runs may have no durable data yet.
  const ranges = dirtyPages.take(image.map.length);
  const pieces = ranges.map(({ from, to }) => ({ from, bytes: mapBytes(image.map, from, to) }));
  const released = slots.takeReleased();
  const count = slots.end;
  try {
    if (image.headerDirty && count <= image.countOnDisk) await writeHeader(image, image.countOnDisk);
    await extendFile(image);
    await file.flush();
    if (count > image.countOnDisk) {
      await writeHeader(image, count);
      await file.flush();
    }
    if (pieces.length > 0) {
      await image.event('l2_update');
      const { mapOffset } = image.header;
      const write = async (at: number, bytes: Uint8Array) => file.tryWriteNow(at, bytes) || file.write(at, bytes);
      await settled(pieces.map(({ from, bytes }) => write(mapOffset + from * ENTRY_BYTES, bytes)));
      await file.flush();
    }
  } catch (error) {
    dirtyPages.putBack(ranges);
    if (released !== undefined) slots.putBack(released);
    throw error;
  }
  if (released !== undefined) await settle(image, released);
  if (slots.end < image.countOnDisk) await lowerCount(image, released !== undefined);
}

/** Writes the header's own bytes with this count of allocated blocks. They are in one sector, so are there whole or not. */
export async function writeHeader(image: VdiImage, count: number): Promise<void> {
  const { header, headerBytes } = image;
  await image.event('l1_update');
  const before = image.countOnDisk;
  header.allocated = count;
  image.headerDirty = false;
  patchHeader(headerBytes, header);
  try {
    // Not the rest of the sector: in old images the map begins there.
    const bytes = headerBytes.slice(0, Math.min(HEADER_BYTES, headerEnd(header)));
    if (!image.file.tryWriteNow(0, bytes)) await image.file.write(0, bytes);
    image.countOnDisk = count;
  } catch (error) {
    image.headerDirty = true;
    image.countOnDisk = Math.min(before, count);
    throw error;
  }
}

/** A block is whole in the file, also where only some of it was written (V-3): the rest is the file's hole. */
export async function extendFile(image: VdiImage): Promise<void> {
  const { file } = image;
  // Taken in the turn of the call: requests that end later wait until the file has its new length.
  const end = image.dataEnd;
  if (image.slots.end > 0 && file.length() < end) await file.truncate(end);
}

/** Before slots up to `end` are written for the first time: a file that cannot grow says so here, and not when the map names them. */
export async function makeRoom(image: VdiImage, end: number): Promise<void> {
  const { file } = image;
  if (image.startOf(end) <= file.length() || (image.fileGrows && file.growable)) return;
  try {
    await extendFile(image);
  } catch (cause) {
    // What has the size it has, as devices and exports do, is full.
    const full = !file.growable && ['ENOTSUP', 'EINVAL'].includes(codeOf(cause));
    throw full ? new BlockError('ENOSPC', errorText('ENOSPC'), { cause }) : cause;
  }
  image.fileGrows = true;
}

/** Makes slots free whose giving up is durable. What the host stores for them is given back. */
async function settle(image: VdiImage, released: Released): Promise<void> {
  // A write that began before the discard may still come down in a slot.
  await image.gate.barrier();
  const runs: Promise<void>[] = [];
  for (const { slot, count } of releasedRuns(released)) {
    runs.push(image.file.discard(image.startOf(slot), count * image.stride).catch(ignoreBlockError));
  }
  await settled(runs);
  image.slots.settle(released);
}

/** Free slots at the end leave the count, and the file if they came to be free now (V-65). */
async function lowerCount(image: VdiImage, shrink: boolean): Promise<void> {
  const { file } = image;
  await writeHeader(image, image.slots.end);
  await file.flush();
  if (shrink) await shrinkFile(image);
}

/** Cuts off what lies behind the last slot in use; a device stays as it is. */
export async function shrinkFile(image: VdiImage): Promise<void> {
  const { file } = image;
  const end = image.dataEnd;
  if (file.length() > end) await file.truncate(end, { shrink: true }).catch(ignoreRefusal);
}

/** A discard is a hint. */
function ignoreBlockError(error: unknown): void {
  if (!(error instanceof BlockError)) throw error;
}

function ignoreRefusal(error: unknown): void {
  if (!(error instanceof BlockError) || (error.code !== 'ENOTSUP' && error.code !== 'EINVAL')) throw error;
}
