/** Whole blocks of zeroes in what is written (V-66). */
import { isZero } from '../../bytes/zero.ts';
import type { VdiImage } from './image.ts';

/** A whole block of zeroes where nothing is stored needs no place: its length, else 0. */
export function zeroBlocks(image: VdiImage, offset: number, source: Uint8Array, start: number): number {
  const inBlock = offset % image.blockSize;
  const size = Math.min(image.blockSize, image.length - offset);
  if (inBlock !== 0 || source.length - start < size) return 0;
  return isZero(source, start, start + size) ? size : 0;
}
