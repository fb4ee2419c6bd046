/** What drivers say of ranges: which ones they take, and what is in one. */

/** Bytes. What is left out: no constraint, or the core's default. */
export interface Limits {
  /** Offsets and lengths of reads and writes are multiples of this power of two. Default 1. */
  readonly requestAlign: number;
  /** Zero writes are multiples of this; unaligned edges are written as data. Default requestAlign. */
  readonly zeroAlign: number;
  /**
   * Where the rest of a unit of `zeroAlign` stores no data and reads as zeroes anyway, the driver is asked for zeroes for a
   * part of it too (`edgesAreZero`), instead of data. Default false.
   */
  readonly zeroWidens: boolean;
  /** Discards are multiples of this; unaligned edges are left alone. Default requestAlign. */
  readonly discardAlign: number;
  /** Longest read or write. */
  readonly transferMax: number;
  readonly zeroMax: number;
  readonly discardMax: number;
  /** Length that requests had best be a multiple of, e.g. the cluster size. 0: none. */
  readonly preferred: number;
  /** Compressed writes are multiples of this, save at the disk's end. 0: there are none. */
  readonly compressUnit: number;
}

/**
 * One run of a driver's own layer, at most as long as asked, never empty. The core walks on.
 * - `data`: stored; plainly at `at` if given. With `recurse`, holes of the child below may still make it zero.
 * - `zero`: reads as zeroes, decided by this layer; `at`: where the storage is, if there is any, unwritten or, with `stored`, not.
 * - `unknown`: nothing stored here, and what is read is not known without reading.
 * - `unallocated`: nothing in this layer: zero, or what a backing child has; `at`: where storage is that it does not use.
 * - `encoded`: stored compressed or encrypted.
 * - `delegate`: whatever the child says at `at` (filters, raw).
 */
export type Extent =
  | { readonly kind: 'data'; readonly length: number; readonly at?: ExtentPlace; readonly recurse?: boolean }
  | { readonly kind: 'zero'; readonly length: number; readonly at?: ExtentPlace; readonly stored?: boolean }
  | { readonly kind: 'unknown'; readonly length: number }
  | { readonly kind: 'unallocated'; readonly length: number; readonly at?: ExtentPlace }
  | { readonly kind: 'encoded'; readonly length: number }
  | { readonly kind: 'delegate'; readonly length: number; readonly at: ExtentPlace };

/** Where bytes of a disk are stored, in bytes of what holds them. */
export interface ExtentPlace {
  /** The child that holds the bytes; absent in a protocol: the node itself. */
  readonly child?: string;
  readonly offset: number;
}
