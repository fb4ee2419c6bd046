/** What drivers tell of an image: facts about it, what a check found, how far long work is. */

/** BL-INFO-1 and format-specific information (BL-INFO-2). */
export interface DriverInfo {
  /** Bytes of a cluster or block, the unit of storage. */
  readonly clusterSize?: number;
  /** Default: clusterSize. */
  readonly subclusterSize?: number;
  /** Bytes from the start of the disk; what is kept of a machine lies from there on. */
  readonly vmStateOffset?: number;
  /** Left marked as in use by a writer. */
  readonly dirty?: boolean;
  readonly encrypted?: boolean;
  /** Plain data in display order; keys with dashes (`block-size`). */
  readonly specific?: { readonly type: string; readonly data: SpecificData };
}
/** What only one format has to tell of an image, as plain data under the names of QEMU. */
export interface SpecificData {
  readonly [key: string]: string | number | boolean | SpecificData | readonly (SpecificData | string | number)[];
}

/** Bytes (BL-SIZE-6). */
export interface BlockSizes {
  readonly physical: number;
  readonly logical: number;
}
/** Of a disk that tells one, as old machines want it. */
export interface DiskGeometry {
  readonly cylinders: number;
  readonly heads: number;
  /** Per track. */
  readonly sectors: number;
}

/** What a check found (BL-CHECK-1). Counts; absent: not known for the format. */
export interface CheckReport {
  /** Places where the image is wrong. */
  corruptions: number;
  /** Clusters or blocks of storage that nothing uses. */
  leaks: number;
  /** Errors that kept the check from finishing its work. */
  checkErrors: number;
  /** Mended by this run. */
  corruptionsFixed: number;
  /** Given back by this run. */
  leaksFixed: number;
  /** Bytes of the file up to the end of what is used. */
  imageEndOffset?: number;
  /** Clusters or blocks of the disk; then of these: those stored, those not behind their neighbour, those stored compressed. */
  totalClusters?: number;
  allocatedClusters?: number;
  fragmentedClusters?: number;
  compressedClusters?: number;
}

/** What a check mends: nothing, unused storage and wrong counts, or all that can be mended. */
export type RepairMode = 'none' | 'leaks' | 'all';

/** What a format's `check` is asked for. */
export interface CheckOptions {
  readonly repair: RepairMode;
  /** One finding or repair, as a line for people. */
  finding(line: string): void;
  /** The same for what the programs of QEMU do not tell: who shares storage with whom, what compressed data cannot be read. */
  detail?(line: string): void;
  /** Decompresses every compressed cluster, of snapshots too; those that do not decompress are corruptions that nothing mends. Default false. */
  readonly decompress?: boolean;
  /**
   * Not under `all`. Storage that data share with metadata is no damage where counts allow for it, as the programs of QEMU
   * see it. Default false.
   */
  readonly countsOnly?: boolean;
  /** Under `all`: what names storage past the end of the file reads as zeroes from then on. Default false: it is told, and left. */
  readonly zeroBeyondEnd?: boolean;
  /** Bytes that counters may take: what they do not hold is counted in further passes. Default 64 MiB. */
  readonly memory?: number;
  readonly progress?: Progress;
  readonly signal?: AbortSignal;
}

/** Progress of long work: `done` of `total`, in bytes or any unit that grows evenly. */
export type Progress = (done: number, total: number) => void;

/** Options of a compaction. */
export interface CompactOptions {
  readonly signal?: AbortSignal;
  readonly progress?: Progress;
}

/** Options of a change of options in place. `force` allows what loses data or access to them. */
export interface AmendOptions {
  readonly force?: boolean;
  readonly progress?: Progress;
  readonly signal?: AbortSignal;
}

/** What a driver may ask of the core while it amends its image. */
export interface AmendContext extends AmendOptions {
  /** Changes the disk's size, with all that the core does about that (BL-SIZE-4). May cut data off. */
  truncate(length: number): Promise<void>;
}
