/** What is dirty in a bitmap, as tests compare it. */
import type { HierarchicalBitmap } from '../../src/bitmaps/hierarchical-bitmap.ts';

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
