/** The plainest disk there is: bytes in memory. What drivers are compared with. */

/** A disk as a plain array of bytes, which always does what it is told. */
export class ModelDisk {
  #bytes: Uint8Array;

  constructor(length: number) {
    this.#bytes = new Uint8Array(length);
  }

  get length(): number {
    return this.#bytes.length;
  }

  /** The content itself, not a copy. */
  get bytes(): Uint8Array {
    return this.#bytes;
  }

  read(offset: number, length: number): Uint8Array {
    return this.#bytes.slice(offset, offset + length);
  }

  write(offset: number, source: Uint8Array): void {
    this.#bytes.set(source, offset);
  }

  writeZeroes(offset: number, length: number): void {
    this.#bytes.fill(0, offset, offset + length);
  }

  /** What is added reads as zeroes. */
  truncate(length: number): void {
    const bytes = new Uint8Array(length);
    bytes.set(this.#bytes.subarray(0, length));
    this.#bytes = bytes;
  }
}
