/** Big-endian fields of on-disk structures, through views that are made once. Offsets past the end throw RangeError. */

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A 64-bit field: a number when it is a safe integer, else a bigint, which is never rounded. */
export function getU64(view: DataView, offset: number): number | bigint {
  const high = view.getUint32(offset);
  if (high < 0x200000) return high * 2 ** 32 + view.getUint32(offset + 4);
  return view.getBigUint64(offset);
}

/** `value`: a non-negative safe integer, or a bigint below 2^64. */
export function setU64(view: DataView, offset: number, value: number | bigint): void {
  if (typeof value === 'bigint') {
    view.setBigUint64(offset, value);
    return;
  }
  view.setUint32(offset, Math.floor(value / 2 ** 32));
  view.setUint32(offset + 4, value >>> 0);
}
