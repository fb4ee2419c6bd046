/** Free clusters below a limit, from the lowest on, and copies into them. */
import { settled } from '../../core/gate.ts';
import type { Qcow2Image } from './image.ts';
import type { Refcounts } from './refcounts.ts';
import type { HostOffset } from './tables.ts';
import { flush } from './write-back.ts';

/** Bytes that are copied at a time, and copies under way. */
const PIECE = 1 << 20;
const AT_ONCE = 4;

export class Holes {
  readonly limit: number;
  readonly #refcounts: Refcounts;
  #next = 0;

  /** `limit`: a cluster. */
  constructor(refcounts: Refcounts, limit: number) {
    this.#refcounts = refcounts;
    this.limit = limit;
  }

  /** The next free cluster below the limit, -1 when there is none. The caller counts it before it asks for another. */
  async next(): Promise<number> {
    const { refcountsPerBlock } = this.#refcounts.image.layout;
    while (this.#next < this.limit) {
      const index = this.#refcounts.blockIndex(this.#next);
      const end = Math.min(this.limit, (index + 1) * refcountsPerBlock);
      // Where there is no block, one would have to be made first.
      const block = this.#refcounts.isKnownFull(index) ? undefined : await this.#refcounts.block(index);
      if (block === undefined) {
        this.#next = end;
        continue;
      }
      for (; this.#next < end; this.#next++) {
        if (this.#refcounts.width.get(block.view, this.#next % refcountsPerBlock) === 0) return this.#next++;
      }
    }
    return -1;
  }

  /** Whether this very cluster is a hole. */
  async isHole(cluster: number): Promise<boolean> {
    if (cluster >= this.limit) return false;
    const block = await this.#refcounts.block(this.#refcounts.blockIndex(cluster));
    if (block === undefined) return false;
    return this.#refcounts.width.get(block.view, cluster % this.#refcounts.image.layout.refcountsPerBlock) === 0;
  }
}

/** How many clusters are counted as used. */
export async function usedClusters({ refcounts, layout }: Qcow2Image): Promise<number> {
  let used = 0;
  for (let index = 0; index < refcounts.table.length; index++) {
    const block = await refcounts.block(index);
    if (block !== undefined) used += layout.refcountsPerBlock - refcounts.freeIn(index, block);
  }
  return used;
}

/** Whole clusters that so many references do not name any more. */
export interface Originals {
  readonly offset: HostOffset;
  readonly length: number;
  readonly uses: number;
}

/** Makes durable what was redirected, and takes those references off the originals. Nobody else uses the image. */
export async function giveUp(image: Qcow2Image, originals: readonly Originals[]): Promise<void> {
  for (const { offset, length, uses } of originals) if (uses === 1) image.releases.add(offset, length, 'other');
  await flush(image);
  image.decompressed.forget();
  // With many snapshots there would be too many releases to keep.
  for (const { offset, length, uses } of originals) {
    if (uses > 1) await image.refcounts.change(offset, length, -uses);
  }
}

/** Bytes of the image file that go elsewhere in it. */
export interface Copy {
  readonly from: HostOffset;
  readonly to: HostOffset;
  readonly length: number;
}

/** What is stored at `from`, as it must be stored at `to`. */
export type Moved = (stored: Uint8Array, from: HostOffset, to: HostOffset) => Uint8Array;

/** Copies, joining what lies side by side at both ends. Nothing is durable then. */
export async function copyBytes({ file }: Qcow2Image, copies: readonly Copy[], moved?: Moved): Promise<void> {
  const pieces = [...joined(copies)];
  for (let first = 0; first < pieces.length; first += AT_ONCE) {
    await settled(
      pieces.slice(first, first + AT_ONCE).map(async ({ from, to, length }) => {
        const buffer = new Uint8Array(length);
        await file.read(from, buffer);
        await file.write(to, moved === undefined ? buffer : moved(buffer, from, to));
      }),
    );
  }
}

function* joined(copies: readonly Copy[]): Generator<Copy> {
  let last: Copy | undefined;
  for (const copy of copies) {
    if (
      last !== undefined &&
      last.from + last.length === copy.from &&
      last.to + last.length === copy.to &&
      last.length + copy.length <= PIECE
    ) {
      last = { ...last, length: last.length + copy.length };
      continue;
    }
    if (last !== undefined) yield* split(last);
    last = copy;
  }
  if (last !== undefined) yield* split(last);
}

function* split({ from, to, length }: Copy): Generator<Copy> {
  for (let done = 0; done < length; done += PIECE) {
    yield { from: from + done, to: to + done, length: Math.min(PIECE, length - done) };
  }
}
