/** Random numbers from a seed (xorshift128+ seeded by splitmix), so that a run can be had again (BD-61). */
export class Chance {
  #a: number;
  #b: number;

  constructor(seed: number) {
    this.#a = scramble(seed) || 1;
    this.#b = scramble(seed + 0x9e3779b9) || 2;
  }

  /** From 0 up to, not including, 1. */
  next(): number {
    let a = this.#a;
    const b = this.#b;
    this.#a = b;
    a ^= a << 23;
    a ^= a >>> 17;
    a ^= b ^ (b >>> 26);
    this.#b = a;
    return ((a + b) >>> 0) / 2 ** 32;
  }

  /** A whole number from 0 up to, not including, `end`. */
  below(end: number): number {
    return Math.floor(this.next() * end);
  }
}

function scramble(value: number): number {
  let x = Math.imul(value ^ (value >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return x ^ (x >>> 16);
}
