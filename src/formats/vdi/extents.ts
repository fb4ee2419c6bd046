/** Block status (V-21): runs of like blocks whole, not block by block. */
import type { Extent } from '../../core/driver.ts';
import { ImageType } from './header.ts';
import type { VdiImage } from './image.ts';
import { isStored, UNALLOCATED } from './map.ts';

export function extent(image: VdiImage, offset: number, limit: number): Extent {
  const { blockSize, stride } = image;
  let block = Math.floor(offset / blockSize);
  const first = image.entry(block);
  const inBlock = offset - block * blockSize;
  let length = blockSize - inBlock;
  const stored = isStored(first);
  const single = stored && stride !== blockSize;
  for (let next = first + 1; !single && length < limit; next++) {
    const entry = image.map[++block];
    if (entry === undefined) break;
    if (stored ? entry !== next || !isStored(entry) : entry !== first) break;
    length += blockSize;
  }
  length = Math.min(length, limit);
  // Only a differencing image has something below that could show through; else what is not stored is known to be zero.
  if (first === UNALLOCATED && image.header.type === ImageType.differencing) return { kind: 'unallocated', length };
  if (!stored) return { kind: 'zero', length };
  const at = { child: image.file.name, offset: image.position(first) + inBlock };
  return { kind: 'data', length, at, recurse: image.isStatic };
}
