/** Little-endian fields of on-disk structures. Offsets past the end throw RangeError: lengths are checked before. */

export function readU32(bytes: Uint8Array, offset: number): number {
  return view(bytes).getUint32(offset, true);
}

export function writeU32(bytes: Uint8Array, offset: number, value: number): void {
  view(bytes).setUint32(offset, value, true);
}

/** A 64-bit field: a number when it is a safe integer, else a bigint, which is never rounded. */
export function readU64(bytes: Uint8Array, offset: number): number | bigint {
  const value = view(bytes).getBigUint64(offset, true);
  return value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
}

/** `value`: a non-negative safe integer. */
export function writeU64(bytes: Uint8Array, offset: number, value: number): void {
  view(bytes).setBigUint64(offset, BigInt(value), true);
}

/** Whether this machine keeps numbers least significant byte first. */
const LITTLE_ENDIAN_HOST = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

/** Turns 32-bit words in place from the machine's order to little endian, or back. */
export function swapU32OnBigEndian(words: Uint32Array): void {
  if (!LITTLE_ENDIAN_HOST) swapU32(words);
}

/** Reverses the bytes of each word. */
export function swapU32(words: Uint32Array): void {
  for (let i = 0; i < words.length; i++) {
    const word = words[i] ?? 0;
    words[i] = (word >>> 24) | ((word >>> 8) & 0xff00) | ((word & 0xff00) << 8) | (word << 24);
  }
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
