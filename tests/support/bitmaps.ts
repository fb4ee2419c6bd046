/** Lists of dirty bitmaps without a node, and what is in a bitmap, as tests compare it. */
import { BitmapList } from '../../src/bitmaps/bitmap-list.ts';
import type { HierarchicalBitmap } from '../../src/bitmaps/hierarchical-bitmap.ts';
import { BlockError } from '../../src/core/errors.ts';

/** The dirty areas as [start, end) pairs. */
export function areas(bitmap: HierarchicalBitmap): [number, number][] {
  const found: [number, number][] = [];
  for (let at = 0; ; ) {
    const area = bitmap.nextDirtyArea(at);
    if (area === undefined) return found;
    at = area.offset + area.length;
    found.push([area.offset, at]);
  }
}

/** The dirty granules as an iterator gives them. */
export function granules(bitmap: HierarchicalBitmap, start?: number): number[] {
  const iterator = bitmap.granules(start);
  const found: number[] = [];
  for (let at = iterator.next(); at >= 0; at = iterator.next()) found.push(at);
  return found;
}

export const MiB = 2 ** 20;

/** The bitmaps of a node `n0` of so many bytes. */
export function listOf(length: number, clusterSize?: number) {
  return new BitmapList({ name: 'n0', length: () => length, clusterSize: () => clusterSize });
}

/** What of a BlockError is told. */
export function failure(action: () => unknown): Pick<BlockError, 'code' | 'message' | 'node' | 'hint'> {
  try {
    action();
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    const { code, message, node, hint } = error;
    return { code, message, node, hint };
  }
  throw new TypeError('nothing was thrown');
}

export const busyText = (name: string) =>
  `Bitmap '${name}' is currently in use by another operation and cannot be used`;
