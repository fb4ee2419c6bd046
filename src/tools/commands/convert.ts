/** `convert`: copies images into another, in any format. */
import type { Graph } from '../../core/graph.ts';
import { convert } from '../../jobs/convert.ts';
import type { Command } from '../command.ts';
import { cacheMode } from '../command-line/arguments.ts';
import { guessFormat } from '../command-line/format-guess.ts';
import {
  FORCE_SHARE,
  IMAGE_OPTS,
  OBJECT,
  PROGRESS,
  PROGRESS_MODE,
  QUIET,
  SHORT_FORMAT,
  SOURCE_CACHE,
} from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { existingTarget, newTarget, openSources, showSnapshot } from '../convert/images.ts';
import { type ConvertSettings, chosenBitmaps, readSettings } from '../convert/settings.ts';
import { Failure } from '../failure.ts';
import { newGraph } from '../graph.ts';
import { expectLargeWork } from '../large-work.ts';
import { withDisks } from '../open-image.ts';
import { askedDisplay, type ProgressDisplay } from '../output/progress.ts';

export const convertCommand: Command = {
  name: 'convert',
  summary: 'Copy images into a new one, in any format',
  usage:
    '[--object objectdef] [--image-opts] [--target-image-opts] [--target-is-zero] [--bitmaps] [-U] [-C] [-c] [-p] [-q] [-n] [-f fmt] [-t cache] [-T src_cache] [-O output_fmt] [-B backing_file [-F backing_fmt]] [-o options] [-l snapshot_param] [-S sparse_size] [-r rate_limit] [-m num_coroutines] [-W] [--salvage] filename [filename2 [...]] output_filename',
  operands: 'SOURCE... TARGET',
  description:
    'Several sources are put one behind another. The target gets its name when it is complete: an interruption leaves\nno file that looks whole. SOURCE may be "-", raw data from standard input;\nTARGET may be "-", standard output, or name a pipe: the image is written front to back (-c keeps what is\ncompressed in a temporary file before).\nThe target stands alone; with -B only what the source stores itself is copied, over an image that has the rest.',
  options: [
    SHORT_FORMAT,
    { short: 'O', argument: 'FMT', help: "the target's format; default: as its name ends, else raw" },
    { short: 'o', argument: 'OPTIONS', help: 'name=value,... for the target; "-o help" lists them' },
    {
      short: 'S',
      argument: 'SIZE',
      help: 'leave out zeroes of at least this many bytes (default 4k); 0: write everything',
    },
    { short: 'n', help: 'the target exists: write into it' },
    { long: 'target-is-zero', help: 'with -n: the target reads as zeroes, zeroes need not be written' },
    { short: 'm', argument: 'N', help: 'copies in parallel, 1 to 16 (default 8)' },
    { short: 'W', help: 'write in any order' },
    { short: 'C', help: 'let the system copy where it can' },
    { short: 'r', argument: 'RATE', help: 'at most so many bytes a second' },
    { long: 'salvage', help: 'what cannot be read becomes zeroes, with a warning' },
    {
      short: 't',
      argument: 'CACHE',
      help: 'cache mode of the target: unsafe (default), none, writeback, directsync, writethrough',
    },
    SOURCE_CACHE,
    { short: 'c', help: 'compress the target, where its format can' },
    { short: 'B', argument: 'FILE', help: 'base the target on this image, which has what lies below the source' },
    { short: 'F', argument: 'FMT', help: 'the format of that image' },
    { long: 'flatten', help: 'the target is based on nothing; so it is anyway without -B', beyond: true },
    { short: 'l', argument: 'SNAPSHOT', help: 'what the source was at a snapshot inside it, by id or name' },
    { long: 'bitmaps', help: 'copy the dirty bitmaps that the source keeps' },
    { long: 'skip-broken-bitmaps', help: 'leave out bitmaps that are inconsistent, with a warning' },
    PROGRESS,
    PROGRESS_MODE,
    QUIET,
    OBJECT,
    IMAGE_OPTS,
    { long: 'target-image-opts', help: 'the target is an option string; with -n' },
    FORCE_SHARE,
  ],
  examples: [
    'convert disk.raw disk.vdi',
    'convert -p -O raw disk.vdi disk.img',
    'convert disk.vdi - | gzip > disk.raw.gz',
    'convert disk.raw -O qcow2 - | ssh host "cat > disk.qcow2"',
    'convert -c -O qcow2 -o compression_type=zstd disk.raw small.qcow2',
    'convert -n -O vdi disk.raw existing.vdi',
    'convert --flatten overlay.vdi alone.vdi',
    'convert -B base.vdi -F vdi overlay.vdi copy.vdi',
  ],
  run,
};

async function run(context: Context): Promise<number> {
  const settings = readSettings(context, convertCommand);
  const { given, options } = settings;
  if (!given.has('c')) expectLargeWork(given.operands.slice(0, -1));
  const target = given.operands.length < 2 ? undefined : given.operands.at(-1);
  const format = given.text('O') ?? guessFormat(context.dialect, target);
  const graph = newGraph(context);
  if (options.wantsHelp) {
    const { creationHelp } = await import('../output/option-help.ts');
    context.out.write(await creationHelp(graph, context.dialect, format, target));
    return 0;
  }
  if (target === undefined) throw new Failure('Must specify image file name');
  const written = !context.dialect.qemu && (target === '-' || (!given.has('n') && (await isSequential(graph, target))));
  if (written || (!context.dialect.qemu && given.operands.includes('-'))) {
    const { convertStream } = await import('../convert/stream.ts');
    return convertStream(context, graph, settings, { target, format, written });
  }
  const cache = cacheMode('source cache', given.text('T'));
  const display = askedDisplay(context, given, { step: 1 });
  display.begin();
  try {
    const sources = await openSources(context, graph, settings, given.operands.slice(0, -1), cache);
    await withDisks(sources, async () => {
      if (settings.snapshot !== undefined) await showSnapshot(sources, settings.snapshot);
      const into = given.has('n')
        ? await existingTarget(context, graph, settings, sources, { name: target, guessed: format })
        : await newTarget(graph, settings, target, format);
      const work = () => convert({ graph, sources, target: into, ...copyOptions(context, settings, display) });
      await withDisks('existing' in into ? [into.existing] : [], work);
    });
    display.complete();
  } finally {
    display.end();
  }
  return 0;
}

/** Whether a name is that of a pipe or a character device, which take bytes in order only. */
async function isSequential({ host }: Graph, name: string): Promise<boolean> {
  const info = await host.files.stat(name).catch(() => undefined);
  return info?.kind === 'pipe' || info?.kind === 'character';
}

function copyOptions(context: Context, settings: ConvertSettings, display: ProgressDisplay) {
  const { given, sparseSize, parallel, rateLimit } = settings;
  return {
    sparseSize,
    parallel,
    rateLimit,
    compress: given.has('c'),
    outOfOrder: given.has('W'),
    copyOffload: given.has('C'),
    salvage: given.has('salvage'),
    bitmaps: chosenBitmaps(given),
    skippedBitmap: (name: string) => context.messages.warning(`Skipping inconsistent bitmap '${name}'`),
    signal: context.signal,
    progress: display.update,
    roughProgress: display.seldom,
    warn: (message: string) => {
      if (!given.has('q')) context.messages.warning(message);
    },
  };
}
