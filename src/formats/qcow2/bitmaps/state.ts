/** What is known of the bitmaps that an image keeps. */
import type { BlockError } from '../../../core/errors.ts';
import { Mutex } from '../../../core/gate.ts';
import type { StoredBitmap } from './directory.ts';
import type { FileRange } from './table.ts';

export interface BitmapState {
  /** The directory, as it is in the file. */
  stored: readonly StoredBitmap[];
  /** Why it cannot be used. Nothing is changed about bitmaps then. */
  broken: BlockError | undefined;
  /** The header names bitmaps that a program without support for them has outdated: they are none any more (Q-FEAT-7). */
  stale: boolean;
  /** What each takes up, by its table's offset; only of those that were read or written. */
  readonly places: Map<number, readonly FileRange[]>;
  /** Whether there are any, in the file or in memory only. */
  any: () => boolean;
  /** Throws BlockError where a bitmap could not be kept with a disk of `length` bytes (Q-SIZE-1). */
  checkResize: (length: number) => void;
  /** Drops all of them, in memory too, as version 2 has none (Q-AM-3); durable. Throws BlockError, EBUSY while one is in use. */
  dropAll: () => Promise<void>;
  /** Held by whoever changes the directory. */
  readonly lock: Mutex;
}

export function noBitmaps(): BitmapState {
  return {
    stored: [],
    broken: undefined,
    stale: false,
    places: new Map(),
    any: () => false,
    checkResize() {},
    async dropAll() {},
    lock: new Mutex(),
  };
}
