/** Sizes that follow from a header, in bytes unless said otherwise. */
import { Incompatible, type Qcow2Header } from './header.ts';

export interface Layout {
  readonly version: number;
  readonly clusterBits: number;
  readonly clusterSize: number;
  /** Entries of 16 bytes with subclusters (Q-MAP-7). */
  readonly extended: boolean;
  /** Bytes of an L2 entry. */
  readonly entryBytes: number;
  /** Guest bytes that an L2 table maps. */
  readonly l2Reach: number;
  readonly subclusterSize: number;
  readonly refcountOrder: number;
  readonly refcountBits: number;
  /** Counts in a refcount block. */
  readonly refcountsPerBlock: number;
  readonly hasDataFile: boolean;
}

/** Subclusters of a cluster with extended L2 entries. */
export const SUBCLUSTERS = 32;

export function layoutOf(header: Qcow2Header): Layout {
  const clusterSize = 2 ** header.clusterBits;
  const extended = (header.incompatible & Incompatible.extendedL2) !== 0n;
  const entryBytes = extended ? 16 : 8;
  const refcountBits = 2 ** header.refcountOrder;
  return {
    version: header.version,
    clusterBits: header.clusterBits,
    clusterSize,
    extended,
    entryBytes,
    l2Reach: (clusterSize / entryBytes) * clusterSize,
    subclusterSize: extended ? clusterSize / SUBCLUSTERS : clusterSize,
    refcountOrder: header.refcountOrder,
    refcountBits,
    refcountsPerBlock: (clusterSize * 8) / refcountBits,
    hasDataFile: (header.incompatible & Incompatible.dataFile) !== 0n,
  };
}

/** L1 entries that a disk of `size` bytes needs. */
export function l1EntriesFor(layout: Layout, size: number): number {
  return Math.ceil(size / layout.l2Reach);
}

/** Most bytes of an L1 table and of a refcount table (Q-LIM-1). */
export const L1_BYTES_MAX = 32 << 20;
export const REFCOUNT_TABLE_BYTES_MAX = 8 << 20;
export const SNAPSHOTS_MAX = 65536;
