/** Raw deflate (RFC 1951) into a buffer of known length, for hosts without a faster way. Decoding ends when the buffer is full. */
import {
  CODE_ORDER,
  DISTANCE_BASE,
  distanceExtra,
  fixedLengths,
  LENGTH_BASE,
  LENGTH_EXTRA,
  reverse,
} from './deflate-codes.ts';

const MAX_BITS = 15;
/** A prefix code as a table: index by the next bits, get symbol * 16 + length; 0: no such code. */
interface Code {
  readonly table: Uint16Array;
  readonly bits: number;
}

/** Undefined: the lengths are of no prefix code. An incomplete code is taken; its gaps have no symbols. */
function makeCode(lengths: Uint8Array): Code | undefined {
  const count = new Uint16Array(MAX_BITS + 1);
  let bits = 1;
  for (const length of lengths) {
    count[length] = (count[length] ?? 0) + 1;
    if (length > bits) bits = length;
  }
  const next = new Uint32Array(MAX_BITS + 2);
  let code = 0;
  count[0] = 0;
  for (let length = 1; length <= MAX_BITS; length++) {
    code = (code + (count[length - 1] ?? 0)) << 1;
    next[length] = code;
    if (code + (count[length] ?? 0) > 2 ** length) return undefined;
  }
  const table = new Uint16Array(2 ** bits);
  for (let symbol = 0; symbol < lengths.length; symbol++) {
    const length = lengths[symbol] ?? 0;
    if (length === 0) continue;
    const own = next[length] ?? 0;
    next[length] = own + 1;
    for (let at = reverse(own, length); at < table.length; at += 2 ** length) table[at] = symbol * 16 + length;
  }
  return { table, bits };
}

let fixed: { readonly literals: Code | undefined; readonly distances: Code | undefined } | undefined;

class BadStream extends Error {}

class Inflater {
  readonly #source: Uint8Array;
  readonly #target: Uint8Array;
  #at = 0;
  #bits = 0;
  #held = 0;
  #length = 0;

  constructor(source: Uint8Array, target: Uint8Array) {
    this.#source = source;
    this.#target = target;
  }

  /** Bytes that were decoded. Throws BadStream. */
  run(): number {
    for (let last = false; !last && this.#length < this.#target.length; ) {
      last = this.#take(1) === 1;
      const type = this.#take(2);
      if (type === 0) this.#stored();
      else if (type === 1) {
        fixed ??= { literals: makeCode(fixedLengths()), distances: makeCode(new Uint8Array(30).fill(5)) };
        this.#coded(fixed.literals, fixed.distances);
      } else if (type === 2) this.#dynamic();
      else throw new BadStream();
    }
    return this.#length;
  }

  #take(count: number): number {
    while (this.#held < count) {
      if (this.#at >= this.#source.length) throw new BadStream();
      this.#bits |= (this.#source[this.#at++] ?? 0) << this.#held;
      this.#held += 8;
    }
    const value = this.#bits & (2 ** count - 1);
    this.#bits >>>= count;
    this.#held -= count;
    return value;
  }

  #symbol({ table, bits }: Code): number {
    // Past the end there are zero bits, which must not become part of a symbol.
    while (this.#held < bits && this.#at < this.#source.length) {
      this.#bits |= (this.#source[this.#at++] ?? 0) << this.#held;
      this.#held += 8;
    }
    const entry = table[this.#bits & (2 ** bits - 1)] ?? 0;
    const length = entry & 15;
    if (length === 0 || length > this.#held) throw new BadStream();
    this.#bits >>>= length;
    this.#held -= length;
    return entry >>> 4;
  }

  #stored(): void {
    // Whole bytes that are held already go back.
    this.#at -= this.#held >>> 3;
    this.#bits = 0;
    this.#held = 0;
    const length = this.#take(16);
    if (length !== (this.#take(16) ^ 0xffff)) throw new BadStream();
    const part = this.#source.subarray(this.#at, this.#at + Math.min(length, this.#target.length - this.#length));
    this.#target.set(part, this.#length);
    this.#length += part.length;
    this.#at += length;
    if (this.#at > this.#source.length && this.#length < this.#target.length) throw new BadStream();
  }

  #dynamic(): void {
    const literals = this.#take(5) + 257;
    const distances = this.#take(5) + 1;
    const codes = this.#take(4) + 4;
    const codeLengths = new Uint8Array(19);
    for (let i = 0; i < codes; i++) codeLengths[CODE_ORDER[i] ?? 0] = this.#take(3);
    const code = makeCode(codeLengths);
    if (code === undefined || literals > 286) throw new BadStream();
    const lengths = new Uint8Array(literals + distances);
    for (let i = 0; i < lengths.length; ) {
      const symbol = this.#symbol(code);
      if (symbol < 16) {
        lengths[i++] = symbol;
        continue;
      }
      if (symbol === 16 && i === 0) throw new BadStream();
      const value = symbol === 16 ? (lengths[i - 1] ?? 0) : 0;
      const repeat = symbol === 16 ? 3 + this.#take(2) : symbol === 17 ? 3 + this.#take(3) : 11 + this.#take(7);
      if (i + repeat > lengths.length) throw new BadStream();
      lengths.fill(value, i, i + repeat);
      i += repeat;
    }
    this.#coded(makeCode(lengths.subarray(0, literals)), makeCode(lengths.subarray(literals)));
  }

  #coded(literals: Code | undefined, distances: Code | undefined): void {
    if (literals === undefined || distances === undefined) throw new BadStream();
    const target = this.#target;
    while (this.#length < target.length) {
      const symbol = this.#symbol(literals);
      if (symbol < 256) {
        target[this.#length++] = symbol;
        continue;
      }
      if (symbol === 256) return;
      const length = this.#extended(LENGTH_BASE[symbol - 257], LENGTH_EXTRA[symbol - 257]);
      const code = this.#symbol(distances);
      const distance = this.#extended(DISTANCE_BASE[code], distanceExtra(code));
      if (distance > this.#length) throw new BadStream();
      const end = Math.min(target.length, this.#length + length);
      for (let at = this.#length; at < end; at++) target[at] = target[at - distance] ?? 0;
      this.#length = end;
    }
  }

  #extended(base: number | undefined, extra: number | undefined): number {
    if (base === undefined) throw new BadStream();
    return base + this.#take(extra ?? 0);
  }
}

/** Fills `target` from a raw deflate stream; whatever follows is ignored. False: the stream is bad, or holds fewer bytes. */
export function inflateRaw(source: Uint8Array, target: Uint8Array): boolean {
  try {
    return new Inflater(source, target).run() === target.length;
  } catch (error) {
    if (error instanceof BadStream) return false;
    throw error;
  }
}
