/**
 * Work on images by name, on one graph with all drivers. A source is a file name (plain, `json:…` or `PROTOCOL:…`) or
 * an option tree. Everything throws BlockError, or the signal's reason when it is aborted.
 */
import type { CacheMode } from '../core/cache.ts';
import { createImage } from '../core/create.ts';
import type { Disk, OpenOptions } from '../core/disk.ts';
import type { CompactOptions, DriverInfo, Measurement } from '../core/driver.ts';
import { Graph } from '../core/graph.ts';
import type { NestedOptions, OptionTree } from '../core/options.ts';
import { DRIVERS } from '../drivers.ts';
import { type CheckDiskOptions, type CheckResult, checkDisk } from '../jobs/check.ts';
import { type Checksum, type ChecksumOptions, checksum as checksumOf } from '../jobs/checksum.ts';
import { type CompactResult, compactDisk } from '../jobs/compact.ts';
import { type CompareOptions, type Comparison, compare as compareDisks } from '../jobs/compare.ts';
import { type ConvertOptions, convert as convertDisks } from '../jobs/convert.ts';
import { dd as copyBlocks, type DdOptions, type DdResult } from '../jobs/dd.ts';
import { formatOfName } from '../jobs/format-guess.ts';
import { type MapEntry, type MapOptions, map as mapDisk } from '../jobs/map.ts';
import { measure as measureContent } from '../jobs/measure.ts';
import { parseSizeChange, type ResizeOptions, resizeDisk } from '../jobs/resize.ts';
import { nodeHost } from './host.ts';

export type Source = string | NestedOptions;

/** The source's driver. Default: what an option tree says, else guessed from the content. */
export interface SourceFormat {
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

export interface CreateOptions {
  /** Default: as the name ends (`.vdi`), else raw. */
  readonly format?: string;
  /** Bytes, or a text such as `10G`. */
  readonly size: number | string;
  /** The format's own options, by name; docs/drivers lists them. */
  readonly options?: OptionTree;
  readonly signal?: AbortSignal;
}

/** Makes an image: `create('disk.vdi', { size: '10G' })`. What had the name before is replaced. */
export async function create(filename: string, asked: CreateOptions): Promise<void> {
  const { format = formatOfName(filename), size, options, signal } = asked;
  await createImage(defaultGraph(), { filename, format, options: { ...options, size }, signal });
}

export interface ConvertFileOptions extends Omit<ConvertOptions, 'graph' | 'sources' | 'target'> {
  /** Of the source. */
  readonly sourceFormat?: string;
  /** Of the target. Default: as its name ends (`.vdi`), else raw. */
  readonly format?: string;
  /** The target format's own options, by name. */
  readonly createOptions?: OptionTree;
  /** Of the target; default `unsafe`. */
  readonly cache?: CacheMode;
}

/** Copies a disk, or several put one behind another, into a new image, which gets its name when it is complete. */
export async function convert(
  source: Source | readonly Source[],
  target: string,
  options: ConvertFileOptions = {},
): Promise<void> {
  const { sourceFormat, format = formatOfName(target), createOptions = {}, cache = 'unsafe', ...rest } = options;
  const wanted: readonly Source[] = Array.isArray(source) ? source : [source];
  const sources: Disk[] = [];
  try {
    for (const each of wanted) sources.push(await open(each, { format: sourceFormat, signal: options.signal }));
    await convertDisks({
      ...rest,
      graph: defaultGraph(),
      sources,
      target: { filename: target, format, createOptions, cache },
    });
  } finally {
    for (const disk of sources) await disk.close();
  }
}

export interface DdFileOptions extends Omit<DdOptions, 'graph' | 'input' | 'output'>, SourceFormat {
  /** Of the target. Default: as its name ends (`.vdi`), else raw. */
  readonly targetFormat?: string;
}

/** Copies blocks from the start of a disk, or after some that are skipped, into a new image. */
export async function dd(source: Source, target: string, options: DdFileOptions = {}): Promise<DdResult> {
  const { format, targetFormat = formatOfName(target), ...rest } = options;
  await using input = await open(source, { format, signal: options.signal });
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
}

/** Tells format, sizes and what only this format has, without reading the content. */
export async function info(
  source: Source,
  options: SourceFormat & Pick<OpenOptions, 'forceShare' | 'signal'> = {},
): Promise<ImageInfo> {
  await using disk = await open(source, { ...options, noIO: true });
  const { filename, format, length } = disk;
  return { filename, format, length, allocated: disk.allocatedSize(), ...disk.info() };
}

/** Looks for damage, and repairs it if asked. */
export async function check(source: Source, options: CheckDiskOptions & SourceFormat = {}): Promise<CheckResult> {
  const { format, signal, repair = 'none' } = options;
  await using disk = await open(source, { format, signal, writable: repair !== 'none', checkOnly: true });
  return await checkDisk(disk, options);
}

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

export interface MeasureFileOptions extends SourceFormat {
  /** Of the image to be. */
  readonly targetFormat: string;
  readonly createOptions?: OptionTree;
}

/** How large an image for a disk's content would be. */
export async function measure(source: Source, options: MeasureFileOptions): Promise<Measurement> {
  const { format, targetFormat, createOptions = {} } = options;
  await using disk = await open(source, { format });
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
