/** Compressed clusters of an image that is written front to back: one behind the other, in the order of the disk (Q-REF-7). */
import { alignUp } from '../../bytes/align.ts';
import { isZero } from '../../bytes/zero.ts';
import type { StreamContext } from '../../core/driver.ts';
import { compressCluster } from './compress.ts';
import type { Qcow2Header } from './header.ts';
import type { Layout } from './layout.ts';
import { refcountWidth } from './refcount-width.ts';
import {
  isEmpty,
  plainRanges,
  Stored,
  type StreamPage,
  type StreamPages,
  type StreamRules,
} from './stream-clusters.ts';

/** Bytes that are read at a time, and whose clusters are compressed side by side. */
const PIECE = 1 << 20;

/** Where they lie, in bytes from the place of the first one, which begins a cluster. */
export class Packing {
  end = 0;
  readonly #clusterSize: number;
  readonly #countMax: number;
  /** How many lie in the last cluster. */
  #count = 0;

  constructor({ clusterSize, refcountOrder }: Pick<Layout, 'clusterSize' | 'refcountOrder'>) {
    this.#clusterSize = clusterSize;
    this.#countMax = refcountWidth(refcountOrder).max;
  }

  /** The place of the next one, of fewer bytes than a cluster. */
  place(length: number): number {
    const clusterSize = this.#clusterSize;
    if (this.#count >= this.#countMax) this.#begin();
    const at = this.end;
    this.end += length;
    const reached = Math.floor((this.end - 1) / clusterSize) > Math.floor(at / clusterSize);
    this.#count = reached || at % clusterSize === 0 ? 1 : this.#count + 1;
    return at;
  }

  #begin(): void {
    this.end = alignUp(this.end, this.#clusterSize);
    this.#count = 0;
  }
}

/** Counts of the clusters that they lie in, one behind the other. */
export function* packedCounts(pages: StreamPages, layout: Layout): Generator<number> {
  const { clusterSize } = layout;
  const packing = new Packing(layout);
  let cluster = 0;
  let count = 0;
  for (const length of lengthsOf(pages)) {
    const at = packing.place(length);
    for (; cluster < Math.floor(at / clusterSize); cluster++) {
      yield count;
      count = 0;
    }
    count++;
    for (const last = Math.floor((at + length - 1) / clusterSize); cluster < last; cluster++) {
      yield count;
      count = 1;
    }
  }
  if (count > 0) yield count;
}

function* lengthsOf(pages: StreamPages): Generator<number> {
  for (const { kinds, lengths } of pages.values()) {
    if (lengths === undefined) continue;
    for (const [i, kind] of kinds.entries()) if (kind === Stored.compressed) yield lengths[i] ?? 0;
  }
}

interface Work {
  readonly context: Pick<StreamContext<unknown>, 'host' | 'read' | 'spool' | 'signal' | 'reached'>;
  readonly header: Qcow2Header;
  readonly layout: Layout;
  readonly rules: StreamRules;
}

/** One cluster on its way: the bytes it takes in `target`, -1: no fewer than plainly, 0: it is all zeroes. */
interface Packed {
  readonly cluster: number;
  readonly target: Uint8Array;
  readonly length: Promise<number>;
}

/**
 * Compresses what is to be stored into the spool. What is all zeroes is not stored then, and what does not get shorter is
 * stored as it is. Resolves with the bytes that the spool has.
 */
export async function compressAll(work: Work, pages: StreamPages): Promise<number> {
  const { context, layout } = work;
  const { clusterSize } = layout;
  const step = Math.max(PIECE, clusterSize);
  const packing = new Packing(layout);
  const buffers = [newBuffers(step, clusterSize), newBuffers(step, clusterSize)] as const;
  let turn = 0;
  // While the clusters of one piece are compressed, the next is read.
  let underWay: readonly Packed[] = [];
  try {
    for (const range of plainRanges(pages, layout)) {
      for (let done = 0; done < range.length; done += step) {
        context.signal?.throwIfAborted();
        const { plain, targets } = turn === 0 ? buffers[0] : buffers[1];
        turn = 1 - turn;
        const piece = plain.subarray(0, Math.min(step, range.length - done));
        const offset = range.offset + done;
        await context.read(offset, piece);
        const begun = begin(work, offset, piece, targets);
        const before = underWay;
        underWay = begun;
        await gather(work, pages, packing, before);
        context.reached(offset + piece.length);
      }
    }
    const last = underWay;
    underWay = [];
    await gather(work, pages, packing, last);
  } finally {
    await Promise.allSettled(underWay.map(({ length }) => length));
  }
  for (const [index, { kinds }] of pages) if (isEmpty(kinds)) pages.delete(index);
  return packing.end;
}

function newBuffers(step: number, clusterSize: number) {
  const targets = Array.from({ length: step / clusterSize }, () => new Uint8Array(clusterSize - 1));
  return { plain: new Uint8Array(step), targets };
}

function begin(
  { context: { host }, header, layout: { clusterSize } }: Work,
  offset: number,
  piece: Uint8Array,
  targets: readonly Uint8Array[],
): readonly Packed[] {
  return targets.slice(0, piece.length / clusterSize).map((target, i) => {
    const bytes = piece.subarray(i * clusterSize, (i + 1) * clusterSize);
    const length = isZero(bytes) ? Promise.resolve(0) : compressCluster({ host, header }, bytes, target);
    // Its turn, in which a failure shows, comes later.
    length.catch(() => {});
    return { cluster: offset / clusterSize + i, target, length };
  });
}

async function gather(work: Work, pages: StreamPages, packing: Packing, all: readonly Packed[]): Promise<void> {
  const { context, layout, rules } = work;
  const perPage = layout.clusterSize / layout.entryBytes;
  for (const { cluster, target, length: coming } of all) {
    const length = await coming;
    const page = pages.get(Math.floor(cluster / perPage));
    // What does not get shorter stays plain, and so do zeroes that can be told in no other way.
    if (page === undefined || length < 0 || (length === 0 && rules.isOver && !rules.hasZeroes)) continue;
    if (length === 0) page.kinds[cluster % perPage] = rules.isOver ? Stored.zero : Stored.no;
    else await put(context.spool, packing, page, cluster % perPage, target.subarray(0, length));
  }
}

async function put(
  spool: StreamContext<unknown>['spool'],
  packing: Packing,
  page: StreamPage,
  index: number,
  bytes: Uint8Array,
): Promise<void> {
  const at = packing.place(bytes.length);
  if (at > spool.length) await spool.append(new Uint8Array(at - spool.length));
  await spool.append(bytes);
  page.kinds[index] = Stored.compressed;
  page.lengths ??= new Uint32Array(page.kinds.length);
  page.lengths[index] = bytes.length;
}
