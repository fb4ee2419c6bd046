/** Making prefix codes for raw deflate: lengths from frequencies, and the bits that follow from lengths (RFC 1951). */
import { reverse } from './deflate-codes.ts';

export interface PrefixCode {
  readonly lengths: Uint8Array;
  /** Bits of each symbol, first bit lowest. */
  readonly bits: Uint16Array;
}

/** A code of the least total length whose codes have at most `limit` bits. It has two symbols at least. */
export function bestCode(frequencies: Uint32Array, limit: number): PrefixCode {
  const used: number[] = [];
  for (let symbol = 0; symbol < frequencies.length; symbol++) if ((frequencies[symbol] ?? 0) > 0) used.push(symbol);
  for (let symbol = 0; used.length < 2; symbol++) if (!used.includes(symbol)) used.push(symbol);
  const count = (symbol: number) => frequencies[symbol] ?? 0;
  used.sort((a, b) => count(a) - count(b) || a - b);
  const depths = treeDepths(used.map(count));
  return codeOf(assign(used, limited(depths, limit), frequencies.length));
}

/** How deep each leaf of a Huffman tree is; weights ascend. */
function treeDepths(weights: readonly number[]): number[] {
  const leaves = weights.length;
  const inner: number[] = [];
  const parents = new Array<number>(2 * leaves - 1).fill(0);
  let leaf = 0;
  let node = 0;
  const takeLightest = () => {
    const fromLeaves = leaf < leaves && (node >= inner.length || (weights[leaf] ?? 0) <= (inner[node] ?? 0));
    const index = fromLeaves ? leaf++ : leaves + node++;
    parents[index] = leaves + inner.length;
    return fromLeaves ? (weights[index] ?? 0) : (inner[index - leaves] ?? 0);
  };
  while (inner.length < leaves - 1) {
    // The sum is put there after both have been taken.
    const sum = takeLightest() + takeLightest();
    inner.push(sum);
  }
  const depths = new Array<number>(2 * leaves - 1).fill(0);
  for (let index = 2 * leaves - 3; index >= 0; index--) depths[index] = (depths[parents[index] ?? 0] ?? 0) + 1;
  return depths.slice(0, leaves);
}

/** How many codes there are of each length, once those that are too long have been made shorter. */
function limited(depths: readonly number[], limit: number): number[] {
  const counts = new Array<number>(limit + 1).fill(0);
  let space = 0;
  for (const depth of depths) {
    const length = Math.min(depth, limit);
    counts[length] = (counts[length] ?? 0) + 1;
    space += 2 ** (limit - length);
  }
  for (; space > 2 ** limit; space--) {
    let length = limit - 1;
    while (counts[length] === 0) length--;
    counts[length] = (counts[length] ?? 0) - 1;
    counts[length + 1] = (counts[length + 1] ?? 0) + 2;
    counts[limit] = (counts[limit] ?? 0) - 1;
  }
  return counts;
}

/** The rarest symbols, which come first, get the longest codes. */
function assign(symbols: readonly number[], counts: readonly number[], size: number): Uint8Array {
  const lengths = new Uint8Array(size);
  let next = 0;
  for (let length = counts.length - 1; length > 0; length--) {
    for (let left = counts[length] ?? 0; left > 0; left--) lengths[symbols[next++] ?? 0] = length;
  }
  return lengths;
}

export function codeOf(lengths: Uint8Array): PrefixCode {
  const counts = new Uint16Array(17);
  for (const length of lengths) if (length > 0) counts[length] = (counts[length] ?? 0) + 1;
  const next = new Uint16Array(17);
  for (let length = 1; length < 16; length++) next[length + 1] = ((next[length] ?? 0) + (counts[length] ?? 0)) << 1;
  const bits = new Uint16Array(lengths.length);
  for (const [symbol, length] of lengths.entries()) {
    if (length === 0) continue;
    bits[symbol] = reverse(next[length] ?? 0, length);
    next[length] = (next[length] ?? 0) + 1;
  }
  return { lengths, bits };
}
