/** A host file over a file descriptor. */
import fs from 'node:fs';
import { constants } from 'node:os';
import { BlockError, codeOf, errorText } from '../core/errors.ts';
import type { HostContext, HostExtent, HostFile, HostFileKind, LockHolder } from '../core/host.ts';
import type { AlignedMemory } from './aligned.ts';
import type { BlockingCalls } from './calls.ts';
import { NodeContext } from './context.ts';
import { NOT_SUPPORTED, systemError } from './errno.ts';
import { FileExtents } from './extents.ts';
import { readFully, writeFully } from './fd.ts';
import { FileLocks } from './locks.ts';
import { Slots } from './slots.ts';
import type { Storage } from './storage.ts';
import { Fallocate, type LockKind, type Syscalls } from './syscalls.ts';
import { WriteGuard } from './write-guard.ts';

const { EXDEV, EINVAL, ETXTBSY, EBADF, EISDIR } = constants.errno;

/** Longer synchronous requests would hold up the event loop by copying alone. */
const LONGEST_READ_NOW = 2 * 1024 * 1024;
const LONGEST_WRITE_NOW = 64 * 1024;
/**
 * The page cache lets one write at a time into a file. So many long ones are given to threads, the next while one is under way;
 * further ones would only spin for the same lock, at the cost of a processor.
 */
const LARGE_WRITE = 256 * 1024;
const LARGE_AT_ONCE = 2;
/** Bytes that one kernel copy may move, so that progress can be shown and an abort heeded in between. */
const LONGEST_COPY = 64 * 1024 * 1024;
/** Of the page cache; at most 64 KiB on the machines that have larger pages than this one. */
const PAGE = process.arch === 'x64' ? 4096 : 65536;
/** Bytes that are read to find out whether they are cached. */
const PROBE_MAX = 16 * 1024;
/** A bulk write that took longer met a disk that is behind; for a while the event loop does not wait for it. */
const SLOW_WRITE_MS = 20;
const SLOW_PAUSE_MS = 1000;

export interface NodeFileOptions {
  readonly fd: number;
  readonly kind: HostFileKind;
  readonly size: number;
  /** Bytes of storage in use; undefined when not known. */
  readonly allocated: number | undefined;
  readonly storage: Storage;
  readonly requestAlign: number;
  /** Given with O_DIRECT. */
  readonly aligned: AlignedMemory | undefined;
  readonly aio: 'auto' | 'threads';
  /** Of the main context. */
  readonly calls: BlockingCalls;
  /** Entered already; left when the file is closed. */
  readonly context: NodeContext | undefined;
  readonly syscalls: Syscalls;
  readonly now: () => number;
}

/** A context made by a Node host; any other is the caller's mistake. */
export function ownContext(context: HostContext | undefined): NodeContext | undefined {
  if (context === undefined || context instanceof NodeContext) return context;
  throw new TypeError(`Context '${context.name}' is not one of this host`);
}

/** How {@link NodeFile.tryReadNow} reads: without waiting, plainly (nothing there waits), or not at all. */
type ReadNow = 'nowait' | 'plain' | 'never';

export class NodeFile implements HostFile {
  readonly kind: HostFileKind;
  readonly requestAlign: number;
  readonly #fd: number;
  readonly #storage: Storage;
  readonly #mainCalls: BlockingCalls;
  readonly #aligned: AlignedMemory | undefined;
  readonly #syscalls: Syscalls;
  readonly #guard: WriteGuard;
  readonly #now: () => number;
  readonly #locks: FileLocks;
  /** Changed by our own writes only: asking the system each time would cost more than a cached read. */
  #size: number;
  #readNow: ReadNow;
  #writeNow: boolean;
  readonly #extents: FileExtents;
  #context: NodeContext | undefined;
  #closed = false;
  /** As it was told last, where asking might take waiting. */
  #allocated: number | undefined;
  #bulkWaitsUntil = 0;
  readonly #largeWrites = new Slots(LARGE_AT_ONCE);
  #countsCache = true;
  #flushError: BlockError | undefined;
  #scratch: Uint8Array | undefined;
  /** The last page of the last write, which waits to be stored and so is still in the cache; -1: none. */
  #dirtyPage = -1;

  constructor(options: NodeFileOptions) {
    this.kind = options.kind;
    this.requestAlign = options.requestAlign;
    this.#fd = options.fd;
    this.#size = options.size;
    this.#storage = options.storage;
    this.#mainCalls = options.calls;
    this.#aligned = options.aligned;
    this.#syscalls = options.syscalls;
    this.#guard = new WriteGuard(options.now);
    this.#now = options.now;
    this.#locks = new FileLocks(options.fd, options.syscalls, options.now);
    const atOnce = options.aio === 'auto' && options.aligned === undefined;
    const seekable = this.kind === 'regular' || this.kind === 'block';
    this.#readNow = !atOnce || !seekable ? 'never' : this.#storage.class === 'memory' ? 'plain' : 'nowait';
    this.#writeNow = atOnce && this.kind === 'regular' && this.#storage.class !== 'other';
    this.#extents = new FileExtents(options.fd, options.syscalls, this.kind === 'regular');
    this.#context = options.context;
    this.#allocated = options.allocated;
  }

  size(): number {
    return this.#size;
  }

  /** Whether metadata may be asked for on the event loop: not of a network or FUSE, nor of what has its own threads. */
  get #answersAtOnce(): boolean {
    return this.#context === undefined && this.#storage.class !== 'other';
  }

  get #calls(): BlockingCalls {
    return this.#context?.calls ?? this.#mainCalls;
  }

  setContext(context: HostContext | undefined): void {
    const own = ownContext(context);
    if (this.#closed) return;
    own?.enter();
    this.#context?.leave();
    this.#context = own;
  }

  allocated(): number | undefined {
    if (!this.#answersAtOnce) return this.#allocated;
    const { blocks } = fs.fstatSync(this.#fd);
    return Number.isSafeInteger(blocks) ? blocks * 512 : undefined;
  }

  async read(offset: number, target: Uint8Array): Promise<number> {
    const aligned = this.#aligned;
    if (aligned === undefined || aligned.isAligned(target))
      return readFully(this.#calls, this.#fd, target, this.#position(offset));
    const bounce = aligned.take(target.length);
    try {
      const count = await readFully(this.#calls, this.#fd, bounce, this.#position(offset));
      target.set(bounce.subarray(0, count));
      return count;
    } finally {
      aligned.give(bounce);
    }
  }

  tryReadNow(offset: number, target: Uint8Array): number {
    if (this.#readNow === 'never' || target.length > LONGEST_READ_NOW) return -1;
    if (this.#readNow === 'plain') {
      try {
        return fs.readSync(this.#fd, target, 0, target.length, offset);
      } catch {
        return -1;
      }
    }
    const count = this.#syscalls.readNow(this.#fd, target, offset);
    if (count === target.length) return count;
    if (count >= 0) return this.#endsAt(offset + count) ? count : -1;
    if (count === -NOT_SUPPORTED || count === -EINVAL) this.#readNow = 'never';
    return -1;
  }

  /** Whether a short read that stopped at `offset` met the end of the file, not just of what is cached. */
  #endsAt(offset: number): boolean {
    if (offset < this.#size || !this.#answersAtOnce) return false;
    try {
      return this.kind === 'block' || offset >= fs.fstatSync(this.#fd).size;
    } catch {
      return false;
    }
  }

  async write(offset: number, source: Uint8Array): Promise<void> {
    const aligned = this.#aligned;
    if (aligned === undefined && this.kind === 'regular' && source.length >= LARGE_WRITE) {
      await this.#largeWrites.run(() => writeFully(this.#calls, this.#fd, source, this.#position(offset)));
    } else if (aligned === undefined || aligned.isAligned(source)) {
      await writeFully(this.#calls, this.#fd, source, this.#position(offset));
    } else {
      const bounce = aligned.take(source.length);
      try {
        bounce.set(source);
        await writeFully(this.#calls, this.#fd, bounce, this.#position(offset));
      } finally {
        aligned.give(bounce);
      }
    }
    this.#grown(offset + source.length);
  }

  /**
   * Writes into the page cache, if no part of a page need be read for it, under the eyes of {@link WriteGuard}.
   * Asking the kernel not to wait (RWF_NOWAIT) is no help: ext4 knows no such writes, XFS always says that it would wait.
   * A write that stops half way is repeated as a whole by `write`.
   */
  tryWriteNow(offset: number, source: Uint8Array): boolean {
    const length = source.length;
    if (!this.#writeNow || length > LONGEST_WRITE_NOW) return false;
    if (this.#storage.class === 'memory') return this.#writeSync(offset, source);
    // However quick it was so far, such a write may wait for the disk.
    if (this.#context !== undefined) return false;
    const start = this.#guard.start();
    if (start < 0 || !this.#edgesCached(offset, length)) return false;
    const done = this.#writeSync(offset, source);
    this.#guard.done(start);
    const end = offset + length;
    this.#dirtyPage = done ? end - (end % PAGE) : -1;
    return done;
  }

  #writeSync(offset: number, source: Uint8Array): boolean {
    const length = source.length;
    try {
      if (fs.writeSync(this.#fd, source, 0, length, offset) !== length) return false;
    } catch {
      return false;
    }
    this.#grown(offset + length);
    return true;
  }

  /**
   * Whether the blocks that the range covers only partly are in the cache, or have nothing stored to be read: that is so
   * if the bytes right beside the range are.
   */
  #edgesCached(offset: number, length: number): boolean {
    const end = offset + length;
    const head = offset % PAGE !== 0 && offset - (offset % PAGE) !== this.#dirtyPage;
    const tail = end % PAGE !== 0;
    // One look over all of a short range is quicker than two.
    if (head && tail && length <= PROBE_MAX) return this.#isAtHand(offset - 1, length + 2);
    if (head && !this.#isAtHand(offset - 1, 1)) return false;
    return !tail || this.#isAtHand(end, 1);
  }

  /** Whether the bytes, at most {@link PROBE_MAX} and 2 more, are in the cache as far as the file has them. */
  #isAtHand(offset: number, length: number): boolean {
    const inside = Math.min(length, this.#size - offset);
    if (inside <= 0) return true;
    this.#scratch ??= new Uint8Array(PROBE_MAX + 2);
    return this.#syscalls.readNow(this.#fd, this.#scratch.subarray(0, inside), offset) === inside;
  }

  /**
   * After a failed flush the kernel forgets which data it could not write, and the next flush would succeed without it.
   * So the failure stays.
   */
  async flush(): Promise<void> {
    if (this.#flushError) throw this.#flushError;
    this.#dirtyPage = -1;
    try {
      await this.#calls.datasync(this.#fd);
      if (!this.#answersAtOnce) this.#allocated = Number((await this.#calls.stat(this.#fd)).blocks * 512n);
    } catch (error) {
      // Devices and pipes that keep nothing say EINVAL.
      if (codeOf(error) === 'EINVAL' && this.kind !== 'regular') return;
      this.#flushError = error as BlockError;
      throw error;
    }
  }

  async truncate(length: number): Promise<void> {
    try {
      await this.#calls.truncate(this.#fd, length);
    } finally {
      this.#extents.forget();
    }
    this.#size = length;
  }

  async allocate(offset: number, length: number): Promise<void> {
    await this.#fallocate(Fallocate.allocate, offset, length);
    this.#grown(offset + length);
  }

  async punchHole(offset: number, length: number): Promise<void> {
    await this.#fallocate(Fallocate.punchHole, offset, length);
  }

  async zeroRange(offset: number, length: number): Promise<void> {
    await this.#fallocate(Fallocate.zeroRange, offset, length);
    this.#grown(offset + length);
  }

  async #fallocate(mode: number, offset: number, length: number): Promise<void> {
    const result = await this.#syscalls.fallocate(this.#context, this.#fd, mode, offset, length);
    this.#extents.forget();
    if (result < 0) throw systemError(-result);
  }

  async discard(offset: number, length: number): Promise<void> {
    if (this.kind !== 'block') return this.punchHole(offset, length);
    const result = await this.#syscalls.discardDevice(this.#context, this.#fd, offset, length);
    if (result < 0) throw systemError(-result);
  }

  extent(offset: number, length: number): HostExtent | undefined {
    return this.#answersAtOnce ? this.#extents.now(offset, length) : this.#extents.known(offset, length);
  }

  findExtent(offset: number, length: number): Promise<HostExtent> {
    return this.#extents.find(offset, length, this.#context);
  }

  async copyFrom(source: HostFile, sourceOffset: number, offset: number, length: number): Promise<number> {
    if (!(source instanceof NodeFile)) throw new BlockError('ENOTSUP', errorText('ENOTSUP'));
    const count = await this.#syscalls.copyFileRange(
      this.#context,
      { fd: source.#fd, offset: sourceOffset },
      { fd: this.#fd, offset },
      Math.min(length, LONGEST_COPY),
    );
    if (count < 0) throw systemError(COPY_REFUSALS.has(-count) ? NOT_SUPPORTED : -count);
    this.#grown(offset + count);
    return count;
  }

  lock(kind: LockKind, offset: number, length: number): boolean {
    return this.#locks.lock(kind, offset, length);
  }

  isLocked(kind: 'shared' | 'exclusive', offset: number, length: number): boolean {
    return this.#locks.isLocked(kind, offset, length);
  }

  lockHolder(offset: number, length: number): LockHolder | undefined {
    return this.#locks.holder(offset, length);
  }

  extentSizeHint(): number {
    return this.#storage.extentSizeHints ? Math.max(0, this.#syscalls.extentSizeHint(this.#fd)) : 0;
  }

  setExtentSizeHint(bytes: number): void {
    if (!this.#storage.extentSizeHints) throw systemError(NOT_SUPPORTED);
    const result = this.#syscalls.setExtentSizeHint(this.#fd, bytes);
    if (result < 0) throw systemError(-result);
  }

  setNoCopyOnWrite(): void {
    const result = this.#syscalls.setNoCopyOnWrite(this.#fd);
    if (result < 0) throw systemError(-result);
  }

  async close(): Promise<void> {
    this.#readNow = 'never';
    this.#writeNow = false;
    try {
      await this.#calls.close(this.#fd);
    } finally {
      this.#closed = true;
      this.#context?.leave();
      this.#context = undefined;
    }
  }

  /** The descriptor, for threads that read and write by themselves; -1 where the file's requests go another way. */
  bulkFd(): number {
    const plain = this.#readNow !== 'never' && this.#storage.class !== 'other' && this.#context === undefined;
    return plain ? this.#fd : -1;
  }

  /** Whether large writes to {@link bulkFd} had better reserve their storage (see {@link Syscalls.reserve}). */
  get bulkReserves(): boolean {
    return this.#storage.reserve;
  }

  /** Whether a range can be taken from {@link bulkFd} without waiting for a disk. */
  isCached(offset: number, length: number): boolean {
    if (!this.#countsCache || this.bulkFd() < 0 || offset + length > this.#size) return false;
    const missing = this.#syscalls.uncachedPages(this.#fd, offset, length);
    // Before Linux 6.5, or for a file of someone else.
    if (missing < 0) this.#countsCache = false;
    return missing === 0;
  }

  /** Writes any length at once while that is quick, else by way of the pool. False: it failed, and may be written in part. */
  async writeBulk(offset: number, source: Uint8Array): Promise<boolean> {
    const start = this.#now();
    if (start < this.#bulkWaitsUntil) {
      const written = this.write(offset, source).then(() => true);
      return written.catch(() => false);
    }
    if (this.#storage.reserve) this.#syscalls.reserve(this.#fd, offset, source.length);
    const done = this.#writeSync(offset, source);
    if (this.#now() - start > SLOW_WRITE_MS) this.#bulkWaitsUntil = this.#now() + SLOW_PAUSE_MS;
    return done;
  }

  /** Takes the size from the system, after others have written through {@link bulkFd}. */
  async refresh(): Promise<void> {
    this.#grown(Number((await this.#calls.stat(this.#fd)).size));
  }

  #grown(end: number): void {
    if (end > this.#size && this.kind === 'regular') this.#size = end;
  }

  /** Pipes have no offsets. */
  #position(offset: number): number | null {
    return this.kind === 'pipe' ? null : offset;
  }
}

/** Where the kernel will not copy between these two files or ranges, reading and writing does it. */
const COPY_REFUSALS: ReadonlySet<number> = new Set([EXDEV, EINVAL, ETXTBSY, EBADF, EISDIR]);
