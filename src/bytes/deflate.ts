/** Raw deflate (RFC 1951) with a window of 4096 bytes, for hosts without a faster way. */
import { CODE_ORDER, DISTANCE_BASE, distanceExtra, fixedLengths, LENGTH_BASE, LENGTH_EXTRA } from './deflate-codes.ts';
import { bestCode, codeOf, type PrefixCode } from './prefix-code.ts';

const WINDOW = 4096;
const SHORTEST = 3;
const LONGEST = 258;
/** Places that are looked at for a match; fewer when there is a good one already. */
const CHAIN = 128;
const GOOD = 8;
/** With a match so long no better one is looked for: at the same place, and at the next. */
const NICE = 128;
const LAZY = 16;
const HASH_BITS = 15;
/** Literals and matches of one block. */
const BLOCK_TOKENS = 16384;
const STORED_MAX = 65535;
const END_OF_BLOCK = 256;
const LITERALS = 286;
const DISTANCES = 30;

/** Tables and memory that all calls use; none of them waits. */
interface Scratch {
  readonly head: Int32Array;
  readonly previous: Int32Array;
  /** A literal, or a length above 16 bits of distance. */
  readonly tokens: Uint32Array;
  readonly lengthSymbols: Uint8Array;
  readonly distanceSymbols: Uint8Array;
}

let scratch: Scratch | undefined;

function makeScratch(): Scratch {
  const symbols = (size: number, bases: readonly number[]) => {
    const table = new Uint8Array(size);
    for (const [symbol, base] of bases.entries()) if (base < size) table.fill(symbol, base);
    return table;
  };
  return {
    head: new Int32Array(2 ** HASH_BITS),
    previous: new Int32Array(WINDOW),
    tokens: new Uint32Array(BLOCK_TOKENS),
    lengthSymbols: symbols(LONGEST + 1, LENGTH_BASE),
    distanceSymbols: symbols(WINDOW + 1, DISTANCE_BASE),
  };
}

/** Compresses into `target`; the bytes it takes there, or -1 where it does not fit. */
export function deflateRaw(source: Uint8Array, target: Uint8Array): number {
  scratch ??= makeScratch();
  return new Deflater(source, target, scratch).run();
}

class Deflater {
  readonly #source: Uint8Array;
  readonly #target: Uint8Array;
  readonly #scratch: Scratch;
  #at = 0;
  #bits = 0;
  #held = 0;
  /** Tokens of the block, and where it begins. */
  #count = 0;
  #blockStart = 0;

  constructor(source: Uint8Array, target: Uint8Array, memory: Scratch) {
    this.#source = source;
    this.#target = target;
    this.#scratch = memory;
  }

  run(): number {
    this.#scratch.head.fill(-1);
    this.#findTokens();
    this.#endBlock(this.#source.length, true);
    this.#alignToByte();
    return this.#at <= this.#target.length ? this.#at : -1;
  }

  /** Literals and matches; a match gives way to a longer one at the next byte. */
  #findTokens(): void {
    const source = this.#source;
    let pendingLength = 0;
    let pendingDistance = 0;
    let at = 0;
    while (at < source.length) {
      const found = pendingLength < LAZY ? this.#longest(at, pendingLength) : 0;
      const length = Math.floor(found / 65536);
      this.#insert(at);
      if (pendingLength >= SHORTEST && length <= pendingLength) {
        this.#token(pendingLength * 65536 + pendingDistance, at - 1 + pendingLength);
        const end = at - 1 + pendingLength;
        for (at++; at < end; at++) this.#insert(at);
        pendingLength = 0;
        pendingDistance = -1;
        continue;
      }
      if (at > 0 && pendingDistance >= 0) this.#token(source[at - 1] ?? 0, at);
      pendingLength = length;
      pendingDistance = found % 65536;
      at++;
    }
    if (source.length === 0 || pendingDistance < 0) return;
    if (pendingLength >= SHORTEST) this.#token(pendingLength * 65536 + pendingDistance, at);
    else this.#token(source[at - 1] ?? 0, at);
  }

  #token(token: number, end: number): void {
    this.#scratch.tokens[this.#count++] = token;
    if (this.#count === BLOCK_TOKENS) this.#endBlock(end, false);
  }

  #hash(at: number): number {
    const source = this.#source;
    const three = ((source[at] ?? 0) << 16) | ((source[at + 1] ?? 0) << 8) | (source[at + 2] ?? 0);
    return Math.imul(three, 0x9e3779b1) >>> (32 - HASH_BITS);
  }

  #insert(at: number): void {
    if (at + SHORTEST > this.#source.length) return;
    const { head, previous } = this.#scratch;
    const hash = this.#hash(at);
    previous[at % WINDOW] = head[hash] ?? -1;
    head[hash] = at;
  }

  /** The longest match at `at` that is longer than `atLeast`: its length above 16 bits of distance; 0: none. */
  #longest(at: number, atLeast: number): number {
    const source = this.#source;
    const { head, previous } = this.#scratch;
    const limit = Math.min(LONGEST, source.length - at);
    if (limit < SHORTEST) return 0;
    let best = Math.max(SHORTEST - 1, atLeast);
    let found = 0;
    let place = head[this.#hash(at)] ?? -1;
    const lowest = at - WINDOW;
    for (let left = atLeast >= GOOD ? CHAIN / 4 : CHAIN; place >= 0 && place >= lowest && left > 0; left--) {
      if (best >= limit) break;
      if (source[place + best] === source[at + best] && source[place] === source[at]) {
        let length = 0;
        while (length < limit && source[place + length] === source[at + length]) length++;
        if (length > best) {
          best = length;
          found = length * 65536 + (at - place);
          if (length >= NICE) break;
        }
      }
      const next = previous[place % WINDOW] ?? -1;
      // Older entries have been written over.
      if (next >= place) break;
      place = next;
    }
    return found;
  }

  /** Writes the block that ends before byte `end` of the source, in the shortest way. */
  #endBlock(end: number, last: boolean): void {
    const literals = new Uint32Array(LITERALS);
    const distances = new Uint32Array(DISTANCES);
    const extra = this.#countSymbols(literals, distances);
    const literalCode = bestCode(literals, 15);
    const distanceCode = bestCode(distances, 15);
    const head = new CodeLengths(literalCode.lengths, distanceCode.lengths);
    const dynamic =
      17 + head.bits + extra + cost(literals, literalCode.lengths) + cost(distances, distanceCode.lengths);
    const fixed = 3 + extra + cost(literals, fixedLengths()) + cost(distances, new Uint8Array(DISTANCES).fill(5));
    const length = end - this.#blockStart;
    const stored = 8 * length + 42 * Math.max(1, Math.ceil(length / STORED_MAX));
    if (stored < dynamic && stored < fixed) this.#store(end, last);
    else {
      const isFixed = fixed <= dynamic;
      this.#put(last ? 1 : 0, 1);
      this.#put(isFixed ? 1 : 2, 2);
      if (!isFixed) head.write((value, bits) => this.#put(value, bits));
      this.#putTokens(
        isFixed ? codeOf(fixedLengths()) : literalCode,
        isFixed ? codeOf(new Uint8Array(DISTANCES).fill(5)) : distanceCode,
      );
    }
    this.#blockStart = end;
    this.#count = 0;
  }

  /** Bits of what stands beside the codes. */
  #countSymbols(literals: Uint32Array, distances: Uint32Array): number {
    const { tokens, lengthSymbols, distanceSymbols } = this.#scratch;
    let extra = 0;
    for (let i = 0; i < this.#count; i++) {
      const token = tokens[i] ?? 0;
      const length = token >>> 16;
      if (length === 0) {
        literals[token] = (literals[token] ?? 0) + 1;
        continue;
      }
      const symbol = lengthSymbols[length] ?? 0;
      const distance = distanceSymbols[token & 0xffff] ?? 0;
      literals[257 + symbol] = (literals[257 + symbol] ?? 0) + 1;
      distances[distance] = (distances[distance] ?? 0) + 1;
      extra += (LENGTH_EXTRA[symbol] ?? 0) + distanceExtra(distance);
    }
    literals[END_OF_BLOCK] = 1;
    return extra;
  }

  #putTokens(literals: PrefixCode, distances: PrefixCode): void {
    const { tokens, lengthSymbols, distanceSymbols } = this.#scratch;
    const put = (code: PrefixCode, symbol: number) => this.#put(code.bits[symbol] ?? 0, code.lengths[symbol] ?? 0);
    for (let i = 0; i < this.#count; i++) {
      const token = tokens[i] ?? 0;
      const length = token >>> 16;
      if (length === 0) {
        put(literals, token);
        continue;
      }
      const symbol = lengthSymbols[length] ?? 0;
      put(literals, 257 + symbol);
      this.#put(length - (LENGTH_BASE[symbol] ?? 0), LENGTH_EXTRA[symbol] ?? 0);
      const distance = token & 0xffff;
      const distanceSymbol = distanceSymbols[distance] ?? 0;
      put(distances, distanceSymbol);
      this.#put(distance - (DISTANCE_BASE[distanceSymbol] ?? 0), distanceExtra(distanceSymbol));
    }
    put(literals, END_OF_BLOCK);
  }

  #store(end: number, last: boolean): void {
    let at = this.#blockStart;
    do {
      const length = Math.min(STORED_MAX, end - at);
      this.#put(last && at + length === end ? 1 : 0, 3);
      this.#alignToByte();
      this.#put(length, 16);
      this.#put(length ^ 0xffff, 16);
      if (this.#at + length <= this.#target.length) this.#target.set(this.#source.subarray(at, at + length), this.#at);
      this.#at += length;
      at += length;
    } while (at < end);
  }

  /** At most 16 bits, lowest first. What does not fit is counted. */
  #put(value: number, bits: number): void {
    this.#bits |= value << this.#held;
    this.#held += bits;
    while (this.#held >= 8) {
      if (this.#at < this.#target.length) this.#target[this.#at] = this.#bits;
      this.#at++;
      this.#bits >>>= 8;
      this.#held -= 8;
    }
  }

  #alignToByte(): void {
    if (this.#held > 0) this.#put(0, 8 - this.#held);
  }
}

function cost(frequencies: Uint32Array, lengths: Uint8Array): number {
  let bits = 0;
  for (let symbol = 0; symbol < frequencies.length; symbol++) {
    bits += (frequencies[symbol] ?? 0) * (lengths[symbol] ?? 0);
  }
  return bits;
}

interface LengthRun {
  readonly symbol: number;
  readonly extra: number;
}

/** How the lengths of both codes are stored: runs of them, in a code of their own. */
class CodeLengths {
  readonly #runs: readonly LengthRun[];
  readonly #code: PrefixCode;
  readonly #literals: number;
  readonly #distances: number;
  readonly #stored: number;

  constructor(literals: Uint8Array, distances: Uint8Array) {
    this.#literals = usedLength(literals, 257);
    this.#distances = usedLength(distances, 1);
    this.#runs = runsOf([...literals.subarray(0, this.#literals), ...distances.subarray(0, this.#distances)]);
    const frequencies = new Uint32Array(19);
    for (const { symbol } of this.#runs) frequencies[symbol] = (frequencies[symbol] ?? 0) + 1;
    this.#code = bestCode(frequencies, 7);
    let stored = CODE_ORDER.length;
    while (stored > 4 && this.#code.lengths[CODE_ORDER[stored - 1] ?? 0] === 0) stored--;
    this.#stored = stored;
  }

  /** Without the 14 bits of the three counts. */
  get bits(): number {
    const runs = this.#runs.reduce((sum, { symbol }) => sum + (this.#code.lengths[symbol] ?? 0) + extraBits(symbol), 0);
    return 3 * this.#stored + runs;
  }

  write(put: (value: number, bits: number) => void): void {
    put(this.#literals - 257, 5);
    put(this.#distances - 1, 5);
    put(this.#stored - 4, 4);
    for (const symbol of CODE_ORDER.slice(0, this.#stored)) put(this.#code.lengths[symbol] ?? 0, 3);
    for (const { symbol, extra } of this.#runs) {
      put(this.#code.bits[symbol] ?? 0, this.#code.lengths[symbol] ?? 0);
      put(extra, extraBits(symbol));
    }
  }
}

function usedLength(lengths: Uint8Array, least: number): number {
  let used = lengths.length;
  while (used > least && lengths[used - 1] === 0) used--;
  return used;
}

function extraBits(symbol: number): number {
  return symbol < 16 ? 0 : ([2, 3, 7][symbol - 16] ?? 0);
}

function runsOf(lengths: readonly number[]): LengthRun[] {
  const runs: LengthRun[] = [];
  for (let at = 0; at < lengths.length; ) {
    const length = lengths[at] ?? 0;
    let end = at + 1;
    while (lengths[end] === length) end++;
    if (length > 0) {
      runs.push({ symbol: length, extra: 0 });
      at++;
    }
    while (end - at >= 3) {
      const count = Math.min(end - at, length > 0 ? 6 : 138);
      if (length > 0) runs.push({ symbol: 16, extra: count - 3 });
      else if (count <= 10) runs.push({ symbol: 17, extra: count - 3 });
      else runs.push({ symbol: 18, extra: count - 11 });
      at += count;
    }
    for (; at < end; at++) runs.push({ symbol: length, extra: 0 });
  }
  return runs;
}
