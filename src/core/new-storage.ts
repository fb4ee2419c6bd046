/** Storage that a driver gives out for others to fill. */
import type { ExtentPlace } from './driver.ts';

/** Parts that follow one another. */
export interface PartRun {
  readonly first: number;
  readonly count: number;
}

/**
 * Storage for parts of a disk that have none yet. Someone else than the driver decides which parts need it and fills it; it
 * reads as zeroes before.
 */
export interface NewStorage {
  /** The disk is divided into parts of so many bytes, which get storage as a whole. */
  readonly unit: number;
  /** Where storage number 0 is; the others follow, one behind the other. */
  readonly at: ExtentPlace;
  /** Number of the next new storage; `limit`: there can be none from this on. */
  readonly next: number;
  readonly limit: number;
  /** Fills in the numbers of the storage of parts from `first` on, -1 where they have none. False: one cannot be told. */
  numbers(first: number, target: Int32Array): boolean;
  /** Gives the parts, in ascending order, storage: number `next` and those that follow. */
  adopt(parts: readonly PartRun[]): void | Promise<void>;
}
