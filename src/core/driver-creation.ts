/** What drivers are given to make images, and to tell how large one would be. */
import type { Child } from './driver.ts';
import type { Host } from './host.ts';
import type { SchemaOf } from './options.ts';

/** What a protocol's `create.run` is given. */
export interface ProtocolCreateContext<O> {
  readonly filename: string;
  readonly options: O;
  readonly host: Host;
  readonly signal: AbortSignal | undefined;
}

/** What a format's `create.run` is given. */
export interface FormatCreateContext<O> {
  /** The new, empty file, writable and resizable. */
  readonly file: Child;
  readonly options: O;
  readonly host: Host;
  readonly signal: AbortSignal | undefined;
  /** Makes another plain file beside the image, empty, for as long as `work` runs; removed if that fails, unless it was there. */
  withNewFile(filename: string, work: (file: Child) => Promise<void>): Promise<void>;
}

/** What is known of an image before its file is touched. */
export interface CreationCheckContext<O> {
  /** Of the file that is to take the image, which may hold another one. */
  readonly filename: string;
  readonly options: O;
  readonly host: Host;
}

/** What a format's `measure` is given. */
export interface MeasureContext<O> {
  readonly options: O;
  /** Disk size, bytes. */
  readonly size: number;
  /** Runs of the source's content in ascending order; absent: only a size is given, all of it might be written. */
  readonly extents:
    | AsyncIterable<{ readonly offset: number; readonly length: number; readonly zero: boolean }>
    | undefined;
  /** Dirty bitmaps that the source keeps; absent: it can keep none. */
  readonly bitmaps?: readonly MeasuredBitmap[] | undefined;
}
/** A dirty bitmap that the new image is to keep as well. */
export interface MeasuredBitmap {
  /** Bytes. */
  readonly granularity: number;
  /** Bytes of its name. */
  readonly nameLength: number;
}
/** How large an image file would be. */
export interface Measurement {
  /** Bytes the image file needs for the source's content. */
  readonly required: number;
  /** Bytes it can grow to when all is written. */
  readonly fullyAllocated: number;
  /** Bytes that the source's bitmaps need besides; absent where they cannot be kept. */
  readonly bitmaps?: number | undefined;
}

/** A run of a disk's content. */
export interface StreamExtent {
  readonly offset: number;
  readonly length: number;
  readonly zero: boolean;
  /** The source does not store it: the image below the new one has it. */
  readonly absent?: boolean | undefined;
}

/** Bytes that are kept until the places of what comes before them are known. */
export interface StreamSpool {
  /** Bytes so far. */
  readonly length: number;
  /** Behind all others; `bytes` may be used again when this resolves. */
  append(bytes: Uint8Array): Promise<void>;
  /** All, front to back. A piece is valid until the next one is asked for. */
  pieces(): AsyncIterable<Uint8Array>;
}

/** What a format's `stream` is given. */
export interface StreamContext<O> {
  readonly options: O;
  /** Disk size, bytes. */
  readonly size: number;
  readonly host: Host;
  readonly signal: AbortSignal | undefined;
  /** Runs of the source's content in ascending order, without gaps. */
  readonly extents: AsyncIterable<StreamExtent>;
  /** Data are to be stored compressed. */
  readonly compress: boolean;
  readonly spool: StreamSpool;
  /** The disk's bytes; zeroes behind its end. */
  read(offset: number, target: Uint8Array): Promise<void>;
  /** Called as the disk is read for {@link spool}: up to which byte. */
  readonly reached: (offset: number) => void;
}

/** An image that is written front to back: what comes first, and then parts of the disk. */
export interface ImageStream {
  /** Bytes in all. */
  readonly length: number;
  /** All that comes before the data. */
  head(): Iterable<Uint8Array> | AsyncIterable<Uint8Array>;
  /** Ranges of the disk, bytes, ascending, whose data follow one behind the other; zeroes behind the disk's end. */
  ranges(): Iterable<{ readonly offset: number; readonly length: number }>;
  /** What is stored for bytes of {@link ranges} that are at `offset` of the file. Absent: they themselves. */
  encode?(bytes: Uint8Array, offset: number): Uint8Array;
}

/** Creation options that name the image below. */
export interface BackingOptionNames {
  readonly file: string;
  /** Absent: the format is not recorded. */
  readonly format?: string;
  /** The only format that the image below can have. */
  readonly only?: string;
}

/** Options that creation parses: those of the format or protocol. Names and order are those of the `Formatting` line. */
export interface CreateSpec<C, X> {
  readonly options: SchemaOf<C>;
  /** Which options name the image below, where they are not `backing_file` and `backing_fmt` (BL-CREATE-6). */
  readonly backing?: BackingOptionNames;
  /** Options that the new image must be opened with, too: those of its keys. */
  readonly openedWith?: readonly string[];
  /** Throws BlockError for options that cannot be, before the file is made or emptied: a wrong option costs no image. */
  check?(context: CreationCheckContext<C>): void | Promise<void>;
  run(context: X): Promise<void>;
}
