/** Sets of small numbers, one bit each. */

export type Bits = Uint32Array;

export function newBits(count: number): Bits {
  return new Uint32Array(Math.ceil(count / 32));
}

export function hasBit(bits: Bits, index: number): boolean {
  return ((bits[index >>> 5] ?? 0) & (1 << (index & 31))) !== 0;
}

export function setBit(bits: Bits, index: number): void {
  const word = index >>> 5;
  bits[word] = (bits[word] ?? 0) | (1 << (index & 31));
}

export function clearBit(bits: Bits, index: number): void {
  const word = index >>> 5;
  bits[word] = (bits[word] ?? 0) & ~(1 << (index & 31));
}

/** The first index from `from` to before `end` whose bit is `wanted`, or -1. */
export function findBit(bits: Bits, wanted: boolean, from: number, end: number): number {
  const flip = wanted ? 0 : 0xffffffff;
  for (let index = from; index < end; ) {
    const word = ((bits[index >>> 5] ?? 0) ^ flip) >>> (index & 31);
    if (word !== 0) {
      const found = index + lowestBit(word);
      return found < end ? found : -1;
    }
    index = index - (index & 31) + 32;
  }
  return -1;
}

function lowestBit(word: number): number {
  return 31 - Math.clz32(word & -word);
}
