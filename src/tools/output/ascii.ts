/** Long listings, put together as bytes: a million lines cost neither strings nor their encoding. */

const CAPACITY = 256 * 1024;
const LONGEST_LINE = 8 * 1024;
const BILLION = 1_000_000_000;
const ZERO = 48;
const BLANK = 32;
const HEX_DIGITS = bytesOf('0123456789abcdef');

/** A piece of text that is written often. */
export function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

export class AsciiText {
  readonly #write: (text: Uint8Array) => void;
  readonly #bytes = new Uint8Array(CAPACITY + LONGEST_LINE);
  #length = 0;

  /** Hands on what was written, in large pieces that are the receiver's to keep. */
  constructor(write: (text: Uint8Array) => void) {
    this.#write = write;
  }

  get length(): number {
    return this.#length;
  }

  /** To be called after each line; a line is at most 8 KiB long. */
  endLine(): void {
    if (this.#length >= CAPACITY) this.flush();
  }

  flush(): void {
    const text = this.#bytes.slice(0, this.#length);
    this.#length = 0;
    if (text.length > 0) this.#write(text);
  }

  put(piece: Uint8Array): void {
    const bytes = this.#bytes;
    let at = this.#length;
    for (let i = 0; i < piece.length; i++) bytes[at++] = piece[i] as number;
    this.#length = at;
  }

  /** A non-negative safe integer. */
  decimal(value: number): void {
    if (value < BILLION) {
      this.#digits(value, 1);
      return;
    }
    const high = Math.floor(value / BILLION);
    this.decimal(high);
    this.#digits(value - high * BILLION, 9);
  }

  /** As C's `%#x`: zero has no prefix. */
  hexadecimal(value: number): void {
    const bytes = this.#bytes;
    let digits = 1;
    for (let rest = value; rest >= 16; rest = Math.floor(rest / 16)) digits++;
    if (value !== 0) {
      bytes[this.#length++] = ZERO;
      bytes[this.#length++] = 120;
    }
    let rest = value;
    for (let at = this.#length + digits - 1; at >= this.#length; at--) {
      const above = Math.floor(rest / 16);
      bytes[at] = HEX_DIGITS[rest - above * 16] as number;
      rest = above;
    }
    this.#length += digits;
  }

  /** Blanks until `length` bytes were written. */
  padTo(length: number): void {
    while (this.#length < length) this.#bytes[this.#length++] = BLANK;
  }

  /** At least `width` digits of a number below 2^31. */
  #digits(value: number, width: number): void {
    const bytes = this.#bytes;
    let count = width;
    for (let bound = 10 ** width; bound <= value; bound *= 10) count++;
    let rest = value | 0;
    for (let at = this.#length + count - 1; at >= this.#length; at--) {
      const above = (rest / 10) | 0;
      bytes[at] = ZERO + (rest - above * 10);
      rest = above;
    }
    this.#length += count;
  }
}
