/** Images written in one pass, front to back, into anything that takes bytes. */
import type { Disk } from '../core/disk.ts';
import type { ImageStream } from '../core/driver.ts';
import { BlockError } from '../core/errors.ts';
import type { Graph } from '../core/graph.ts';
import { type OptionTree, parseOptions } from '../core/options.ts';
import { Source } from './source.ts';

/** Bytes that are handed over at a time. */
const PIECE = 1 << 20;

export interface StreamOptions {
  /** Format of the image to be; `raw`: the disk's bytes themselves. */
  readonly format: string;
  /** Its creation options. */
  readonly options?: OptionTree;
  /** Open disks, put one behind another, each rounded up to 512 bytes. */
  readonly sources: readonly Disk[];
  readonly signal?: AbortSignal | undefined;
}

export interface StreamedImage {
  /** Bytes in all. */
  readonly length: number;
  /** The bytes, in pieces of 1 MiB at most. A piece is valid until the next but one is asked for. */
  pieces(): AsyncIterable<Uint8Array>;
}

/** Whether images of a format can be written so. */
export function isStreamable(graph: Graph, format: string): boolean {
  const spec = graph.driver(format);
  return format === 'raw' || (spec?.kind === 'format' && spec.stream !== undefined);
}

/**
 * Plans the image by what status tells of the sources, which must not change before all is read. Throws BlockError ENOTSUP
 * where the format, or an option, needs more than one pass; EINVAL for bad options.
 */
export async function streamImage(graph: Graph, asked: StreamOptions): Promise<StreamedImage> {
  const { format, sources, signal } = asked;
  const source = new Source(sources, undefined);
  const { length } = source;
  const whole: ImageStream = { length, head: () => [], ranges: () => (length === 0 ? [] : [{ offset: 0, length }]) };
  const plan = format === 'raw' ? whole : await formatStream(graph, asked, source);
  return { length: plan.length, pieces: () => piecesOf(plan, source, signal) };
}

async function formatStream(graph: Graph, { format, options }: StreamOptions, source: Source): Promise<ImageStream> {
  const spec = graph.driver(format);
  if (spec?.kind !== 'format' || spec.stream === undefined || spec.create === undefined) {
    throw new BlockError('ENOTSUP', `Images of format '${format}' cannot be written in one pass`);
  }
  const size = source.length;
  const { values, rest } = parseOptions<unknown>(spec.create.options, { ...options, size });
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) throw new BlockError('EINVAL', `Invalid parameter '${unknown}'`);
  return spec.stream({ options: values as never, size, extents: extentsOf(source) });
}

async function* extentsOf(source: Source) {
  for (let offset = 0; offset < source.length; ) {
    const { end, zero } = source.tryRunNow(offset) ?? (await source.run(offset));
    yield { offset, length: end - offset, zero };
    offset = end;
  }
}

async function* piecesOf(
  plan: ImageStream,
  source: Source,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  yield* inPieces(plan.head());
  const buffers = [new Uint8Array(PIECE), new Uint8Array(PIECE)] as const;
  let turn = 0;
  let filled = 0;
  for (const { offset, length } of plan.ranges()) {
    for (let done = 0; done < length; ) {
      signal?.throwIfAborted();
      const buffer = turn === 0 ? buffers[0] : buffers[1];
      const run = await source.run(offset + done);
      const part = Math.min(length - done, run.end - run.offset, PIECE - filled);
      const target = buffer.subarray(filled, filled + part);
      if (run.zero) target.fill(0);
      else await source.read(run.part, offset + done, target);
      done += part;
      filled += part;
      if (filled < PIECE) continue;
      yield buffer;
      turn = 1 - turn;
      filled = 0;
    }
  }
  if (filled > 0) yield (turn === 0 ? buffers[0] : buffers[1]).subarray(0, filled);
}

/** Small ones joined, large ones split. */
function* inPieces(all: Iterable<Uint8Array>): Generator<Uint8Array> {
  let buffer = new Uint8Array(PIECE);
  let filled = 0;
  for (const bytes of all) {
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
