/** Snapshots inside images, and the state of the machine that is saved with them (Q-SNAP). */

/** A moment of the disk that the image keeps. */
export interface SnapshotInfo {
  /** A number as text, where the image was not made by hand. */
  readonly id: string;
  /** May be empty, and need not be the only one of its kind. */
  readonly name: string;
  /** When it was made: whole milliseconds since 1970; and the nanoseconds of that second, which tell it more closely. */
  readonly time: number;
  readonly nanoseconds: number;
  /** Bytes of machine state; 0: none was saved. */
  readonly vmStateSize: number;
  /** Nanoseconds that the machine had run. */
  readonly vmClock: bigint;
  /** Instructions that the machine had run; undefined: not known. */
  readonly instructionCount: bigint | undefined;
  /** Bytes of the disk then; undefined: not told, and taken to be the size now. */
  readonly diskSize: number | undefined;
}

/** What is to be kept of a new snapshot besides the disk. */
export interface NewSnapshot {
  /** At most 65535 bytes of UTF-8. */
  readonly name: string;
  /** Milliseconds since 1970. */
  readonly time: number;
  /** Bytes of machine state that were written before; the snapshot takes them over. Default 0. */
  readonly vmStateSize?: number;
  /** Nanoseconds, 64 bits. Default 0. */
  readonly vmClock?: bigint;
  /** 64 bits. Default: not known. */
  readonly instructionCount?: bigint;
}

/** Options of work on snapshots. */
export interface SnapshotWorkOptions {
  /** Stops the work; the image is then as it was. */
  readonly signal?: AbortSignal;
}

/**
 * What a driver can do about snapshots in its image. Called with no request under way; `index` counts from 0 in what `list`
 * gives then. Each change is made as a whole or not at all, also when the power goes.
 */
export interface DriverSnapshots {
  /** In the image's order. ENOTSUP where this image can have none. */
  list(): readonly SnapshotInfo[];
  /** It is the last of the list then. */
  create(wanted: NewSnapshot, options: SnapshotWorkOptions): Promise<void>;
  /** Makes the disk what it was then, its size too. */
  apply(index: number, options: SnapshotWorkOptions): Promise<void>;
  delete(index: number, options: SnapshotWorkOptions): Promise<void>;
  /** Shows it instead of the disk, in this session only; for nodes that are only read. */
  show(index: number): Promise<void>;
}

/** Where the state of a machine is saved: beside the disk, and not part of it. Offsets and lengths are bytes. */
export interface DriverVmState {
  /** Fills `target`; what was never written is zero. */
  read(offset: number, target: Uint8Array): Promise<void>;
  write(offset: number, source: Uint8Array): Promise<void>;
}
