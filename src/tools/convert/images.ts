/** The images of `convert`: sources, and the target that is new or there already. */
import type { CacheMode } from '../../core/cache.ts';
import { refusesCompressed } from '../../core/compressed-write.ts';
import { checkCreationOptions, creationDrivers, creationSchema } from '../../core/create.ts';
import { backingOptionNames } from '../../core/create-backing.ts';
import type { Disk } from '../../core/disk.ts';
import type { SnapshotChoice } from '../../core/disk-snapshots.ts';
import type { DriverSpec } from '../../core/driver.ts';
import type { Graph } from '../../core/graph.ts';
import type { OptionTree } from '../../core/options.ts';
import { checkCompression, noCompression } from '../../jobs/compression-checks.ts';
import type { ConvertTarget } from '../../jobs/convert.ts';
import { checkBitmapSources } from '../../jobs/copy-bitmaps.ts';
import type { GivenOptions } from '../command.ts';
import { cacheMode, type Warning } from '../command-line/arguments.ts';
import type { Context } from '../context.ts';
import { Failure } from '../failure.ts';
import { imageRequest, openImage } from '../open-image.ts';
import { loadSnapshot } from '../snapshots.ts';
import { type ConvertSettings, chosenBitmaps } from './settings.ts';

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

/** `-l`: what is copied is a snapshot inside the only source. */
export async function showSnapshot(sources: readonly Disk[], choice: SnapshotChoice): Promise<void> {
  const [only] = sources;
  if (only === undefined || sources.length > 1) throw new Failure('No support for concatenating multiple snapshot');
  await loadSnapshot(only, choice);
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
  const { backing, createOptions } = namedBacking(given, spec, tree);
  if (backing !== undefined && given.operands.length > 2) throw new Failure(MANY_SOURCES);
  if (backing !== undefined && backing.format === undefined) {
    throw new Failure('Use of backing file requires explicit backing format');
  }
  if (given.has('c')) checkCompression(spec, tree);
  const cache = cacheMode('cache', given.text('t') ?? 'unsafe');
  return { filename, format, createOptions, backing, cache };
}

const MANY_SOURCES = 'Having a backing file for the target makes no sense when concatenating multiple input images';

/** What the target is to be based on, by `-B` and `-F` or by options of its format, which are taken out of the others. */
function namedBacking(
  given: GivenOptions,
  spec: DriverSpec,
  tree: OptionTree,
): { backing: { filename: string; format: string | undefined } | undefined; createOptions: OptionTree } {
  const names = backingOptionNames(spec);
  if (given.has('B') && names === undefined) {
    throw new Failure(`Backing file not supported for file format '${spec.name}'`);
  }
  if (given.has('F') && names?.format === undefined && names?.only === undefined) {
    throw new Failure(`Backing file format not supported for file format '${spec.name}'`);
  }
  if (names === undefined) return { backing: undefined, createOptions: tree };
  const { [names.file]: optionFile, ...others } = tree;
  const { [names.format ?? '']: optionFormat, ...createOptions } = others;
  const filename = given.text('B') ?? optionFile;
  const told = given.text('F') ?? optionFormat ?? (given.has('B') ? undefined : names.only);
  const format = told === undefined ? undefined : String(told);
  if (filename !== undefined) return { backing: { filename: String(filename), format }, createOptions };
  // The format of nothing: its driver tells what it thinks of it.
  const alone = names.format !== undefined && format !== undefined ? { [names.format]: format } : {};
  return { backing: undefined, createOptions: { ...createOptions, ...alone } };
}

/** `-n`. */
export async function existingTarget(
  { messages }: Context,
  graph: Graph,
  { given }: ConvertSettings,
  sources: readonly Disk[],
  { name, guessed }: { readonly name: string; readonly guessed: string },
): Promise<ConvertTarget> {
  if (given.has('target-is-zero') && given.has('B')) {
    throw new Failure('Cannot use --target-is-zero when the destination image has a backing file');
  }
  if (given.has('B') && given.operands.length > 2) throw new Failure(MANY_SOURCES);
  const bitmaps = chosenBitmaps(given);
  if (bitmaps !== undefined) checkBitmapSources(sources, bitmaps);
  const cache = cacheMode('cache', given.text('t') ?? 'unsafe');
  const imageOpts = given.has('target-image-opts');
  const warn: Warning = (message, hint) => messages.warning(message, hint);
  const format = imageOpts ? given.text('O') : guessed;
  const existing = await openImage(graph, { name, imageOpts, format, writable: true, cache, warn });
  if (given.has('c') && refusesCompressed(existing.node) !== undefined) {
    await existing.close();
    throw noCompression();
  }
  return { existing, isZero: given.has('target-is-zero'), sharesBacking: given.has('B') };
}
