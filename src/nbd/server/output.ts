/**
 * Replies on their way out: what one piece of input gave is sent together (N-151), small frames and data in shared buffers,
 * large data from a pool.
 */

/** Data up to this many bytes go into the shared buffer, behind their header. */
export const INLINE_MAX = 32 * 1024;
/** Holds the answers to a usual batch of small reads, so that they go out by one call. */
const SLAB = 256 * 1024;
const SMALLEST = 16 * 1024;
/** Buffers kept for reuse, bytes. */
const POOL_MAX = 64 * 1024 * 1024;

/** Sends pieces in order; `done` when they are the system's. */
export type Send = (pieces: readonly Uint8Array[], done: () => void) => void;

export class BufferPool {
  readonly #free = new Map<number, Uint8Array[]>();
  #bytes = 0;

  /** At least `length` bytes, whose content is anything. */
  take(length: number): Uint8Array {
    const size = 2 ** Math.ceil(Math.log2(Math.max(length, SMALLEST)));
    const found = this.#free.get(size)?.pop();
    if (found === undefined) return new Uint8Array(size);
    this.#bytes -= size;
    return found;
  }

  give(buffer: Uint8Array): void {
    if (this.#bytes + buffer.length > POOL_MAX) return;
    this.#bytes += buffer.length;
    const list = this.#free.get(buffer.length);
    if (list === undefined) this.#free.set(buffer.length, [buffer]);
    else list.push(buffer);
  }
}

export class Output {
  readonly #send: Send;
  readonly #pool: BufferPool;
  readonly #drained: () => void;
  #pieces: Uint8Array[] = [];
  /** Pool buffers that the pieces lie in. */
  #lent: Uint8Array[] = [];
  #slab: Uint8Array | undefined;
  /** Where the slab's next free byte is, and where its bytes begin that are in no piece yet. */
  #used = 0;
  #begun = 0;
  /** Bytes gathered, and bytes handed over that the system has not taken. */
  #gathered = 0;
  #sent = 0;

  /** `drained` is called when the system has taken something. */
  constructor(send: Send, pool: BufferPool, drained: () => void) {
    this.#send = send;
    this.#pool = pool;
    this.#drained = drained;
  }

  /** Bytes that are not handed over yet. */
  get gathered(): number {
    return this.#gathered;
  }

  /** Bytes that the system has not taken. */
  get waiting(): number {
    return this.#gathered + this.#sent;
  }

  /** A place for `length` bytes, at most {@link INLINE_MAX} and some, behind what is there. */
  reserve(length: number): Uint8Array {
    let slab = this.#slab;
    if (slab === undefined || this.#used + length > slab.length) slab = this.#newSlab();
    const place = slab.subarray(this.#used, this.#used + length);
    this.#used += length;
    this.#gathered += length;
    return place;
  }

  /** Gives back the end of what was reserved last. */
  unreserve(length: number): void {
    this.#used -= length;
    this.#gathered -= length;
  }

  /** Sends bytes that stay as they are; `buffer`, where given, goes back to the pool afterwards. */
  add(bytes: Uint8Array, buffer?: Uint8Array): void {
    this.#closePiece();
    this.#pieces.push(bytes);
    this.#gathered += bytes.length;
    if (buffer !== undefined) this.#lent.push(buffer);
  }

  /** Hands everything over. */
  flush(): void {
    this.#closePiece();
    if (this.#pieces.length === 0) return;
    const [pieces, lent] = [this.#pieces, this.#lent];
    if (this.#slab !== undefined) lent.push(this.#slab);
    this.#slab = undefined;
    this.#used = 0;
    this.#begun = 0;
    this.#pieces = [];
    this.#lent = [];
    const bytes = this.#gathered;
    this.#gathered = 0;
    this.#sent += bytes;
    this.#send(pieces, () => {
      this.#sent -= bytes;
      for (const buffer of lent) this.#pool.give(buffer);
      this.#drained();
    });
  }

  #newSlab(): Uint8Array {
    this.#closePiece();
    if (this.#slab !== undefined) this.#lent.push(this.#slab);
    this.#used = 0;
    this.#begun = 0;
    this.#slab = this.#pool.take(SLAB);
    return this.#slab;
  }

  #closePiece(): void {
    if (this.#slab === undefined || this.#used === this.#begun) return;
    this.#pieces.push(this.#slab.subarray(this.#begun, this.#used));
    this.#begun = this.#used;
  }
}
