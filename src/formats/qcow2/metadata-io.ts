/** Writing metadata: checked against other metadata first (Q-CORR-2). */
import { corruption } from './corruption.ts';
import type { Qcow2Image } from './image.ts';
import { classText, MetadataClass } from './overlap.ts';

/** Writes bytes of a class into the image file. Throws BlockError EIO for a write that would hit another class. */
export async function writeMetadata(
  image: Qcow2Image,
  ownClass: number,
  offset: number,
  bytes: Uint8Array,
): Promise<void> {
  await requireNoOverlap(image, offset, bytes.length, ownClass);
  if (!image.file.tryWriteNow(offset, bytes)) await image.file.write(offset, bytes);
}

/**
 * Some fields of the header, in one sector; durable when it resolves (Q-HDR-9). `written` changes them in memory, before
 * anyone else writes what is there.
 */
export function writeHeaderField(
  image: Qcow2Image,
  at: number,
  bytes: Uint8Array,
  written: () => void = () => {},
): Promise<void> {
  return image.headerLock.run(async () => {
    await writeMetadata(image, MetadataClass.header, at, bytes);
    await image.file.flush();
    written();
  });
}

/** Throws when a write to the image file would hit metadata of another class than its own; 0: it is data. */
export async function requireNoOverlap(
  image: Qcow2Image,
  offset: number,
  length: number,
  ownClass: number,
): Promise<void> {
  const hit = image.overlapIn(offset, length, ownClass);
  if (hit === 0) return;
  const text = `Preventing invalid write on metadata (overlaps with ${classText(hit)})`;
  throw await corruption(image, { fatal: true, text, offset, length });
}
