/** Counts of 1 to 64 bits in a refcount block (Q-REF-1). */

import { isZero } from '../../bytes/zero.ts';

export interface RefcountWidth {
  /** The highest count; of 64 bits the highest safe integer, which nothing ever reaches. */
  readonly max: number;
  get(view: DataView, index: number): number;
  set(view: DataView, index: number, value: number): void;
}

/** Widths below 8 bits fill bytes from the low bits. */
function narrow(order: number): RefcountWidth {
  const bits = 2 ** order;
  const perByte = 8 / bits;
  const mask = 2 ** bits - 1;
  return {
    max: mask,
    get(view, index) {
      return (view.getUint8(Math.floor(index / perByte)) >>> ((index % perByte) * bits)) & mask;
    },
    set(view, index, value) {
      const at = Math.floor(index / perByte);
      const shift = (index % perByte) * bits;
      view.setUint8(at, (view.getUint8(at) & ~(mask << shift)) | (value << shift));
    },
  };
}

const WIDTHS: readonly RefcountWidth[] = [
  narrow(0),
  narrow(1),
  narrow(2),
  {
    max: 0xff,
    get: (view, index) => view.getUint8(index),
    set: (view, index, value) => view.setUint8(index, value),
  },
  {
    max: 0xffff,
    get: (view, index) => view.getUint16(index * 2),
    set: (view, index, value) => view.setUint16(index * 2, value),
  },
  {
    max: 0xffffffff,
    get: (view, index) => view.getUint32(index * 4),
    set: (view, index, value) => view.setUint32(index * 4, value),
  },
  {
    max: Number.MAX_SAFE_INTEGER,
    // A count past the safe integers is damage; it stays far above any that can be right.
    get: (view, index) => Math.min(Number.MAX_SAFE_INTEGER, Number(view.getBigUint64(index * 8))),
    set: (view, index, value) => view.setBigUint64(index * 8, BigInt(value)),
  },
];

/** `order`: 0 to 6. */
export function refcountWidth(order: number): RefcountWidth {
  const width = WIDTHS[order];
  if (width === undefined) throw new RangeError(`refcount order ${order}`);
  return width;
}

/**
 * Sets counts side by side to 1, all at once, if all are 0; else, and where they are narrower than a byte, false. A loop over
 * the counts of a large file would be most of the work of taking its clusters.
 */
export function countFree(bytes: Uint8Array, bits: number, index: number, count: number): boolean {
  const width = bits / 8;
  if (width < 1) return false;
  const start = index * width;
  const end = start + count * width;
  if (!isZero(bytes, start, end)) return false;
  bytes[start + width - 1] = 1;
  for (let done = width; start + done < end; done *= 2) {
    bytes.copyWithin(start + done, start, Math.min(start + done, end - done));
  }
  return true;
}
