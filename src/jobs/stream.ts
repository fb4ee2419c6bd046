/** Images written front to back, into anything that takes bytes. */

import { backingAsOptions } from '../core/create-backing.ts';
import type { Disk } from '../core/disk.ts';
import type { ImageStream, Progress } from '../core/driver.ts';
import { BlockError } from '../core/errors.ts';
import type { Graph } from '../core/graph.ts';
import { type OptionTree, parseOptions } from '../core/options.ts';
import { checkCompression } from './compression-checks.ts';
import { type SalvageWarning, Source } from './source.ts';
import { Spool } from './spool.ts';

/** Bytes that are handed over at a time. */
const PIECE = 1 << 20;

/** Options of {@link streamImage}. */
export interface StreamOptions {
  /** Format of the image to be; `raw`: the disk's bytes themselves. */
  readonly format: string;
  /** Its creation options. */
  readonly options?: OptionTree;
  /** Open disks, put one behind another, each rounded up to 512 bytes. */
  readonly sources: readonly Disk[];
  /**
   * The image to be below, as its name is to be stored, which nobody looks at: only what the only source stores itself is
   * copied then.
   */
  readonly backing?: { readonly filename: string; readonly format?: string | undefined } | undefined;
  /** Store data compressed: they are compressed first, and kept in memory or, from 32 MiB on, in a temporary file. */
  readonly compress?: boolean;
  /** Told of sectors that cannot be read, which become zeroes. Absent: they are errors. */
  readonly salvage?: SalvageWarning;
  readonly signal?: AbortSignal | undefined;
  /** Bytes of the disk that are compressed, and its size. */
  readonly progress?: Progress | undefined;
}

/** An image that is made front to back; close it when it is not needed any more. */
export interface StreamedImage {
  /** Bytes in all. */
  readonly length: number;
  /** The bytes, in pieces of 1 MiB at most. A piece is valid until the next but one is asked for. */
  pieces(): AsyncIterable<Uint8Array>;
  /** Gives back what is kept of it. */
  close(): Promise<void>;
}

/** Whether images of a format can be written so. */
export function isStreamable(graph: Graph, format: string): boolean {
  const spec = graph.driver(format);
  return format === 'raw' || (spec?.kind === 'format' && spec.stream !== undefined);
}

/**
 * Plans the image by what status tells of the sources, which must not change before all is read. Throws BlockError ENOTSUP
 * where the format, or an option, keeps it from being written so; EINVAL for bad options.
 */
export async function streamImage(graph: Graph, asked: StreamOptions): Promise<StreamedImage> {
  const { format, sources, signal, salvage, backing } = asked;
  if (backing !== undefined && sources.length !== 1) {
    throw new BlockError('EINVAL', 'An image over another can only be made of one source');
  }
  const source = new Source(sources, salvage, backing !== undefined);
  const spool = new Spool(graph.host);
  try {
    const plan = format === 'raw' ? rawStream(graph, asked, source) : await formatStream(graph, asked, source, spool);
    return { length: plan.length, pieces: () => piecesOf(plan, source, signal), close: () => spool.close() };
  } catch (error) {
    await spool.close();
    throw error;
  }
}

function rawStream(graph: Graph, { compress }: StreamOptions, { length }: Source): ImageStream {
  if (compress) checkCompression(graph.driver('raw'), {});
  return { length, head: () => [], ranges: () => (length === 0 ? [] : [{ offset: 0, length }]) };
}

async function formatStream(graph: Graph, asked: StreamOptions, source: Source, spool: Spool): Promise<ImageStream> {
  const { format, options = {}, backing, compress = false, signal, progress } = asked;
  const spec = graph.driver(format);
  if (spec?.kind !== 'format' || spec.stream === undefined || spec.create === undefined) {
    throw new BlockError('ENOTSUP', `Images of format '${format}' cannot be written in one pass`);
  }
  const size = source.length;
  const below = backing && { backingFile: backing.filename, backingFormat: backing.format };
  const named = backingAsOptions({ filename: '', format, ...below }, spec);
  const { values, rest } = parseOptions<unknown>(spec.create.options, { ...options, ...named, size });
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) throw new BlockError('EINVAL', `Invalid parameter '${unknown}'`);
  if (compress) checkCompression(spec, options);
  return spec.stream({
    options: values as never,
    size,
    host: graph.host,
    signal,
    extents: extentsOf(source),
    compress,
    spool,
    read: (offset, target) => readPadded(source, offset, target),
    reached: (offset) => progress?.(offset, size),
  });
}

async function* extentsOf(source: Source) {
  for (let offset = 0; offset < source.length; ) {
    const { end, zero, absent } = source.tryRunNow(offset) ?? (await source.run(offset));
    yield { offset, length: end - offset, zero, absent };
    offset = end;
  }
}

/** Zeroes are not read, nor what is behind the end. */
async function readPadded(source: Source, offset: number, target: Uint8Array): Promise<void> {
  for (let done = 0; done < target.length; ) {
    const at = offset + done;
    if (at >= source.length) {
      target.fill(0, done);
      return;
    }
    const run = source.tryRunNow(at) ?? (await source.run(at));
    const part = target.subarray(done, done + run.end - at);
    if (run.zero && run.absent !== true) part.fill(0);
    else await source.read(run.part, at, part);
    done += part.length;
  }
}

async function* piecesOf(
  plan: ImageStream,
  source: Source,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  let at = 0;
  for await (const piece of inPieces(plan.head())) {
    signal?.throwIfAborted();
    yield piece;
    at += piece.length;
  }
  const buffers = [new Uint8Array(PIECE), new Uint8Array(PIECE)] as const;
  let turn = 0;
  let filled = 0;
  const finished = () => {
    const bytes = (turn === 0 ? buffers[0] : buffers[1]).subarray(0, filled);
    const stored = plan.encode === undefined ? bytes : plan.encode(bytes, at);
    turn = 1 - turn;
    at += filled;
    filled = 0;
    return stored;
  };
  for (const { offset, length } of plan.ranges()) {
    for (let done = 0; done < length; ) {
      signal?.throwIfAborted();
      const part = Math.min(length - done, PIECE - filled);
      await readPadded(source, offset + done, (turn === 0 ? buffers[0] : buffers[1]).subarray(filled, filled + part));
      done += part;
      filled += part;
      if (filled === PIECE) yield finished();
    }
  }
  if (filled > 0) yield finished();
}

/** Small ones joined, large ones split. */
async function* inPieces(all: Iterable<Uint8Array> | AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let buffer = new Uint8Array(PIECE);
  let filled = 0;
  for await (const bytes of all) {
    for (let done = 0; done < bytes.length; ) {
      const part = bytes.subarray(done, done + PIECE - filled);
      buffer.set(part, filled);
      filled += part.length;
      done += part.length;
      if (filled < PIECE) continue;
      yield buffer;
      buffer = new Uint8Array(PIECE);
      filled = 0;
    }
  }
  if (filled > 0) yield buffer.subarray(0, filled);
}
