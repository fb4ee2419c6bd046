/** LUKS1's anti-forensic splitter: a key spread over stripes, all of which are needed to get it back, so that wiping a few suffices. */
import { DIGEST_BYTES, type HashName, type HostCrypto } from '../core/host-crypto.ts';

/** `hash`: what diffuses one stripe into the next. */
export interface Splitter {
  readonly crypto: HostCrypto;
  readonly hash: HashName;
}

/** Spreads `key` over `stripes` times its length; `random` fills all stripes but the last. */
export function split(
  splitter: Splitter,
  key: Uint8Array,
  stripes: number,
  random: (target: Uint8Array) => void,
): Uint8Array {
  const material = new Uint8Array(key.length * stripes);
  const last = material.subarray(key.length * (stripes - 1));
  random(material.subarray(0, key.length * (stripes - 1)));
  last.set(diffusedSum(splitter, material, key.length));
  xorInto(last, key);
  return material;
}

/** The key of `length` bytes that was spread. */
export function merge(splitter: Splitter, material: Uint8Array, length: number): Uint8Array {
  const key = diffusedSum(splitter, material, length);
  xorInto(key, material.subarray(material.length - length));
  return key;
}

/** Over all stripes but the last. */
function diffusedSum(splitter: Splitter, material: Uint8Array, length: number): Uint8Array {
  let sum = new Uint8Array(length);
  for (let at = 0; at + length < material.length; at += length) {
    xorInto(sum, material.subarray(at, at + length));
    sum = diffuse(splitter, sum);
  }
  return sum;
}

/** Each part as long as a digest becomes the digest of its number and itself, cut to its length. */
function diffuse({ crypto, hash }: Splitter, bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const result = new Uint8Array(bytes.length);
  const size = DIGEST_BYTES[hash];
  const input = new Uint8Array(4 + size);
  const number = new DataView(input.buffer);
  for (let at = 0, index = 0; at < bytes.length; at += size, index++) {
    const part = bytes.subarray(at, at + size);
    number.setUint32(0, index);
    input.set(part, 4);
    const digest = crypto.digest(hash, input.subarray(0, 4 + part.length));
    result.set(digest.subarray(0, part.length), at);
  }
  return result;
}

function xorInto(target: Uint8Array, source: Uint8Array): void {
  for (let i = 0; i < target.length; i++) target[i] = (target[i] ?? 0) ^ (source[i] ?? 0);
}
