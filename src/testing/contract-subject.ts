/** What the contract suite is run on. */
import type { DiskUnderTest } from './disk-under-test.ts';

/** A kind of disks, for {@link driverContract}. */
export interface ContractSubject {
  /** For the names of the cases. */
  readonly name: string;
  /** A fresh disk of `length` bytes (a multiple of `lengthUnit`) that reads as zeroes. */
  make(length: number): Promise<ContractDisk>;
  /** What lengths are multiples of. Default 1. */
  readonly lengthUnit?: number;
  /** Where requests are likely to be treated differently: a block or cluster size. Default 4096. */
  readonly blockSize?: number;
  /** Writes are forgotten (the null driver): only what does not need them is tried. Default false. */
  readonly forgetful?: boolean;
  /** Contents last from one opening to the next. Default true. */
  readonly persistent?: boolean;
  /** Sequences of random operations. Default 20. */
  readonly sequences?: number;
}

/** A disk that the contract is tried on. */
export interface ContractDisk {
  /** Opens it, read-only unless `writable`. Never twice at a time. */
  open(options?: { readonly writable?: boolean; readonly signal?: AbortSignal }): Promise<DiskUnderTest>;
  /** Bytes of the file that status names as the place of stored bytes; absent: places are not compared. */
  stored?(filename: string, offset: number, length: number): Promise<Uint8Array>;
  /** Names of files that are open; absent: not known. */
  openFiles?(): readonly string[];
  dispose?(): Promise<void>;
}

/** One case: a name, and what throws when the driver fails it. */
export interface ContractCase {
  readonly name: string;
  run(): Promise<void>;
}

/** A disk of so many blocks and a bit, opened for writing. */
export interface CaseContext {
  readonly subject: ContractSubject;
  readonly made: ContractDisk;
  readonly disk: DiskUnderTest;
  readonly blockSize: number;
  readonly length: number;
  /** Closes and opens it again. */
  reopen(options?: { readonly writable?: boolean }): Promise<DiskUnderTest>;
}

export type CaseTable = Readonly<Record<string, (context: CaseContext) => Promise<void>>>;
