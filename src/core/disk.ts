/** Disk: what a library user holds of an opened graph. Signatures first; every method goes to the request path. */
import type { CacheMode, DiscardMode } from './cache.ts';
import type {
  CheckOptions,
  CheckReport,
  CompactOptions,
  DriverInfo,
  TruncateOptions,
  WriteFlags,
  ZeroFlags,
} from './driver.ts';

export interface OpenOptions {
  /** Driver of the top node. Default: probed, or what the options say. */
  readonly format?: string | undefined;
  /** Default false. */
  readonly writable?: boolean;
  /** Default `writeback`. */
  readonly cache?: CacheMode;
  /** Default `unmap`: discards and unmapping zero writes free storage. */
  readonly discard?: DiscardMode;
  readonly detectZeroes?: 'off' | 'on' | 'unmap';
  /** Open even though others write; read-only opens only (BL-OPEN-23). */
  readonly forceShare?: boolean;
  readonly nodeName?: string;
  /** Only information is wanted: no data will be read. */
  readonly noIO?: boolean;
  /** For a check: damage is no reason to refuse. */
  readonly checkOnly?: boolean;
  readonly salvage?: boolean;
  readonly signal?: AbortSignal | undefined;
}

/** A run of like status, as the whole graph below a disk sees it. */
export interface BlockStatus {
  readonly length: number;
  /** Stored somewhere in the chain. */
  readonly allocated: boolean;
  /** Has stored bytes to read. */
  readonly data: boolean;
  /** Reads as zeroes. May hold together with `data`. */
  readonly zero: boolean;
  /** How many backing links below the top the deciding layer is. */
  readonly depth: number;
  /** Where the bytes are plainly stored. */
  readonly at?: { readonly filename: string; readonly offset: number };
}

export interface DiskLike {
  /** Bytes. */
  readonly length: number;
  readonly writable: boolean;
  /** The top node's name, driver name, and shown file name (BL-REFRESH-5). */
  readonly nodeName: string;
  readonly format: string;
  readonly filename: string;
  /** Fills a buffer, or returns a new one of `length` bytes. EIO past the end. */
  read(offset: number, length: number): Promise<Uint8Array>;
  read(offset: number, target: Uint8Array): Promise<Uint8Array>;
  tryReadNow(offset: number, target: Uint8Array): boolean;
  write(offset: number, source: Uint8Array, flags?: WriteFlags): Promise<void>;
  tryWriteNow(offset: number, source: Uint8Array): boolean;
  writeZeroes(offset: number, length: number, flags?: ZeroFlags): Promise<void>;
  discard(offset: number, length: number): Promise<void>;
  flush(): Promise<void>;
  status(offset: number, length: number): Promise<BlockStatus>;
  tryStatusNow(offset: number, length: number): BlockStatus | undefined;
  truncate(length: number, options?: TruncateOptions): Promise<void>;
  info(): DriverInfo;
  /** Bytes of host storage in use by all files below. */
  allocatedSize(): number | undefined;
  /** Whether unwritten parts of a fresh image of this kind read as zeroes. */
  zeroInit(): boolean;
  check(options: CheckOptions): Promise<CheckReport>;
  compact(options?: CompactOptions): Promise<void>;
  /** Copies inside the host; ENOTSUP where either side is not plainly a host file. Resolves with the bytes copied. */
  copyFrom(source: DiskLike, sourceOffset: number, offset: number, length: number): Promise<number>;
  close(): Promise<void>;
}
