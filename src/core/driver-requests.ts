/** How drivers are asked to write, and to change the size. */

/** How anything is written. */
export interface WriteFlags {
  /** Force unit access: durable when the write resolves. */
  readonly fua?: boolean;
}

/** A change by data, or to zeroes. */
export type WriteKind = 'write' | 'zeroes';

/** How data are written. */
export interface DataFlags extends WriteFlags {
  /** Stored compressed. ENOTSUP where the format cannot, EINVAL for what is not whole units of the limit `compressUnit`. */
  readonly compressed?: boolean;
}

/** How zeroes are written. */
export interface ZeroFlags extends WriteFlags {
  /** The range's storage may be freed. */
  readonly unmap?: boolean;
  /** Fail with ENOTSUP rather than write zeroes as data. */
  readonly noFallback?: boolean;
  /** What the range leaves of the units of `zeroAlign` at its ends stores nothing and reads as zeroes: they may become zero as a whole. */
  readonly edgesAreZero?: boolean;
}

/** How a longer image gets its new storage. */
export type Preallocation = 'off' | 'metadata' | 'falloc' | 'full';

/** How the size changes. */
export interface TruncateOptions {
  readonly preallocation?: Preallocation;
  /** ENOTSUP where storage can only be reserved by writing to it. */
  readonly noFallback?: boolean;
  /** Allow cutting data off. The core refuses shrinking without it where the driver's data would be lost. */
  readonly shrink?: boolean;
  /** The size must be this afterwards: what cannot be cut (a device) fails, instead of being larger than asked. */
  readonly exact?: boolean;
}
