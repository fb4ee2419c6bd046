/** Files that keep in memory what is written to them and change nothing, so that a repair can be tried out. */
import type { Child, DriverNode, OpenContext, TruncateOptions, ZeroFlags } from './driver.ts';
import { BlockError } from './errors.ts';
import type { BlockNode } from './node.ts';
import * as request from './request.ts';

/** Bytes of what is written that are kept together. */
const PAGE = 4096;
const ZEROES = new Uint8Array(PAGE);
const MEMORY = 64 << 20;

/** The files of one rehearsal. */
export class Rehearsal {
  /** Why it could not go on. */
  failure: BlockError | undefined;
  readonly #files = new Map<Child, UnwrittenFile>();
  readonly #pagesMax: number;
  #pages = 0;

  /** `memory`: bytes that may be kept. */
  constructor(memory: number) {
    this.#pagesMax = Math.floor(memory / PAGE);
  }

  /** What a driver opens its image anew with: for writing, and for nothing but a check. */
  context<O>(context: OpenContext<O>): OpenContext<O> {
    const { options, backingGiven, host, hostContext, node, autoReadOnly, namedByImage, cache, discard, file } =
      context;
    return {
      ...{ options, backingGiven, host, hostContext, node, autoReadOnly, namedByImage, cache, discard },
      file: this.#over(file),
      child: (name) => {
        const child = context.child(name);
        return child === undefined || name === 'backing' ? child : this.#over(child);
      },
      childInfo: (name) => context.childInfo(name),
      async openNamed() {},
      event: () => undefined,
      track() {},
      eventsHeard: () => false,
      writable: true,
      inactive: false,
      noIO: false,
      checkOnly: true,
      salvage: false,
      signal: undefined,
    };
  }

  #over(child: Child): Child {
    const file = this.#files.get(child) ?? new UnwrittenFile(child, () => this.#take());
    this.#files.set(child, file);
    return file;
  }

  /** Room for a page. Throws BlockError ENOMEM. */
  #take(): void {
    if (this.#pages < this.#pagesMax) {
      this.#pages++;
      return;
    }
    const text = `Planning the repair takes more than ${this.#pagesMax * PAGE} bytes of memory for what it would write`;
    this.failure ??= new BlockError('ENOMEM', text);
    throw this.failure;
  }
}

/** What is checked in a rehearsal. */
export type RehearsedImage = Pick<DriverNode, 'check'>;

/**
 * Opens the image of a node once more, over files that keep in memory what is written, for `work`. The node itself is
 * alone, and stays as it is. `memory`: bytes that what is written may take, default 64 MiB. Throws BlockError ENOTSUP where
 * the format has no repairs, ENOMEM where the memory does not suffice, and what `work` throws.
 */
export async function rehearse<T>(
  node: BlockNode,
  work: (image: RehearsedImage) => Promise<T>,
  memory = MEMORY,
): Promise<T> {
  const { impl } = node;
  if (impl.rehearse === undefined) {
    throw new BlockError('ENOTSUP', 'This image format does not support repairs', { node: node.name });
  }
  // What is repaired is the image as it is stored.
  if (node.writable) await request.flush(node);
  const files = new Rehearsal(memory);
  try {
    const image = await impl.rehearse(files);
    const result = await work(image);
    await image.close?.();
    if (files.failure === undefined) return result;
  } catch (error) {
    if (files.failure === undefined) throw error;
  }
  // Where a driver goes on without what it could not write, nothing that it tells is right.
  throw files.failure;
}

class UnwrittenFile implements Child {
  readonly writable = true;
  readonly #below: Child;
  readonly #take: () => void;
  readonly #pages = new Map<number, Uint8Array>();
  #length: number;
  /** What is below shows up to here. */
  #shown: number;

  constructor(below: Child, take: () => void) {
    this.#below = below;
    this.#take = take;
    this.#length = below.length();
    this.#shown = this.#length;
  }

  get name(): string {
    return this.#below.name;
  }

  get growable(): boolean {
    return this.#below.growable;
  }

  length(): number {
    return this.#length;
  }

  filename(): string {
    return this.#below.filename();
  }

  limits() {
    return this.#below.limits();
  }

  allocatedSize(): number | undefined {
    return this.#below.allocatedSize();
  }

  zeroInit(): boolean {
    return this.#below.zeroInit();
  }

  takesFua(): boolean {
    return true;
  }

  tryReadNow(offset: number, target: Uint8Array): boolean {
    const end = offset + target.length;
    if (end > this.#shown) return false;
    for (let page = pageOf(offset); page * PAGE < end; page++) if (this.#pages.has(page)) return false;
    return this.#below.tryReadNow(offset, target);
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    const shown = Math.max(0, Math.min(target.length, this.#shown - offset));
    if (shown > 0) await this.#below.read(offset, target.subarray(0, shown));
    target.fill(0, shown);
    for (const { page, at, piece } of piecesOf(offset, target)) {
      const kept = this.#pages.get(page);
      if (kept !== undefined) piece.set(kept.subarray(at, at + piece.length));
    }
  }

  tryWriteNow(): boolean {
    return false;
  }

  async write(offset: number, source: Uint8Array): Promise<void> {
    const end = offset + source.length;
    if (end > this.#length && !this.growable) throw new BlockError('ENOSPC', 'No space left on device');
    for (const { page, at, piece } of piecesOf(offset, source)) {
      (await this.#ownPage(page, piece.length)).set(piece, at);
    }
    this.#length = Math.max(this.#length, end);
  }

  /** The page to be changed. `length`: bytes that will be; of a whole one nothing need be there. */
  async #ownPage(page: number, length: number): Promise<Uint8Array> {
    const kept = this.#pages.get(page);
    if (kept !== undefined && kept !== ZEROES) return kept;
    const bytes = new Uint8Array(PAGE);
    if (kept === undefined && length < PAGE) await this.read(page * PAGE, bytes);
    // Another write may have been here meanwhile.
    const other = this.#pages.get(page);
    if (other !== undefined && other !== ZEROES) return other;
    if (other === undefined) this.#take();
    this.#pages.set(page, bytes);
    return bytes;
  }

  async writeZeroes(offset: number, length: number, _flags?: ZeroFlags): Promise<void> {
    for (let done = 0; done < length; ) {
      const [page, at] = [pageOf(offset + done), (offset + done) % PAGE];
      const part = Math.min(PAGE - at, length - done);
      if (part < PAGE) await this.write(offset + done, ZEROES.subarray(0, part));
      else {
        if (!this.#pages.has(page)) this.#take();
        this.#pages.set(page, ZEROES);
      }
      done += part;
    }
    this.#length = Math.max(this.#length, offset + length);
  }

  /** A hint. */
  async discard(): Promise<void> {}

  async flush(): Promise<void> {}

  async truncate(length: number, _options?: TruncateOptions): Promise<void> {
    if (length < this.#length) {
      const last = this.#pages.get(pageOf(length));
      if (last !== ZEROES) last?.fill(0, length % PAGE);
      for (const page of this.#pages.keys()) if (page * PAGE >= length) this.#pages.delete(page);
      this.#shown = Math.min(this.#shown, length);
    }
    this.#length = length;
  }
}

function pageOf(offset: number): number {
  return Math.floor(offset / PAGE);
}

interface Piece {
  readonly page: number;
  /** Where it begins in its page. */
  readonly at: number;
  readonly piece: Uint8Array;
}

function* piecesOf(offset: number, bytes: Uint8Array): Generator<Piece> {
  for (let done = 0; done < bytes.length; ) {
    const at = (offset + done) % PAGE;
    const piece = bytes.subarray(done, done + PAGE - at);
    yield { page: pageOf(offset + done), at, piece };
    done += piece.length;
  }
}
