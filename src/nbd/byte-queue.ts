/**
 * Input that arrives in pieces of any size, and is taken in pieces that its meaning asks for. Holds views of what came in,
 * and copies only what spans two pieces (N-152).
 */
export class ByteQueue {
  #chunks: Uint8Array[] = [];
  /** Bytes of the first chunk that are used up. */
  #start = 0;
  #length = 0;

  /** Bytes that are there. */
  get length(): number {
    return this.#length;
  }

  push(chunk: Uint8Array): void {
    if (chunk.length === 0) return;
    this.#chunks.push(chunk);
    this.#length += chunk.length;
  }

  /** The first `count` bytes, kept there; undefined when there are fewer. A view where they lie in one piece. */
  peek(count: number): Uint8Array | undefined {
    if (this.#length < count) return undefined;
    const first = this.#chunks[0];
    if (first !== undefined && first.length - this.#start >= count) {
      return first.subarray(this.#start, this.#start + count);
    }
    const joined = new Uint8Array(count);
    this.#copy(joined);
    return joined;
  }

  /**
   * A piece that has the first `count` bytes from {@link start} on, kept there; undefined when there are fewer. No view is
   * made, which costs more than all else that is done with a short frame.
   */
  pieceOf(count: number): Uint8Array | undefined {
    if (this.#length < count) return undefined;
    const first = this.#chunks[0];
    if (first !== undefined && first.length - this.#start >= count) return first;
    const joined = this.take(count);
    if (joined === undefined) return undefined;
    if (this.#start > 0) this.#chunks[0] = this.#chunks[0]?.subarray(this.#start) ?? joined;
    this.#start = 0;
    this.#chunks.unshift(joined);
    this.#length += count;
    return joined;
  }

  /** Where in the first piece the first byte is. */
  get start(): number {
    return this.#start;
  }

  /** Takes `count` bytes out; undefined, and nothing is taken, when there are fewer. */
  take(count: number): Uint8Array | undefined {
    const bytes = this.peek(count);
    if (bytes !== undefined) this.skip(count);
    return bytes;
  }

  /** Takes as many bytes as there are, at most as `target` holds, into it. Returns how many. */
  takeInto(target: Uint8Array): number {
    const count = Math.min(target.length, this.#length);
    this.#copy(target.subarray(0, count));
    this.skip(count);
    return count;
  }

  /** Drops at most `count` bytes. Returns how many. */
  skip(count: number): number {
    const first = this.#chunks[0];
    if (first !== undefined && count < first.length - this.#start) {
      this.#start += count;
      this.#length -= count;
      return count;
    }
    const dropped = Math.min(count, this.#length);
    let left = dropped;
    this.#length -= dropped;
    let whole = 0;
    for (; left > 0; whole++) {
      const inFirst = (this.#chunks[whole]?.length ?? 0) - this.#start;
      if (left < inFirst) {
        this.#start += left;
        break;
      }
      left -= inFirst;
      this.#start = 0;
    }
    if (whole > 0) this.#chunks.splice(0, whole);
    return dropped;
  }

  #copy(target: Uint8Array): void {
    let done = 0;
    let start = this.#start;
    for (const chunk of this.#chunks) {
      if (done === target.length) return;
      const part = chunk.subarray(start, start + target.length - done);
      target.set(part, done);
      done += part.length;
      start = 0;
    }
  }
}
