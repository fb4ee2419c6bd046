/** How large an image file would be (T-MEAS-1). */
import { bitmapListOf } from '../bitmaps/bitmaps.ts';
import type { Disk } from '../core/disk.ts';
import type { MeasuredBitmap, Measurement } from '../core/driver.ts';
import { BlockError } from '../core/errors.ts';
import type { Graph } from '../core/graph.ts';
import { type OptionTree, parseOptions } from '../core/options.ts';
import { withHeldStatus } from './held-status.ts';
import { Source } from './source.ts';

/** Options of {@link measureContent}. */
export interface MeasureOptions {
  /** Format of the image to be. */
  readonly format: string;
  /** Its creation options. */
  readonly options?: OptionTree;
  /** What it is to hold: a disk's content, or anything of a size in bytes. */
  readonly content: Disk | number;
}

/** Throws BlockError ENOTSUP where the format cannot tell, EINVAL for bad options. */
export async function measure(graph: Graph, asked: MeasureOptions): Promise<Measurement> {
  const { format, content } = asked;
  const spec = graph.driver(format);
  if (spec === undefined) throw new BlockError('EINVAL', `Unknown file format '${format}'`);
  if (spec.create === undefined) {
    throw new BlockError('ENOTSUP', `Format driver '${format}' does not support image creation`);
  }
  if (spec.kind !== 'format' || spec.measure === undefined) {
    throw new BlockError('ENOTSUP', `Block driver '${format}' does not support size measurement`);
  }
  const source = typeof content === 'number' ? undefined : new Source([content], undefined);
  const size = typeof content === 'number' ? content : (source?.length ?? 0);
  const { values, rest } = parseOptions<unknown>(spec.create.options, { ...asked.options, size });
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) throw new BlockError('EINVAL', `Invalid parameter '${unknown}'`);
  const run = spec.measure;
  const bitmaps = typeof content === 'number' ? undefined : bitmapsOf(content);
  return withHeldStatus(typeof content === 'number' ? [] : [content], () =>
    run.call(spec, { options: values as never, size, extents: source && extentsOf(source), bitmaps }),
  );
}

/** Those that are inconsistent count too. */
function bitmapsOf(disk: Disk): MeasuredBitmap[] | undefined {
  const list = bitmapListOf(disk);
  if (list.store?.available() !== true) return undefined;
  const kept = list.all.filter(({ persistent }) => persistent);
  return kept.map(({ granularity, name }) => ({ granularity, nameLength: new TextEncoder().encode(name).length }));
}

async function* extentsOf(source: Source) {
  for (let offset = 0; offset < source.length; ) {
    const { end, zero } = source.tryRunNow(offset) ?? (await source.run(offset));
    yield { offset, length: end - offset, zero };
    offset = end;
  }
}
