/** `bench`: many requests of one size, and how long they take (T-BENCH-1). */
import { addContext, BlockError } from '../../core/errors.ts';
import { type BenchOptions, benchDisk } from '../../jobs/bench.ts';
import { type Command, type GivenOptions, type OptionHandlers, readCommandLine } from '../command.ts';
import { cacheMode } from '../command-line/arguments.ts';
import { plainNumber, sizeArgument } from '../command-line/numbers.ts';
import { FORCE_SHARE, IMAGE_OPTS, OBJECT, QUIET, SHORT_FORMAT } from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { Failure, misuse } from '../failure.ts';
import { newGraph } from '../graph.ts';
import { AIO_MODES, requireDirectFiles } from '../native-aio.ts';
import { imageRequest, openImage, withDisks } from '../open-image.ts';

const INT_MAX = 2 ** 31 - 1;

export const benchCommand: Command = {
  name: 'bench',
  summary: 'Send many requests of one size, and tell how long they take',
  usage:
    '[--object objectdef] [--image-opts] [-c count] [-d depth] [-f fmt] [--flush-interval=flush_interval] [-i aio] [-n] [--no-drain] [-o offset] [--pattern=pattern] [-q] [-s buffer_size] [-S step_size] [-t cache] [-w] [-U] filename',
  operands: 'FILENAME',
  description: 'With -w the content of the disk is overwritten.',
  options: [
    { short: 'c', argument: 'NUMBER', help: 'requests in all (default 75000)' },
    { short: 'd', argument: 'NUMBER', help: 'requests under way at a time (default 64)' },
    SHORT_FORMAT,
    { long: 'flush-interval', argument: 'NUMBER', help: 'with -w: flush each time when so many have been sent' },
    { short: 'i', argument: 'MODE', help: 'threads, native or io_uring: accepted' },
    { short: 'n', help: 'as -i native' },
    { long: 'no-drain', help: 'flush beside requests that are under way' },
    { short: 'o', argument: 'BYTES', help: 'where the first request goes (default 0)' },
    { long: 'pattern', argument: 'BYTE', help: 'with -w: what is written, 0 to 255 (default 0)' },
    QUIET,
    { short: 's', argument: 'BYTES', help: 'size of each request (default 4096)' },
    { short: 'S', argument: 'BYTES', help: 'from one request to the next; default: their size' },
    { short: 't', argument: 'CACHE', help: 'cache mode, as of convert (default writeback)' },
    { short: 'w', help: 'write; default: read' },
    OBJECT,
    IMAGE_OPTS,
    FORCE_SHARE,
  ],
  examples: ['bench disk.vdi', 'bench -w -d 1 -s 64k scratch.vdi'],
  run,
};

type Requests = Omit<BenchOptions, 'clock' | 'signal'>;

async function run(context: Context): Promise<number> {
  const given = readCommandLine(context, benchCommand, CHECKS);
  const [filename] = given.operands;
  if (filename === undefined || given.operands.length !== 1) throw misuse('Expecting one image file name');
  const requests = requestsOf(given);
  const { write, count, depth, size, offset, step, flushInterval } = requests;
  if (!write && flushInterval > 0) throw new Failure('--flush-interval is only available in write tests');
  if (flushInterval > 0 && flushInterval < depth) throw new Failure("Flush interval can't be smaller than depth");
  const graph = newGraph(context);
  const cache = given.text('t') ?? 'writeback';
  const request = { ...imageRequest(context, given, filename, 'f'), writable: write, cache: cacheMode('cache', cache) };
  const disk = await openImage(graph, request);
  let took = 0;
  await withDisks([disk], async () => {
    if (given.has('n') || given.text('i') === 'native') requireDirect(() => requireDirectFiles(graph), filename);
    const kind = write ? 'write' : 'read';
    const where = `(starting at offset ${offset}, step size ${step})`;
    context.out.line(`Sending ${count} ${kind} requests, ${size} bytes each, ${depth} in parallel ${where}`);
    if (flushInterval > 0) context.out.line(`Sending flush every ${flushInterval} requests`);
    try {
      took = await benchDisk(disk, { ...requests, clock: graph.host.clock, signal: context.signal });
    } catch (error) {
      throw error instanceof BlockError ? addContext('Failed request', error) : error;
    }
  });
  context.out.line(`Run completed in ${(took / 1000).toFixed(3)} seconds.`);
  return 0;
}

function requireDirect(check: () => void, filename: string): void {
  try {
    check();
  } catch (error) {
    throw error instanceof BlockError ? addContext(`Could not open '${filename}'`, error) : error;
  }
}

function whole(text: string, what: string, { min = 0, max = INT_MAX } = {}): number {
  const value = plainNumber(text);
  if (value === undefined || value < min || value > max) throw new Failure(`Invalid ${what} specified`);
  return value;
}

/** Values are refused in the order in which they are given. */
const READERS = {
  c: (text: string) => whole(text, 'request count'),
  d: (text: string) => whole(text, 'queue depth', { min: 1 }),
  'flush-interval': (text: string) => whole(text, 'flush interval'),
  pattern: (text: string) => whole(text, 'pattern byte', { max: 255 }),
  o: (text: string) => sizeArgument('offset', text),
  s: (text: string) => sizeArgument('buffer size', text, { max: BigInt(INT_MAX) }),
  S: (text: string) => sizeArgument('step_size', text, { max: BigInt(INT_MAX) }),
};

const CHECKS: OptionHandlers = {
  ...READERS,
  i(mode) {
    if (!AIO_MODES.includes(mode)) throw new Failure(`Invalid aio option: ${mode}`);
  },
  t(mode) {
    try {
      cacheMode('cache', mode);
    } catch (cause) {
      throw new Failure('Invalid cache mode', { cause });
    }
  },
};

function requestsOf(given: GivenOptions): Requests {
  const value = (name: keyof typeof READERS, fallback: number) => {
    const text = given.text(name);
    return text === undefined ? fallback : READERS[name](text);
  };
  const size = value('s', 4096);
  return {
    write: given.has('w'),
    count: value('c', 75_000),
    depth: value('d', 64),
    size,
    offset: value('o', 0),
    step: value('S', 0) || size,
    pattern: value('pattern', 0),
    flushInterval: value('flush-interval', 0),
    drain: !given.has('no-drain'),
  };
}
