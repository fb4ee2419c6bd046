/** Block status (V-21): runs of like blocks whole, not block by block. */
import type { Extent, ExtentPlace } from '../../core/driver.ts';
import type { VdiImage } from './image.ts';
import { isStored, UNALLOCATED } from './map.ts';

/** What is not stored is known to be zero, unless another image shows through. */
export function extent(image: VdiImage, offset: number, limit: number): Extent {
  const length = image.runLength(offset, limit);
  const block = Math.floor(offset / image.blockSize);
  const slot = image.entry(block);
  if (slot === UNALLOCATED && image.isDifferencing) return { kind: 'unallocated', length };
  if (!isStored(slot)) return { kind: 'zero', length };
  const place = image.position(slot) + (offset - block * image.blockSize);
  if (!Number.isSafeInteger(place + length)) return { kind: 'data', length };
  return { kind: 'data', length, at: { child: image.file.name, offset: place }, recurse: image.isStatic };
}

/** Where a range is stored in one piece, as requests would read and write it. */
export function place(image: VdiImage, offset: number, length: number): ExtentPlace | undefined {
  const block = Math.floor(offset / image.blockSize);
  const slot = image.entry(block);
  if (image.gate.closed || !isStored(slot) || !image.isSound(slot)) return undefined;
  if (image.runLength(offset, length) < length) return undefined;
  return { child: image.file.name, offset: image.position(slot) + (offset - block * image.blockSize) };
}
