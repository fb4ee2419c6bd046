/** Fingerprints of many small pieces of content, which can be put in and taken out in any order (Zobrist). Not for secrets. */

/** 64 bits that stand for a set of cells: the sum without carry of one number for each. */
export class Print {
  #a: number;
  #b: number;

  constructor(a = 0, b = 0) {
    this.#a = a;
    this.#b = b;
  }

  copy(): Print {
    return new Print(this.#a, this.#b);
  }

  /** Puts a cell in; the same again takes it out. `x` and `y`: 32 bits each of what the cell holds. */
  toggle(cell: number, x: number, y: number): void {
    const low = scramble((cell ^ 0x5bd1e995) | 0);
    const high = scramble((Math.floor(cell / 2 ** 32) ^ low) | 0);
    const first = scramble(x ^ high);
    this.#a ^= scramble(first + y);
    this.#b ^= scramble(Math.imul(first, 0x9e3779b1) ^ y ^ low);
  }

  get text(): string {
    return `${(this.#a >>> 0).toString(36)}.${(this.#b >>> 0).toString(36)}`;
  }
}

function scramble(value: number): number {
  let x = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return x ^ (x >>> 16);
}

/** Two 32-bit numbers for each `grain` bytes, one after the other. Lengths are multiples of 4. */
export function contentPrints(bytes: Uint8Array, grain: number): Uint32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const prints = new Uint32Array((bytes.length / grain) * 2);
  for (let cell = 0, at = 0; at < bytes.length; cell += 2) {
    let a = 0x811c9dc5;
    let b = 0x9e3779b9;
    for (const end = at + grain; at < end; at += 4) {
      const word = view.getUint32(at, true);
      a = Math.imul(a ^ word, 0x01000193);
      a ^= a >>> 15;
      b = Math.imul((b << 13) | (b >>> 19), 0x85ebca6b) ^ word;
    }
    prints[cell] = a;
    prints[cell + 1] = scramble(b);
  }
  return prints;
}
