/**
 * Replies on their way out: what one piece of input gave is sent together (N-151), small frames and data in shared buffers,
 * large data from a pool.
 */
import type { ByteStream } from '../../core/byte-stream.ts';
import type { FilePlace } from '../../core/host-bulk.ts';

/** Data up to this many bytes go into the shared buffer, behind their header. */
export const INLINE_MAX = 32 * 1024;
/** Holds the answers to a usual batch of small reads, so that they go out by one call. */
const SLAB = 256 * 1024;
const SMALLEST = 16 * 1024;
/** Buffers kept for reuse, bytes. */
const POOL_MAX = 64 * 1024 * 1024;

/** Pieces up to this many bytes are copied into the shared buffer: by themselves they would cost more memory than they have bytes. */
const COPY_MAX = 4096;

const NOTHING = new Uint8Array(0);

/** Of a file's bytes that the system had no room for so much is copied at a time; when it has taken that, it has room again. */
const REST_PIECE = 128 * 1024;

/** Where replies go. */
export type Sink = Pick<ByteStream, 'write' | 'writeNow' | 'sendsFile' | 'sendFileNow' | 'destroy'>;

/** A range of a file whose bytes are to be sent, and the other way to read it, which copies: from `skip` bytes on. */
export interface FileRange {
  readonly place: FilePlace;
  readonly length: number;
  readNow(skip: number, target: Uint8Array): boolean;
  read(skip: number, target: Uint8Array): Promise<void>;
}

/** A shared buffer, given back when nobody needs it. */
interface Slab {
  readonly bytes: Uint8Array;
  /** One for the output that fills it, and one for each portion of what it holds that is not sent. */
  users: number;
}

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
  readonly #sink: Sink;
  readonly #pool: BufferPool;
  readonly #drained: () => void;
  #pieces: Uint8Array[] = [];
  /** Pool buffers and shared ones that the pieces lie in. */
  #lent: Uint8Array[] = [];
  #slabs: Slab[] = [];
  /** The one that is being filled. What it has left serves further portions, so that waiting ones hold no more than their bytes. */
  #slab: Slab | undefined;
  /** Where the slab's next free byte is, and where its bytes begin that are in no piece yet. */
  #used = 0;
  #begun = 0;
  /** Bytes gathered, and bytes handed over that the system has not taken. */
  #gathered = 0;
  #sent = 0;
  /** A file's bytes are going out; whatever is gathered meanwhile comes behind them. */
  #sendingFile = false;

  /** `drained` is called when the system has taken something later. */
  constructor(sink: Sink, pool: BufferPool, drained: () => void) {
    this.#sink = sink;
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

  /** Makes a place for `length` bytes, at most {@link INLINE_MAX} and some, behind what is there: where it is in {@link bytes}. */
  reserve(length: number): number {
    if (this.#slab === undefined || this.#used + length > this.#slab.bytes.length) this.#newSlab();
    const at = this.#used;
    this.#used += length;
    this.#gathered += length;
    return at;
  }

  /** The buffer in which the place is that was reserved last. */
  get bytes(): Uint8Array {
    return this.#slab?.bytes ?? NOTHING;
  }

  /** Gives back the end of what was reserved last. */
  unreserve(length: number): void {
    this.#used -= length;
    this.#gathered -= length;
  }

  /** Sends bytes that stay as they are; `buffer`, where given, goes back to the pool afterwards. */
  add(bytes: Uint8Array, buffer?: Uint8Array): void {
    if (bytes.length <= COPY_MAX) {
      const at = this.reserve(bytes.length);
      this.bytes.set(bytes, at);
      if (buffer !== undefined) this.#pool.give(buffer);
      return;
    }
    this.#closePiece();
    this.#pieces.push(bytes);
    this.#gathered += bytes.length;
    if (buffer !== undefined) this.#lent.push(buffer);
  }

  /** Part of a file could not be sent at once, and is waited for. */
  get sendingFile(): boolean {
    return this.#sendingFile;
  }

  /** Whether {@link sendFile} may be used for the range now. */
  sendsFile(place: FilePlace, length: number): boolean {
    return this.#sent === 0 && !this.#sendingFile && this.#sink.sendsFile?.(place, length) === true;
  }

  /** Sends what is gathered, and behind it bytes of a file. Undefined: they are sent; else resolves when they are. */
  sendFile(range: FileRange): Promise<void> | undefined {
    this.flush();
    const taken = this.#sent === 0 ? (this.#sink.sendFileNow?.(range.place, range.length) ?? 0) : 0;
    return taken === range.length ? undefined : this.#sendRest(range, taken);
  }

  /** Hands everything over. */
  flush(): void {
    if (this.#sendingFile) return;
    this.#closePiece();
    if (this.#pieces.length === 0) return;
    const [pieces, lent, slabs, bytes] = [this.#pieces, this.#lent, this.#slabs, this.#gathered];
    this.#pieces = [];
    this.#lent = [];
    this.#slabs = [];
    this.#gathered = 0;
    const taken = this.#sent === 0 ? (this.#sink.writeNow?.(pieces) ?? 0) : 0;
    if (taken === bytes) {
      this.#release(lent, slabs);
      return;
    }
    this.#sent += bytes - taken;
    this.#sink.write(withoutStart(pieces, taken), () => {
      this.#sent -= bytes - taken;
      this.#release(lent, slabs);
      this.#drained();
    });
  }

  async #sendRest(range: FileRange, taken: number): Promise<void> {
    const { place, length } = range;
    const waiting = length - taken;
    this.#sendingFile = true;
    this.#sent += waiting;
    try {
      for (let at = taken; at < length; ) {
        const lent = this.#pool.take(Math.min(REST_PIECE, length - at));
        const data = lent.subarray(0, Math.min(REST_PIECE, length - at));
        if (!range.readNow(at, data)) await range.read(at, data);
        await new Promise<void>((resolve) => this.#sink.write([data], resolve));
        this.#pool.give(lent);
        at += data.length;
        const next = { file: place.file, offset: place.offset + at };
        if (at < length && this.#sink.sendsFile?.(next, length - at)) {
          at += this.#sink.sendFileNow?.(next, length - at) ?? 0;
        }
      }
    } catch {
      // The head of the reply is out, and no other bytes may follow it.
      this.#sink.destroy();
    }
    this.#sendingFile = false;
    this.#sent -= waiting;
    this.flush();
    this.#drained();
  }

  #newSlab(): void {
    this.#closePiece();
    if (this.#slab !== undefined) this.#leave(this.#slab);
    this.#used = 0;
    this.#begun = 0;
    this.#slab = { bytes: this.#pool.take(SLAB), users: 1 };
  }

  #closePiece(): void {
    const slab = this.#slab;
    if (slab === undefined || this.#used === this.#begun) return;
    this.#pieces.push(slab.bytes.subarray(this.#begun, this.#used));
    this.#begun = this.#used;
    if (this.#slabs.at(-1) === slab) return;
    slab.users++;
    this.#slabs.push(slab);
  }

  #release(lent: readonly Uint8Array[], slabs: readonly Slab[]): void {
    for (const buffer of lent) this.#pool.give(buffer);
    for (const slab of slabs) this.#leave(slab);
    const slab = this.#slab;
    // Nothing in it is needed: an idle connection holds no memory.
    if (slab === undefined || slab.users > 1 || this.#used > this.#begun) return;
    this.#slab = undefined;
    this.#leave(slab);
  }

  #leave(slab: Slab): void {
    if (--slab.users === 0) this.#pool.give(slab.bytes);
  }
}

function withoutStart(pieces: readonly Uint8Array[], bytes: number): readonly Uint8Array[] {
  if (bytes === 0) return pieces;
  let skip = bytes;
  const left: Uint8Array[] = [];
  for (const piece of pieces) {
    if (skip < piece.length) left.push(piece.subarray(skip));
    skip = Math.max(0, skip - piece.length);
  }
  return left;
}
