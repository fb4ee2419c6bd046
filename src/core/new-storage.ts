/** Storage that a driver gives out for others to fill. */
import type { ExtentPlace } from './driver.ts';

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
  /** Number of a part's storage, -1 where it has none; undefined where it cannot be told. */
  numberOf(part: number): number | undefined;
  /** Gives the parts storage: number `next` and those that follow. */
  adopt(parts: readonly number[]): void | Promise<void>;
}
