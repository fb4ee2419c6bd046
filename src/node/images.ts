/**
 * Work on images by name, on one graph with all drivers. A source is a file name (plain, `json:…` or `PROTOCOL:…`) or
 * an option tree. Everything throws BlockError, or the signal's reason when it is aborted.
 */
import type { CacheMode } from '../core/cache.ts';
import { findBackingImage } from '../core/chain.ts';
import { createImage } from '../core/create.ts';
import type { Disk, OpenOptions } from '../core/disk.ts';
import type { SnapshotChoice } from '../core/disk-snapshots.ts';
import type { AmendOptions, CompactOptions, DriverInfo, Measurement, SnapshotInfo } from '../core/driver.ts';
import { BlockError } from '../core/errors.ts';
import type { NestedOptions, OptionTree } from '../core/options.ts';
import { DRIVERS } from '../drivers.ts';
import { Graph } from '../graph.ts';
import { ALONE, eachImage, type NamedBacking, namedBacking } from '../jobs/backing-chain.ts';
import { type CheckDiskOptions, type CheckResult, checkDisk } from '../jobs/check.ts';
import { type Checksum, type ChecksumOptions, checksum as checksumOf } from '../jobs/checksum.ts';
import { type CommitOptions, commit as commitDisk } from '../jobs/commit.ts';
import { type CompactResult, compactDisk } from '../jobs/compact.ts';
import { type CompareOptions, type Comparison, compare as compareDisks } from '../jobs/compare.ts';
import { type ConvertOptions, convert as convertDisks } from '../jobs/convert.ts';
import { dd as copyBlocks, type DdOptions, type DdResult } from '../jobs/dd.ts';
import { formatOfName } from '../jobs/format-guess.ts';
import { type MapEntry, type MapOptions, map as mapDisk } from '../jobs/map.ts';
import { measure as measureContent } from '../jobs/measure.ts';
import { type RebaseOptions, rebase as rebaseDisk } from '../jobs/rebase.ts';
import { parseSizeChange, type ResizeOptions, resizeDisk } from '../jobs/resize.ts';
import { nodeHost } from './host.ts';

/** An image: a file name, a `json:{…}` text, or an option tree such as `{ driver: 'raw', file: { driver: 'file', filename: 'disk.img' } }`. */
export type Source = string | NestedOptions;

/** Of functions on one image. */
export interface SourceFormat {
  /** The image's driver. Default: what an option tree says, else guessed from the content. */
  readonly format?: string | undefined;
}

let shared: Graph | undefined;

/** The graph that these functions use, made at the first call. */
export function defaultGraph(): Graph {
  shared ??= new Graph({ host: nodeHost(), drivers: DRIVERS });
  return shared;
}

/** Opens a disk, read-only unless `writable`: `await using disk = await open('disk.vdi')`. */
export function open(source: Source, options: OpenOptions = {}): Promise<Disk> {
  return defaultGraph().open(source, options);
}

/** Options of {@link create}. */
export interface CreateOptions {
  /** Default: as the name ends (`.vdi`), else raw. */
  readonly format?: string;
  /** Bytes, or a text such as `10G`. May be left out with a backing file: then it is that one's. */
  readonly size?: number | string;
  /** The image to base it on, as seen from the folder of the new one, and its driver, which must be given. */
  readonly backing?: { readonly filename: string; readonly format: string };
  /** The format's own options, by name; docs/drivers lists them. */
  readonly options?: OptionTree;
  readonly signal?: AbortSignal;
}

/** Makes an image: `create('disk.vdi', { size: '10G' })`. What had the name before is replaced. */
export async function create(filename: string, asked: CreateOptions): Promise<void> {
  const { format = formatOfName(filename), size, backing, options, signal } = asked;
  await createImage(defaultGraph(), {
    filename,
    format,
    options: { ...options, ...(size !== undefined && { size }) },
    backingFile: backing?.filename,
    backingFormat: backing?.format,
    signal,
  });
}

/** Options of {@link convert}. */
export interface ConvertFileOptions extends Omit<ConvertOptions, 'graph' | 'sources' | 'target'> {
  /** Driver of the sources. Default: guessed from the content of each. */
  readonly sourceFormat?: string;
  /** Driver of the target. Default: as its name ends (`.vdi`), else raw. */
  readonly targetFormat?: string;
  /** The target format's own options, by name. */
  readonly createOptions?: OptionTree;
  /** Of the target; default `unsafe`. */
  readonly cache?: CacheMode;
  /** Base the target on this image, which has what lies below the source: only what that stores itself is copied. */
  readonly backing?: { readonly filename: string; readonly format: string };
  /** What the source was at a snapshot inside it. */
  readonly snapshot?: SnapshotChoice;
}

/** Copies a disk, or several put one behind another, into a new image, which gets its name when it is complete. */
export async function convert(
  source: Source | readonly Source[],
  target: string,
  options: ConvertFileOptions = {},
): Promise<void> {
  const {
    sourceFormat,
    targetFormat = formatOfName(target),
    createOptions = {},
    cache = 'unsafe',
    backing,
    snapshot,
    ...rest
  } = options;
  const wanted: readonly Source[] = Array.isArray(source) ? source : [source];
  const sources: Disk[] = [];
  try {
    for (const each of wanted) {
      const disk = await open(each, { format: sourceFormat, signal: options.signal });
      sources.push(disk);
      if (snapshot !== undefined) await disk.snapshots.show(snapshot);
    }
    await convertDisks({
      ...rest,
      graph: defaultGraph(),
      sources,
      target: { filename: target, format: targetFormat, createOptions, backing, cache },
    });
  } finally {
    for (const disk of sources) await disk.close();
  }
}

/** Options of {@link dd}. */
export interface DdFileOptions extends Omit<DdOptions, 'graph' | 'input' | 'output'> {
  /** Driver of the source. Default: guessed from its content. */
  readonly sourceFormat?: string;
  /** Driver of the target. Default: as its name ends (`.vdi`), else raw. */
  readonly targetFormat?: string;
}

/** Copies blocks from the start of a disk, or after some that are skipped, into a new image. */
export async function dd(source: Source, target: string, options: DdFileOptions = {}): Promise<DdResult> {
  const { sourceFormat, targetFormat = formatOfName(target), ...rest } = options;
  await using input = await open(source, { format: sourceFormat, signal: options.signal });
  const output = { filename: target, format: targetFormat };
  return await copyBlocks({ ...rest, graph: defaultGraph(), input, output });
}

/** What is known of an image. */
export interface ImageInfo extends DriverInfo {
  /** The name that opens it. */
  readonly filename: string;
  readonly format: string;
  /** Of the disk, in bytes. */
  readonly length: number;
  /** Bytes of host storage in use; undefined where the host cannot tell. */
  readonly allocated: number | undefined;
  /** The image that it is based on; undefined: none. */
  readonly backing: NamedBacking | undefined;
  /** Inside the image, in the order in which they were made. */
  readonly snapshots: readonly SnapshotInfo[];
}

type InfoOptions = SourceFormat & Pick<OpenOptions, 'forceShare' | 'signal'>;

/** Tells format, sizes and what only this format has, without reading the content. */
export async function info(source: Source, options: InfoOptions = {}): Promise<ImageInfo> {
  await using disk = await open(source, { ...options, ...ALONE });
  return infoOf(disk);
}

/** The same of the image and of all below it. */
export async function infoChain(source: Source, options: InfoOptions = {}): Promise<ImageInfo[]> {
  await using disk = await open(source, { ...options, ...ALONE });
  const found: ImageInfo[] = [];
  const { forceShare = false, signal } = options;
  const name = typeof source === 'string' ? source : disk.filename;
  await eachImage(disk, name, { forceShare, signal }, (each) => found.push(infoOf(each)));
  return found;
}

function infoOf(disk: Disk): ImageInfo {
  const { filename, format, length } = disk;
  return {
    filename,
    format,
    length,
    allocated: disk.allocatedSize(),
    backing: namedBacking(disk.node),
    snapshots: disk.snapshots.known(),
    ...disk.info(),
  };
}

/** Looks for damage, and repairs it if asked. */
export async function check(source: Source, options: CheckDiskOptions & SourceFormat = {}): Promise<CheckResult> {
  const { format, signal, repair = 'none', plan = false } = options;
  const writable = repair !== 'none' && !plan;
  await using disk = await open(source, { format, signal, writable, checkOnly: true });
  return await checkDisk(disk, options);
}

/** Options of {@link compare}. */
export interface CompareFileOptions extends CompareOptions {
  /** Of the first and of the second. Default: guessed from the content. */
  readonly formats?: readonly [string | undefined, string | undefined];
}

/** Whether two disks have the same content, whatever their formats. */
export async function compare(a: Source, b: Source, options: CompareFileOptions = {}): Promise<Comparison> {
  const { formats: [first, second] = [], signal } = options;
  await using left = await open(a, { format: first, signal });
  await using right = await open(b, { format: second, signal });
  return await compareDisks(left, right, options);
}

/** A checksum of the content as a guest sees it: equal for equal disks in any format. */
export async function checksum(source: Source, options: ChecksumOptions & SourceFormat = {}): Promise<Checksum> {
  await using disk = await open(source, { format: options.format, signal: options.signal });
  return await checksumOf(disk, options);
}

/** Where what is, in ascending order. */
export async function* map(source: Source, options: MapOptions & SourceFormat = {}): AsyncGenerator<MapEntry, void> {
  await using disk = await open(source, { format: options.format, signal: options.signal });
  for await (const entries of mapDisk(disk, options)) yield* entries;
}

/** Options of {@link measure}. */
export interface MeasureFileOptions {
  /** Driver of the source. Default: guessed from its content. */
  readonly sourceFormat?: string;
  /** Driver of the image to be. */
  readonly targetFormat: string;
  /** Its format's own options, by name. */
  readonly createOptions?: OptionTree;
}

/** How large an image for a disk's content would be. */
export async function measure(source: Source, options: MeasureFileOptions): Promise<Measurement> {
  const { sourceFormat, targetFormat, createOptions = {} } = options;
  await using disk = await open(source, { format: sourceFormat });
  return await measureContent(defaultGraph(), { format: targetFormat, options: createOptions, content: disk });
}

/** Changes a disk's size: to bytes or a text (`20G`), or by one (`+512M`, `-1G`). Resolves with the new size in bytes. */
export async function resize(
  source: Source,
  size: number | string,
  options: ResizeOptions & SourceFormat = {},
): Promise<number> {
  await using disk = await open(source, { format: options.format, writable: true });
  return await resizeDisk(disk, parseSizeChange(String(size)), options);
}

/** Gives unused storage back to the host, in place. Crash-safe. */
export async function compact(source: Source, options: CompactOptions & SourceFormat = {}): Promise<CompactResult> {
  const { format, ...rest } = options;
  await using disk = await open(source, { format, writable: true, ...(rest.signal && { signal: rest.signal }) });
  return await compactDisk(disk, rest);
}

/** Changes options of the image's format, in place: `amend('disk.qcow2', { compat: '1.1', lazy_refcounts: true })`. */
export async function amend(
  source: Source,
  options: NestedOptions,
  how: AmendOptions & SourceFormat = {},
): Promise<void> {
  const { format, ...rest } = how;
  await using disk = await open(source, { format, writable: true, ...(rest.signal && { signal: rest.signal }) });
  await disk.amend(options, rest);
}

/** Options of {@link commit}. */
export interface CommitFileOptions extends Omit<CommitOptions, 'base'>, SourceFormat {
  /** Name of the image of the chain to commit into. Default: the one directly below. */
  readonly base?: string;
}

/** Puts what an image stores into the one below it, and empties it. */
export async function commit(source: Source, options: CommitFileOptions = {}): Promise<void> {
  const { format, base: name, ...rest } = options;
  await using disk = await open(source, { format, writable: true, signal: rest.signal });
  const base = name === undefined ? undefined : await findBackingImage(disk.graph.host, disk.node, name);
  if (name !== undefined && base === undefined) {
    throw new BlockError('EINVAL', `Did not find '${name}' in the backing chain of '${disk.filename}'`);
  }
  await commitDisk(disk, { ...rest, base });
}

/** Options of {@link rebase}. */
export type RebaseFileOptions = RebaseOptions & SourceFormat;

/** Puts another image below one, or none, under the same content. With `unsafe` only the name is changed. */
export async function rebase(source: Source, options: RebaseFileOptions = {}): Promise<void> {
  const { format, ...rest } = options;
  const noBacking = rest.unsafe === true;
  await using disk = await open(source, { format, writable: true, noBacking, signal: rest.signal });
  await rebaseDisk(disk, rest);
}
