/** Counts of 1 to 64 bits in a refcount block (Q-REF-1). */

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
