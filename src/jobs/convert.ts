/** Copying disks into a new or existing image (T-CONV). */
import { alignUp } from '../bytes/align.ts';
import { resolveBackingName } from '../core/backing-name.ts';
import type { CacheMode } from '../core/cache.ts';
import { refusesCompressed } from '../core/compressed-write.ts';
import { createImage } from '../core/create.ts';
import type { Disk } from '../core/disk.ts';
import type { Progress } from '../core/driver.ts';
import { addContext, BlockError } from '../core/errors.ts';
import type { Graph } from '../core/graph.ts';
import type { BulkLanes } from '../core/host-bulk.ts';
import type { OptionTree } from '../core/options.ts';
import { startLanes } from './bulk-lanes.ts';
import { checkCompression, noCompression } from './compression-checks.ts';
import { copyDisks } from './copy.ts';
import { type BitmapChoice, checkBitmapSources, checkBitmapTarget, copyBitmaps } from './copy-bitmaps.ts';
import { type Destination, destinationFor, renamed } from './destination.ts';
import { SECTOR } from './source.ts';

/** A new image by name, or a disk that is open for writing and long enough. */
export type ConvertTarget =
  | {
      readonly filename: string;
      readonly format: string;
      /** As for creation; the size is that of the sources. */
      readonly createOptions?: OptionTree;
      /**
       * The image to be below, as its name is to be stored: only what the source stores itself is copied then. It must
       * have the content that lies below the source.
       */
      readonly backing?: { readonly filename: string; readonly format?: string | undefined } | undefined;
      /** Default `unsafe`: nothing waits for the storage to say it is durable. */
      readonly cache?: CacheMode;
    }
  | {
      readonly existing: Disk;
      /** It reads as zeroes: they need not be written. */
      readonly isZero?: boolean;
      /** It is based on what lies below the source: only what the source stores itself is copied. */
      readonly sharesBacking?: boolean;
    };

/** Options of {@link convertDisks}. */
export interface ConvertOptions {
  readonly graph: Graph;
  /** Open disks, put one behind another, each rounded up to 512 bytes. They stay open. */
  readonly sources: readonly Disk[];
  readonly target: ConvertTarget;
  /** Zero runs of at least this many bytes are not stored. Default 4096; 0: everything is written. */
  readonly sparseSize?: number;
  /** Store data compressed, where the format can: clusters of zeroes are left out, others are written whole. */
  readonly compress?: boolean;
  /** Copies under way at a time, 1 to 16; default 8. Each holds a buffer of 2 MiB. */
  readonly parallel?: number;
  readonly outOfOrder?: boolean;
  /** Bytes written per second. */
  readonly rateLimit?: number | undefined;
  /** Let the host copy where it can. */
  readonly copyOffload?: boolean;
  /** Sectors that cannot be read become zeroes, with a warning each. */
  readonly salvage?: boolean;
  readonly signal?: AbortSignal | undefined;
  readonly progress?: Progress | undefined;
  /** Progress is how far the copy is on the disk, not how much of it is done: it begins sooner. */
  readonly roughProgress?: boolean | undefined;
  readonly warn?: (message: string) => void;
  /** Copy the dirty bitmaps that the only source keeps. Default: none. */
  readonly bitmaps?: BitmapChoice | undefined;
  /** Told of each bitmap that is left out. */
  readonly skippedBitmap?: (name: string) => void;
}

const DEFAULT_SPARSE_SIZE = 4096;
const DEFAULT_PARALLEL = 8;
const DEFAULT_CACHE: CacheMode = 'unsafe';

/**
 * Converts. A new image gets its name when it is complete, so that a failed or interrupted conversion leaves nothing that
 * looks whole, and what had the name before stays until then. Throws BlockError, or the signal's reason.
 */
export async function convert(options: ConvertOptions): Promise<void> {
  // Where every piece is to be looked after by us, there is nothing for the host's threads to do.
  const { compress, copyOffload, salvage, rateLimit, sparseSize } = options;
  const bySelf = compress || copyOffload || salvage || rateLimit !== undefined || sparseSize === 0;
  const lanes = bySelf ? undefined : startLanes(options.sources);
  try {
    await convertWith({ ...options, lanes });
  } finally {
    lanes?.close();
  }
}

interface Conversion extends ConvertOptions {
  readonly lanes: BulkLanes | undefined;
}

async function convertWith(options: Conversion): Promise<void> {
  const { graph, target, sources } = options;
  const length = sources.reduce((sum, disk) => sum + alignUp(disk.length, SECTOR), 0);
  if (options.bitmaps !== undefined) checkBitmapSources(sources, options.bitmaps);
  if ('existing' in target) {
    if (target.existing.length < length) throw new BlockError('EINVAL', 'output file is smaller than input file');
    refuseManySources(options, target.sharesBacking === true);
    if (options.compress && refusesCompressed(target.existing.node) !== undefined) throw noCompression();
    await copyInto(options, target.existing, {
      isZero: target.isZero === true,
      topOnly: target.sharesBacking === true,
    });
    await target.existing.flush();
    return;
  }
  refuseManySources(options, target.backing !== undefined);
  if (options.compress) checkCompression(graph.driver(target.format), target.createOptions ?? {});
  const context = `${target.filename}: error while converting ${target.format}`;
  const destination = await destinationFor(graph, target.filename).catch((error: unknown) => {
    throw addContext(context, error);
  });
  try {
    await make(options, target, destination, length).catch((error: unknown) => {
      throw error instanceof BlockError ? addContext(context, destination.rename(error)) : error;
    });
    await fill(options, target, destination);
    await destination.commit();
  } catch (error) {
    await destination.abandon();
    throw destination.rename(error);
  }
}

/** T-CONV-2. */
function refuseManySources({ sources }: ConvertOptions, based: boolean): void {
  if (!based || sources.length === 1) return;
  const text = 'Having a backing file for the target makes no sense when concatenating multiple input images';
  throw new BlockError('EINVAL', text);
}

async function make(
  { graph, signal }: ConvertOptions,
  { format, createOptions, backing, cache = DEFAULT_CACHE }: Extract<ConvertTarget, { filename: string }>,
  destination: Destination,
  size: number,
): Promise<void> {
  const options = { ...createOptions, size };
  await createImage(graph, {
    filename: destination.workName,
    format,
    options,
    backingFile: backing?.filename,
    backingFormat: backing?.format,
    // Opening the new image tells what is wrong with it.
    unchecked: true,
    noFlush: cache === 'unsafe',
    signal,
  });
}

async function fill(
  options: Conversion,
  {
    filename,
    format,
    cache = DEFAULT_CACHE,
    backing,
    createOptions = {},
  }: Extract<ConvertTarget, { filename: string }>,
  destination: Destination,
): Promise<void> {
  const { graph, signal } = options;
  const { workName } = destination;
  const names = graph.driver(format)?.create?.openedWith ?? [];
  const driverOptions = Object.fromEntries(Object.entries(createOptions).filter(([name]) => names.includes(name)));
  const opening = graph.open(workName, { format, writable: true, cache, signal, driverOptions });
  const disk = await opening.catch((error: unknown) => {
    if (backing === undefined || !(error instanceof BlockError)) throw error;
    // The image below is told as it is seen from the final name.
    const seenFrom = (name: string) => (workName === filename ? '' : resolveBackingName(name, backing.filename));
    const told = renamed(error, seenFrom(workName), seenFrom(filename));
    throw addContext(`Could not open '${filename}'`, told);
  });
  try {
    await copyInto(options, disk, { isZero: disk.zeroInit(), topOnly: backing !== undefined, isNew: true });
  } catch (error) {
    await disk.close().catch(() => {});
    throw error;
  }
  await disk.close();
}

interface TargetState {
  readonly isZero: boolean;
  readonly topOnly: boolean;
  readonly isNew?: boolean;
}

async function copyInto(
  options: Conversion,
  target: Disk,
  { isZero, topOnly, isNew = false }: TargetState,
): Promise<void> {
  const { backing, impl } = target.node;
  const { bitmaps, sources, skippedBitmap = () => {} } = options;
  if (bitmaps !== undefined) checkBitmapTarget(target);
  // What a new image does not store is zero past the end of the one below it.
  const zeroFrom = isNew && backing !== undefined && impl.zeroInit?.() === true ? backing.length() : target.length;
  await copyDisks({
    sources,
    target,
    sparseSize: options.sparseSize ?? DEFAULT_SPARSE_SIZE,
    targetIsZero: isZero,
    topOnly,
    zeroFrom,
    parallel: options.parallel ?? DEFAULT_PARALLEL,
    compressUnit: options.compress ? target.limits.compressUnit : undefined,
    outOfOrder: options.outOfOrder === true,
    rateLimit: options.rateLimit,
    copyOffload: options.copyOffload === true,
    salvage: options.salvage === true,
    clock: options.graph.host.clock,
    lanes: options.lanes,
    signal: options.signal,
    progress: options.progress,
    roughProgress: options.roughProgress === true,
    warn: options.warn ?? (() => {}),
  });
  const [source] = sources;
  if (bitmaps !== undefined && source !== undefined) await copyBitmaps(source, target, skippedBitmap);
}
