/** Which clusters of a disk are stored in an image that is written front to back, and how. */
import type { StreamContext } from '../../core/driver.ts';
import type { Layout } from './layout.ts';

export const Stored = {
  no: 0,
  /** As the disk has it. */
  plain: 1,
  /** Zeroes that hide what the image below has. */
  zero: 2,
  compressed: 3,
} as const;

/** While status is asked: what a cluster holds. */
const DATA = 1;
const ZERO = 2;
const ABSENT = 4;

/** The clusters that an L2 table maps. */
export interface StreamPage {
  /** One of {@link Stored} each. */
  readonly kinds: Uint8Array;
  /** Bytes of those that are compressed; undefined: none is. */
  lengths: Uint32Array | undefined;
}

/** By index of the L2 table, ascending; a table without stored clusters has none. */
export type StreamPages = Map<number, StreamPage>;

export interface StreamRules {
  /** There is an image below. */
  readonly isOver: boolean;
  /** Zeroes can be told by a flag: not in version 2. */
  readonly hasZeroes: boolean;
  /** Everything is stored (preallocation). */
  readonly whole: boolean;
}

/** Clusters to store, by what status tells of the source. */
export async function clustersToStore(
  { extents, size }: Pick<StreamContext<unknown>, 'extents' | 'size'>,
  { clusterSize, entryBytes }: Pick<Layout, 'clusterSize' | 'entryBytes'>,
  rules: StreamRules,
): Promise<StreamPages> {
  const perPage = clusterSize / entryBytes;
  const pages: StreamPages = new Map();
  const mark = (cluster: number, what: number) => {
    const index = Math.floor(cluster / perPage);
    let page = pages.get(index);
    if (page === undefined) {
      page = { kinds: new Uint8Array(perPage), lengths: undefined };
      pages.set(index, page);
    }
    page.kinds[cluster % perPage] = (page.kinds[cluster % perPage] ?? 0) | what;
  };
  for await (const { offset, length, zero, absent } of extents) {
    const what = rules.whole ? DATA : absent ? ABSENT : zero ? ZERO : DATA;
    const first = Math.floor(offset / clusterSize);
    const end = Math.ceil((offset + length) / clusterSize);
    if (what === DATA || (what === ZERO && rules.isOver)) for (let i = first; i < end; i++) mark(i, what);
    else if (what === ABSENT) {
      // Only where something else is in the cluster, too.
      if (offset % clusterSize !== 0) mark(first, ABSENT);
      if ((offset + length) % clusterSize !== 0 && offset + length < size) mark(end - 1, ABSENT);
    }
  }
  for (const [index, { kinds }] of pages) {
    for (const [i, seen] of kinds.entries()) kinds[i] = kindOf(seen, rules);
    if (isEmpty(kinds)) pages.delete(index);
  }
  return pages;
}

function kindOf(seen: number, { isOver, hasZeroes }: StreamRules): number {
  if ((seen & DATA) !== 0) return Stored.plain;
  if (!isOver || (seen & ZERO) === 0) return Stored.no;
  return seen === ZERO && hasZeroes ? Stored.zero : Stored.plain;
}

export function isEmpty(kinds: Uint8Array): boolean {
  return kinds.every((kind) => kind === Stored.no);
}

export function countOf(pages: StreamPages, kind: number): number {
  let count = 0;
  for (const { kinds } of pages.values()) for (const each of kinds) if (each === kind) count++;
  return count;
}

/** Runs of clusters that are stored plainly, as bytes of the disk. They may reach past its end. */
export function* plainRanges(
  pages: StreamPages,
  { clusterSize, entryBytes }: Pick<Layout, 'clusterSize' | 'entryBytes'>,
): Generator<{ offset: number; length: number }> {
  const perPage = clusterSize / entryBytes;
  for (const [index, { kinds }] of pages) {
    for (let first = kinds.indexOf(Stored.plain); first >= 0; ) {
      let end = first + 1;
      while (kinds[end] === Stored.plain) end++;
      yield { offset: (index * perPage + first) * clusterSize, length: (end - first) * clusterSize };
      first = kinds.indexOf(Stored.plain, end);
    }
  }
}
