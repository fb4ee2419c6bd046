/** `convert`: copies images into another, in any format. */
import { type Command, type GivenOptions, readCommandLine } from '../command.ts';
import { checkSnapshotArgument } from '../command-line/arguments.ts';
import { guessFormat } from '../command-line/format-guess.ts';
import { plainNumber, sizeArgument } from '../command-line/numbers.ts';
import { OptionList } from '../command-line/option-list.ts';
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
import { Failure } from '../failure.ts';
import { newGraph } from '../graph.ts';
import { type ProgressMode, progressMode } from '../output/progress.ts';

const PARALLEL_MAX = 16;
const SPARSE_SIZE_MAX = 16 << 20;

export const convertCommand: Command = {
  name: 'convert',
  summary: 'Copy images into a new one, in any format',
  usage:
    '[--object objectdef] [--image-opts] [--target-image-opts] [--target-is-zero] [--bitmaps] [-U] [-C] [-c] [-p] [-q] [-n] [-f fmt] [-t cache] [-T src_cache] [-O output_fmt] [-B backing_file [-F backing_fmt]] [-o options] [-l snapshot_param] [-S sparse_size] [-r rate_limit] [-m num_coroutines] [-W] [--salvage] filename [filename2 [...]] output_filename',
  operands: 'SOURCE... TARGET',
  description:
    'Several sources are put one behind another. The target gets its name when it is complete: an interruption leaves\nno file that looks whole. SOURCE or TARGET may be "-": raw data from standard input, to standard output.',
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
    { short: 'c', help: 'compress the target', unavailable: true },
    { short: 'B', argument: 'FILE', help: 'the image that the target is to be based on', unavailable: true },
    { short: 'F', argument: 'FMT', help: 'the format of that image', unavailable: true },
    { short: 'l', argument: 'SNAPSHOT', help: 'a snapshot inside the source', unavailable: true },
    { long: 'bitmaps', help: 'copy persistent bitmaps', unavailable: true },
    { long: 'skip-broken-bitmaps', help: 'leave out bitmaps that are not consistent', unavailable: true },
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
    'convert -n -O vdi disk.raw existing.vdi',
  ],
  run,
};

/** Settings that are checked while the command line is read (T-CONV-2). */
interface Settings {
  readonly given: GivenOptions;
  readonly options: OptionList;
  readonly sparseSize: number;
  /** Bytes per second. */
  readonly rateLimit: number | undefined;
  readonly parallel: number;
  readonly mode: ProgressMode | undefined;
}

async function run(context: Context): Promise<number> {
  const settings = readSettings(context);
  const { given, options } = settings;
  const target = given.operands.length < 2 ? undefined : given.operands.at(-1);
  const format = given.text('O') ?? guessFormat(context.dialect, target);
  const graph = newGraph(context);
  if (options.wantsHelp) {
    const { creationHelp } = await import('../output/option-help.ts');
    context.out.write(await creationHelp(graph, context.dialect, format, target));
    return 0;
  }
  if (target === undefined) throw new Failure('Must specify image file name');
  return 0;
}

function readSettings(context: Context): Settings {
  const options = new OptionList();
  let sparseSize = 4096;
  let rateLimit: number | undefined;
  let parallel = 8;
  let mode: ProgressMode | undefined;
  const given = readCommandLine(context, convertCommand, {
    o: (value) => options.add(value),
    S: (value) => {
      sparseSize = parseSparseSize(value);
    },
    r: (value) => {
      rateLimit = sizeArgument('rate limit', value);
    },
    m: (value) => {
      parallel = parseParallel(value);
    },
    l: (value) => checkSnapshotArgument(value, (message, hint) => context.messages.warning(message, hint)),
    progress: (value) => {
      mode = progressMode(value);
    },
  });
  refuseCombinations(given);
  return { given, options, sparseSize, rateLimit, parallel, mode };
}

function parseSparseSize(text: string): number {
  const size = sizeArgument('buffer size for sparse output', text);
  if (size % 512 === 0 && size <= SPARSE_SIZE_MAX) return size;
  throw new Failure(
    `Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to ${SPARSE_SIZE_MAX}. ` +
      'Select 0 to disable sparse detection (fully allocates output).',
  );
}

function parseParallel(text: string): number {
  const count = plainNumber(text);
  if (count !== undefined && count >= 1 && count <= PARALLEL_MAX) return count;
  throw new Failure(`Invalid number of coroutines. Allowed number of coroutines is between 1 and ${PARALLEL_MAX}`);
}

/** Options that contradict each other, in the order of T-CONV-2. */
function refuseCombinations(given: GivenOptions): void {
  const refusals: readonly (readonly [boolean, string])[] = [
    [given.has('skip-broken-bitmaps') && !given.has('bitmaps'), 'Use of --skip-broken-bitmaps requires --bitmaps'],
    [given.has('C') && given.has('c'), 'Cannot enable copy offloading when -c is used'],
    [given.has('C') && given.has('S'), 'Cannot enable copy offloading when -S is used'],
    [given.has('C') && given.has('salvage'), 'Cannot use copy offloading in salvaging mode'],
    [given.has('target-image-opts') && !given.has('n'), '--target-image-opts requires use of -n flag'],
    [given.has('o') && given.has('n'), '-o has no effect when skipping image creation'],
    [given.has('target-is-zero') && !given.has('n'), '--target-is-zero requires use of -n flag'],
  ];
  const refused = refusals.find(([applies]) => applies);
  if (refused !== undefined) throw new Failure(refused[1]);
}
