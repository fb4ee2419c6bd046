/**
 * A checksum of what a guest sees on a disk: equal for equal content in any format, however it is stored.
 *
 * The scheme `diskwright-tree-sha256-1`: the disk, rounded up to 512 bytes with zeroes, is cut into leaves of 1 MiB (the last
 * may be shorter). A leaf's digest is its SHA-256. The digests of up to 1024 neighbours, concatenated, are hashed into one digest
 * of the next level, until a level has a single digest, the top. The checksum is the SHA-256 of the scheme's name in ASCII,
 * a zero byte, the disk's size as 8 bytes little endian, and the top. The size fixes the tree's shape.
 *
 * Leaves are hashed several at a time; ranges known to be zero are not read, at any size of tree.
 */
import { alignUp } from '../bytes/align.ts';
import { isZero } from '../bytes/zero.ts';
import type { Disk } from '../core/disk.ts';
import type { Progress } from '../core/driver.ts';
import { BlockError, withErrno } from '../core/errors.ts';
import { BufferPool } from './buffer-pool.ts';
import { withHeldStatus } from './held-status.ts';

const CHECKSUM_SCHEME = 'diskwright-tree-sha256-1';

/** Options of {@link checksumDisk}. */
export interface ChecksumOptions {
  readonly signal?: AbortSignal | undefined;
  readonly progress?: Progress | undefined;
}

/** A digest of a disk's content, equal for equal disks in any format (docs/checksum.md). */
export interface Checksum {
  readonly scheme: typeof CHECKSUM_SCHEME;
  /** Lower-case hex, 64 digits. */
  readonly digest: string;
  /** Bytes that the checksum covers. */
  readonly size: number;
}

const LEAF = 1024 * 1024;
const FAN = 1024;
const SECTOR = 512;
/** Leaves being read or hashed at a time. */
const PARALLEL = 8;

/** Throws BlockError `error while reading at byte …` when content cannot be read, or the signal's reason. */
export async function checksum(disk: Disk, options: ChecksumOptions = {}): Promise<Checksum> {
  const size = alignUp(disk.length, SECTOR);
  const top = await withHeldStatus([disk], () => new Tree(disk, size, options).top());
  const name = new TextEncoder().encode(`${CHECKSUM_SCHEME}\0`);
  const sizeBytes = new Uint8Array(8);
  new DataView(sizeBytes.buffer).setBigUint64(0, BigInt(size), true);
  const root = await sha256(concatenate([name, sizeBytes, top]));
  return { scheme: CHECKSUM_SCHEME, digest: hex(root), size };
}

class Tree {
  readonly #disk: Disk;
  readonly #size: number;
  readonly #options: ChecksumOptions;
  readonly #buffers: BufferPool = new BufferPool(PARALLEL, LEAF);
  /** Digests of full subtrees of zeroes, by level. */
  readonly #zeroFull: Promise<Uint8Array>[] = [];
  /** Where status is known up to, and from where on back from there it is all zero (infinite: it is not). */
  #runEnd = 0;
  #zeroFrom = Number.POSITIVE_INFINITY;
  #failure: { readonly error: unknown } | undefined;
  #done = 0;

  constructor(disk: Disk, size: number, options: ChecksumOptions) {
    this.#disk = disk;
    this.#size = size;
    this.#options = options;
  }

  async top(): Promise<Uint8Array> {
    this.#options.progress?.(0, this.#size);
    let level = 0;
    while (span(level) < this.#size) level++;
    const digest = await this.#digest(level, 0, this.#size);
    this.#options.progress?.(this.#size, this.#size);
    return digest;
  }

  /** Digest of the subtree over `start` to `end`. */
  async #digest(level: number, start: number, end: number): Promise<Uint8Array> {
    if (await this.#isHole(start, end)) return this.#skip(level, end - start);
    if (level === 0) return this.#hashLeaf(start, end, await this.#buffers.take());
    const children: Promise<Uint8Array>[] = [];
    for (let at = start; at < end; at += span(level - 1)) {
      const childEnd = Math.min(end, at + span(level - 1));
      if (level > 1) children.push(Promise.resolve(await this.#digest(level - 1, at, childEnd)));
      else if (await this.#isHole(at, childEnd)) children.push(this.#skip(0, childEnd - at));
      else children.push(this.#startLeaf(at, childEnd, await this.#buffers.take()));
      if (this.#failure !== undefined) break;
    }
    await Promise.allSettled(children);
    if (this.#failure !== undefined) throw this.#failure.error;
    return sha256(concatenate(await Promise.all(children)));
  }

  /** Begins a leaf whose failure is looked at later, when all that was begun has ended. */
  #startLeaf(start: number, end: number, buffer: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
    const digest = this.#hashLeaf(start, end, buffer);
    digest.catch((error: unknown) => {
      this.#failure ??= { error };
    });
    return digest;
  }

  async #hashLeaf(start: number, end: number, buffer: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
    try {
      this.#options.signal?.throwIfAborted();
      const leaf = buffer.subarray(0, end - start);
      await this.#read(start, leaf);
      const digest = await (isZero(leaf) ? this.#zeroes(0, leaf.length) : sha256(leaf));
      this.#advance(leaf.length);
      return digest;
    } finally {
      this.#buffers.give(buffer);
    }
  }

  /** What lies past the disk's end, in its last sector, is zero. */
  async #read(offset: number, target: Uint8Array): Promise<void> {
    const stored = Math.min(target.length, this.#disk.length - offset);
    try {
      await this.#disk.read(offset, target.subarray(0, stored));
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      throw withErrno(error.code, `error while reading at byte ${offset}`, { cause: error });
    }
    target.fill(0, stored);
  }

  /** Whether status tells that the whole range is zero. Ranges are asked for in ascending order. */
  async #isHole(start: number, end: number): Promise<boolean> {
    // An empty disk has no run to ask for.
    while (start < end && (this.#runEnd <= start || (this.#zeroFrom <= start && this.#runEnd < end))) {
      const at = Math.max(start, this.#runEnd);
      const zero = at >= this.#disk.length ? { zero: true, length: this.#size - at } : await this.#status(at);
      if (!zero.zero) this.#zeroFrom = Number.POSITIVE_INFINITY;
      else if (this.#zeroFrom > at) this.#zeroFrom = at;
      this.#runEnd = at + zero.length;
    }
    return this.#zeroFrom <= start && this.#runEnd >= end;
  }

  async #status(offset: number): Promise<{ readonly zero: boolean; readonly length: number }> {
    const length = this.#disk.length - offset;
    return this.#disk.tryStatusNow(offset, length) ?? (await this.#disk.status(offset, length));
  }

  #skip(level: number, length: number): Promise<Uint8Array> {
    this.#options.signal?.throwIfAborted();
    this.#advance(length);
    return this.#zeroes(level, length);
  }

  /** Digest of a subtree of zeroes; full ones are computed once a level. */
  async #zeroes(level: number, length: number): Promise<Uint8Array> {
    if (length === span(level)) {
      this.#zeroFull[level] ??= this.#hashZeroes(level, length);
      return this.#zeroFull[level];
    }
    return this.#hashZeroes(level, length);
  }

  async #hashZeroes(level: number, length: number): Promise<Uint8Array> {
    if (level === 0) return sha256(new Uint8Array(length));
    const children: Uint8Array[] = [];
    for (let at = 0; at < length; at += span(level - 1)) {
      children.push(await this.#zeroes(level - 1, Math.min(span(level - 1), length - at)));
    }
    return sha256(concatenate(children));
  }

  #advance(length: number): void {
    this.#done += length;
    this.#options.progress?.(this.#done, this.#size);
  }
}

/** Bytes below a full subtree of `level`. */
function span(level: number): number {
  return LEAF * FAN ** level;
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  return new Uint8Array(await globalThis.crypto.subtle.digest('SHA-256', bytes));
}

function concatenate(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
