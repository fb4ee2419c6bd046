/** The images of `convert`: sources, and the target that is new or there already. */
import type { CacheMode } from '../../core/cache.ts';
import { checkCreationOptions, creationDrivers, creationSchema } from '../../core/create.ts';
import type { Disk } from '../../core/disk.ts';
import type { Graph } from '../../core/graph.ts';
import type { ConvertTarget } from '../../jobs/convert.ts';
import { cacheMode, type Warning } from '../command-line/arguments.ts';
import type { Context } from '../context.ts';
import { Failure } from '../failure.ts';
import { imageRequest, openImage } from '../open-image.ts';
import { noSnapshots } from '../snapshots.ts';
import type { ConvertSettings } from './settings.ts';

/** All or none. */
export async function openSources(
  context: Context,
  graph: Graph,
  { given }: ConvertSettings,
  names: readonly string[],
  cache: CacheMode,
): Promise<readonly Disk[]> {
  const sources: Disk[] = [];
  try {
    for (const name of names) {
      const salvage = given.has('salvage');
      sources.push(
        await openImage(graph, { ...imageRequest(context, given, name, 'f'), cache, salvage, noWriters: true }),
      );
    }
  } catch (error) {
    await Promise.allSettled(sources.map((disk) => disk.close()));
    throw error;
  }
  return sources;
}

export function refuseSnapshot(sources: readonly Disk[]): never {
  const [only] = sources;
  if (only === undefined || sources.length > 1) throw new Failure('No support for concatenating multiple snapshot');
  throw noSnapshots(only);
}

/** What a new image needs is checked before anything is made, in the order of T-CONV-2. */
export async function newTarget(
  graph: Graph,
  { given, options }: ConvertSettings,
  filename: string,
  format: string,
): Promise<ConvertTarget> {
  const { spec, protocol } = await creationDrivers(graph, format, filename);
  const schema = creationSchema(spec, protocol);
  const tree = options.tree();
  checkCreationOptions(schema, tree);
  if (given.has('B') && !Object.hasOwn(schema, 'backing_file')) {
    throw new Failure(`Backing file not supported for file format '${format}'`);
  }
  if (given.has('F') && !Object.hasOwn(schema, 'backing_fmt')) {
    throw new Failure(`Backing file format not supported for file format '${format}'`);
  }
  if (given.has('c')) throw new Failure('Compression not supported for this file format');
  if (given.has('bitmaps')) throw new Failure('Source lacks bitmap support');
  const cache = cacheMode('cache', given.text('t') ?? 'unsafe');
  return { filename, format, createOptions: tree, cache };
}

/** `-n`. */
export async function existingTarget(
  { messages }: Context,
  graph: Graph,
  { given }: ConvertSettings,
  name: string,
  guessed: string,
): Promise<ConvertTarget> {
  if (given.has('target-is-zero') && given.has('B')) {
    throw new Failure('Cannot use --target-is-zero when the destination image has a backing file');
  }
  if (given.has('bitmaps')) throw new Failure('Source lacks bitmap support');
  const cache = cacheMode('cache', given.text('t') ?? 'unsafe');
  const imageOpts = given.has('target-image-opts');
  const warn: Warning = (message, hint) => messages.warning(message, hint);
  const format = imageOpts ? given.text('O') : guessed;
  const existing = await openImage(graph, { name, imageOpts, format, writable: true, cache, warn });
  if (given.has('c')) {
    await existing.close();
    throw new Failure('Compression not supported for this file format');
  }
  return { existing, isZero: given.has('target-is-zero') };
}
