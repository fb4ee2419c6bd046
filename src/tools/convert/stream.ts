/** `convert` with standard input as its source, raw data, or standard output, a pipe or a character device as its target. */
import { closeSync } from 'node:fs';
import { isatty } from 'node:tty';
import { createImage } from '../../core/create.ts';
import type { Graph } from '../../core/graph.ts';
import { destinationFor } from '../../jobs/destination.ts';
import { rateLimit } from '../../jobs/rate-limit.ts';
import { isStreamable, streamImage } from '../../jobs/stream.ts';
import { cacheMode } from '../command-line/arguments.ts';
import type { Context } from '../context.ts';
import { Failure } from '../failure.ts';
import { withDisks } from '../open-image.ts';
import { askedDisplay } from '../output/progress.ts';
import { newTarget, openSources, showSnapshot } from './images.ts';
import type { ConvertSettings } from './settings.ts';
import { openStream, readStdin, STDOUT, type StreamOptions, stdinSize, writeStream } from './standard-streams.ts';

interface StreamTarget {
  readonly target: string;
  readonly format: string;
  /** The target takes bytes in order only. */
  readonly written: boolean;
}

export async function convertStream(
  context: Context,
  graph: Graph,
  settings: ConvertSettings,
  into: StreamTarget,
): Promise<number> {
  const { given } = settings;
  refuseImpossible(context, settings, into, graph);
  // Percentages would mix with the data.
  const percentages = given.has('p') && into.target !== '-';
  const display = askedDisplay(context, given, { percentages, step: 1 });
  const options = { clock: graph.host.clock, signal: context.signal, progress: display.update };
  display.begin();
  try {
    if (into.written) await toStream(context, graph, settings, into, options);
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
  { target, format, written }: StreamTarget,
  graph: Graph,
): void {
  const sources = given.operands.slice(0, -1);
  const fromStdin = sources.includes('-');
  const refusals: readonly (readonly [boolean, string])[] = [
    [written && fromStdin, 'Standard input can only be converted to a file'],
    [written && !isStreamable(graph, format), `Images of format '${format}' cannot be written in one pass`],
    [target === '-' && out.isTerminal, 'Standard output is a terminal: redirect it, or give a file name'],
    [fromStdin && sources.length > 1, 'Standard input can only be the only source'],
    [fromStdin && (given.text('f') ?? 'raw') !== 'raw', 'Standard input gives raw data only'],
    [given.has('bitmaps'), 'Bitmaps cannot be copied in one pass'],
    [given.has('n'), '-n cannot be used with what takes bytes in order only'],
    [fromStdin && given.has('image-opts'), '--image-opts cannot be used with "-"'],
  ];
  const refused = refusals.find(([applies]) => applies);
  if (refused !== undefined) throw new Failure(`${refused[1]}.`);
}

async function toStream(
  context: Context,
  graph: Graph,
  settings: ConvertSettings,
  { target: name, format }: StreamTarget,
  options: StreamOptions,
): Promise<void> {
  const { given, rateLimit: rate, snapshot } = settings;
  const target = await newTarget(graph, settings, name, format);
  const { createOptions, backing } = 'filename' in target ? target : {};
  const cache = cacheMode('source cache', given.text('T'));
  const sources = await openSources(context, graph, settings, given.operands.slice(0, -1), cache);
  await withDisks(sources, async () => {
    if (snapshot !== undefined) await showSnapshot(sources, snapshot);
    const { signal, clock } = options;
    const salvage = given.has('salvage')
      ? (message: string) => given.has('q') || context.messages.warning(message)
      : undefined;
    const asked = { format, options: createOptions ?? {}, backing, compress: given.has('c'), sources, salvage, signal };
    // Compressing takes the time, and writing comes after it: the first half, and the second.
    const halves = (half: number) => (done: number, total: number) => options.progress(half * total + done, 2 * total);
    const image = await streamImage(graph, { ...asked, progress: halves(0) });
    try {
      const progress = given.has('c') ? halves(1) : options.progress;
      const limit = rate === undefined ? undefined : rateLimit(rate, clock, signal);
      await intoNamed(name, options, (fd) => writeStream(fd, image, { ...options, progress, limit }));
    } finally {
      await image.close();
    }
  });
}

async function intoNamed(name: string, options: StreamOptions, work: (fd: number) => Promise<void>): Promise<void> {
  if (name === '-') return work(STDOUT);
  const fd = await openStream(name, options);
  try {
    if (isatty(fd)) throw new Failure(`'${name}' is a terminal.`);
    await work(fd);
  } finally {
    closeSync(fd);
  }
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
