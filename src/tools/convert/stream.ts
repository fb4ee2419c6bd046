/** `convert` with standard input as its source, raw data, or standard output as its target: in one pass. */
import { createImage } from '../../core/create.ts';
import type { Graph } from '../../core/graph.ts';
import { destinationFor } from '../../jobs/destination.ts';
import { isStreamable, streamImage } from '../../jobs/stream.ts';
import { cacheMode } from '../command-line/arguments.ts';
import type { Context } from '../context.ts';
import { Failure } from '../failure.ts';
import { withDisks } from '../open-image.ts';
import { askedDisplay } from '../output/progress.ts';
import { newTarget, openSources } from './images.ts';
import type { ConvertSettings } from './settings.ts';
import { readStdin, type StreamOptions, stdinSize, writeStdout } from './standard-streams.ts';

interface StreamTarget {
  readonly target: string;
  readonly format: string;
}

export async function convertStream(
  context: Context,
  graph: Graph,
  settings: ConvertSettings,
  into: StreamTarget,
): Promise<number> {
  const { given } = settings;
  const sources = given.operands.slice(0, -1);
  refuseImpossible(context, settings, sources, into, graph);
  // Percentages would mix with the data.
  const percentages = given.has('p') && into.target !== '-';
  const display = askedDisplay(context, given, { percentages, step: 1 });
  const options = { clock: graph.host.clock, signal: context.signal, progress: display.update };
  display.begin();
  try {
    if (into.target === '-') await toStdout(context, graph, settings, { sources, format: into.format }, options);
    else await fromStdin(graph, settings, into, options);
    display.complete();
  } finally {
    display.end();
  }
  return 0;
}

function refuseImpossible(
  { out }: Context,
  { given }: ConvertSettings,
  sources: readonly string[],
  { target, format }: StreamTarget,
  graph: Graph,
): void {
  const refusals: readonly (readonly [boolean, string])[] = [
    [target === '-' && sources.includes('-'), 'Standard input can only be converted to a file'],
    [target === '-' && !isStreamable(graph, format), `Images of format '${format}' cannot be written in one pass`],
    [target === '-' && out.isTerminal, 'Standard output is a terminal: redirect it, or give a file name'],
    [target !== '-' && sources.length > 1, 'Standard input can only be the only source'],
    [target !== '-' && (given.text('f') ?? 'raw') !== 'raw', 'Standard input gives raw data only'],
    [target === '-' && given.has('c'), 'Compressed images cannot be written in one pass'],
    [target === '-' && given.has('B'), 'Images over others cannot be written in one pass'],
    [given.has('bitmaps'), 'Bitmaps cannot be copied in one pass'],
    [given.has('n') || given.has('image-opts'), '-n and --image-opts cannot be used with "-"'],
  ];
  const refused = refusals.find(([applies]) => applies);
  if (refused !== undefined) throw new Failure(`${refused[1]}.`);
}

async function toStdout(
  context: Context,
  graph: Graph,
  settings: ConvertSettings,
  { sources: names, format }: { readonly sources: readonly string[]; readonly format: string },
  options: StreamOptions,
): Promise<void> {
  const cache = cacheMode('source cache', settings.given.text('T'));
  const sources = await openSources(context, graph, settings, names, cache);
  await withDisks(sources, async () => {
    const { signal } = context;
    const image = await streamImage(graph, { format, options: settings.options.tree(), sources, signal });
    await writeStdout(image, options);
  });
}

/** The target has its size when all has come; it gets its name then. */
async function fromStdin(
  graph: Graph,
  settings: ConvertSettings,
  { target: filename, format }: StreamTarget,
  options: StreamOptions,
): Promise<void> {
  const target = await newTarget(graph, settings, filename, format);
  const { createOptions, cache } = 'filename' in target ? target : {};
  const destination = await destinationFor(graph, filename);
  const { workName } = destination;
  try {
    const size = stdinSize() ?? 0;
    await createImage(graph, { filename: workName, format, options: { ...createOptions, size } });
    const disk = await graph.open(workName, { format, writable: true, ...(cache && { cache }) });
    const rule = { sparseSize: settings.sparseSize, compressed: settings.given.has('c') };
    await withDisks([disk], () => readStdin(disk, rule, options));
    await destination.commit();
  } catch (error) {
    await destination.abandon();
    throw destination.rename(error);
  }
}
