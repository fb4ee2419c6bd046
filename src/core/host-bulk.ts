/**
 * Large work on ranges of host files that a host with several processors can do by itself, past the request path. It does
 * what it can and says how far it came; what is left, and every error, is for the request path.
 */
import type { HostFile } from './host.ts';

/** A place in an open file, bytes. */
export interface FilePlace {
  readonly file: HostFile;
  readonly offset: number;
}

export interface BulkPiece {
  readonly from: FilePlace;
  /** Bytes, at most 2 MiB. */
  readonly length: number;
}

/** Pieces that are planned while others are worked on. */
export interface BulkPieces<P extends BulkPiece> {
  /** So many are asked for, and no more. */
  readonly most: number;
  /** The next one, a promise where it takes waiting; undefined: there are no more. Not called again before that resolves. */
  next(): P | undefined | Promise<P | undefined>;
}

export interface BulkCopyPiece extends BulkPiece {
  /** Where it goes in the target's disk, bytes. Ascending. */
  readonly position: number;
  /** Index of the first unit that it touches, in {@link BulkUnits.numbers}; -1: there are none. */
  readonly unit: number;
}

export interface BulkComparePiece extends BulkPiece {
  /** What it must equal; absent: zeroes. */
  readonly other: FilePlace | undefined;
}

/** Which zeroes are left out (see jobs/zero-runs.ts). */
export interface BulkSparseRule {
  readonly minimum: number;
  readonly granularity: number;
}

/** Storage that a target takes by whole units, one behind the other, where something other than zeroes comes to lie. */
export interface BulkUnits {
  /** Bytes. */
  readonly size: number;
  /**
   * Number of the storage of each unit that the pieces touch, in ascending order of units; -1: none yet. Those of a piece
   * are there when it is given out. The new ones are filled in, counted on from `next` in the order of pieces. It is of
   * {@link BulkLanes.numbers}.
   */
  readonly numbers: Int32Array;
  readonly next: number;
  /** New ones are below this. */
  readonly limit: number;
}

export interface BulkCopy {
  readonly pieces: BulkPieces<BulkCopyPiece>;
  readonly target: HostFile;
  /** Where the target's disk, or storage number 0 of its units, begins in the file. */
  readonly base: number;
  readonly units: BulkUnits | undefined;
  readonly sparse: BulkSparseRule;
}

export interface BulkWatch {
  readonly signal: AbortSignal | undefined;
  /** So many pieces are done, from the first on. */
  readonly progress: (pieces: number) => void;
}

/** Threads that work on host files. One work at a time; close them when there is no more. */
export interface BulkLanes {
  /** Whether they can work on this file. */
  reaches(file: HostFile): boolean;
  /** Numbers that threads share. */
  numbers(count: number): Int32Array;
  /** Copies, and resolves with the number of pieces done from the first on; those behind may be written in part. */
  copy(work: BulkCopy, watch: BulkWatch): Promise<number>;
  /** Compares, and resolves with the number of pieces that are equal from the first on. */
  compare(pieces: BulkPieces<BulkComparePiece>, watch: BulkWatch): Promise<number>;
  close(): void;
}
