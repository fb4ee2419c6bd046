/** Changing what a VDI is based on, and emptying it after a commit (V-50). */
import { isZero } from '../../bytes/zero.ts';
import type { BackingReference, DriverInfo } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { readNamedHeader } from './find-parent.ts';
import { ImageType } from './header.ts';
import type { VdiImage } from './image.ts';
import { type StoredUuids, sameUuid, storedUuidsOf } from './lineage.ts';
import { isStored, UNALLOCATED, ZEROED } from './map.ts';
import { alone, writeBack } from './write-back.ts';

const NULL_UUID = new Uint8Array(16);
/** Bytes of the parent that are looked at at a time. */
const READ_BYTES = 1 << 20;

/**
 * Records another parent, or none; what the image itself holds stays as it is. ENOTSUP for a parent that is no VDI, and
 * for an image that cannot have one. Without a parent, nothing of one may show any more (EBUSY).
 */
export async function changeParent(
  image: VdiImage,
  reference: BackingReference | undefined,
  parentInfo: () => DriverInfo | undefined,
): Promise<void> {
  image.requireSound();
  if (reference === undefined) return alone(image, () => becomeBase(image));
  const { header } = image;
  // An overlay that records nothing goes on without.
  const recordsNone = image.isDifferencing && isZero(header.linkUuid);
  if (recordsNone && reference.format !== 'vdi' && reference.format !== '') return;
  const { uuid, modificationUuid } = await uuidsOfNamed(image, reference, parentInfo);
  if (image.isStatic) {
    throw new BlockError('ENOTSUP', `'${image.file.filename()}' is a static image, which has no parent`, {
      node: image.node,
    });
  }
  await alone(image, async () => {
    if (!image.isDifferencing) {
      // What was zero so far must not show the parent: in the file before the header speaks of one.
      for (let block = 0; block < image.map.length; block++) {
        if (image.entry(block) === UNALLOCATED) image.setEntry(block, ZEROED);
      }
      await writeBack(image);
    }
    Object.assign(header, { type: ImageType.differencing, linkUuid: uuid, parentUuid: modificationUuid });
    image.headerDirty = true;
  });
}

/** Of the linked parent, where that is the one named: its header in the file may be older. */
async function uuidsOfNamed(
  image: VdiImage,
  { filename, format }: BackingReference,
  parentInfo: () => DriverInfo | undefined,
): Promise<StoredUuids> {
  const { node, host, file } = image;
  if (format !== 'vdi' && format !== '') {
    const text = `A VDI image cannot record '${filename}' of format '${format}' as its parent: it must be a VDI`;
    throw new BlockError('ENOTSUP', text, { node });
  }
  const linked = image.parent()?.filename() === filename ? storedUuidsOf(parentInfo()) : undefined;
  const named = linked ?? (await readNamedHeader(host, file.filename(), filename));
  requireUuid(named, image.header.uuid, filename);
  return named;
}

/** The link would be to nothing, or to the image itself. */
export function requireUuid({ uuid }: StoredUuids, own: Uint8Array, filename: string): void {
  if (isZero(uuid)) throw new BlockError('EINVAL', `'${filename}' has a null UUID, so that it cannot be a parent`);
  if (sameUuid(uuid, own)) {
    throw new BlockError('EINVAL', `'${filename}' has the UUID of the image that is to be based on it`);
  }
}

async function becomeBase(image: VdiImage): Promise<void> {
  if (!image.isDifferencing) return;
  await requireNothingShows(image);
  Object.assign(image.header, { type: ImageType.dynamic, linkUuid: NULL_UUID, parentUuid: NULL_UUID });
  image.orphaned = undefined;
  image.headerDirty = true;
}

/** What is still linked below must read as zeroes wherever it shows. */
async function requireNothingShows(image: VdiImage): Promise<void> {
  const parent = image.requireParent();
  if (parent === undefined) return;
  const buffer = new Uint8Array(READ_BYTES);
  const end = Math.min(parent.length(), image.length);
  for (let at = 0; at < end; ) {
    const block = Math.floor(at / image.blockSize);
    const run = image.runLength(at, end - at);
    if (image.entry(block) !== UNALLOCATED) {
      at += run;
      continue;
    }
    const piece = buffer.subarray(0, Math.min(run, buffer.length));
    await parent.read(at, piece);
    if (!isZero(piece)) {
      const text = `Block ${Math.floor(at / image.blockSize)} of '${image.file.filename()}' still shows '${parent.filename()}'`;
      throw new BlockError('EBUSY', text, { node: image.node });
    }
    at += piece.length;
  }
}

/**
 * Drops every block, so that the parent shows; then the parent as it is now is the recorded one. A crash on the way leaves
 * an image that holds some of its blocks still.
 */
export async function makeEmpty(image: VdiImage, parentInfo: () => DriverInfo | undefined): Promise<void> {
  image.requireSound();
  if (image.isStatic) {
    throw new BlockError('ENOTSUP', `'${image.file.filename()}' is a static image: it cannot be emptied`, {
      node: image.node,
    });
  }
  await alone(image, async () => {
    await image.event('empty_image_prepare');
    image.touch();
    for (let block = 0; block < image.map.length; block++) {
      const slot = image.entry(block);
      if (slot === UNALLOCATED) continue;
      image.setEntry(block, UNALLOCATED);
      if (isStored(slot)) image.slots.release(slot);
    }
    const parent = storedUuidsOf(parentInfo());
    if (parent !== undefined && sameUuid(parent.uuid, image.header.linkUuid)) {
      image.header.parentUuid = parent.modificationUuid;
    }
    await writeBack(image);
  });
}
