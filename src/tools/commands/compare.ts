/** `compare`: whether two images have the same content. */
import type { Disk } from '../../core/disk.ts';
import { BlockError } from '../../core/errors.ts';
import { type Comparison, compare, STATUS_FAILURE } from '../../jobs/compare.ts';
import { type Command, readCommandLine } from '../command.ts';
import { cacheMode } from '../command-line/arguments.ts';
import {
  FORCE_SHARE,
  IMAGE_OPTS,
  OBJECT,
  PROGRESS,
  PROGRESS_MODE,
  QUIET,
  SOURCE_CACHE,
} from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { misuse, withStatus } from '../failure.ts';
import { newGraph } from '../graph.ts';
import { expectLargeWork } from '../large-work.ts';
import { type ImageRequest, imageRequest, openImage, withDisks } from '../open-image.ts';
import { askedDisplay, type ProgressDisplay } from '../output/progress.ts';

/** Exit statuses (T-GEN-7). */
const DIFFERENT = 1;
const NOT_OPENED_OR_BAD_OPTION = 2;
const NO_STATUS = 3;
const NOT_READ = 4;

export const compareCommand: Command = {
  name: 'compare',
  summary: 'Tell whether two images have the same content, in whatever formats',
  usage: '[--object objectdef] [--image-opts] [-f fmt] [-F fmt] [-T src_cache] [-p] [-q] [-s] [-U] filename1 filename2',
  operands: 'FILENAME1 FILENAME2',
  description:
    'An image that is longer than the other is still the same if the rest is zero. Exit status: 0 the same, 1 different,\n2 an image could not be opened, 3 and 4 it could not be read.',
  options: [
    { short: 'f', argument: 'FMT', help: "the first image's format; default: probed" },
    { short: 'F', argument: 'FMT', help: "the second image's format; default: probed" },
    { short: 's', help: 'strict: sizes must agree, and what is stored and what is not' },
    SOURCE_CACHE,
    PROGRESS,
    PROGRESS_MODE,
    QUIET,
    OBJECT,
    IMAGE_OPTS,
    FORCE_SHARE,
  ],
  examples: ['compare disk.raw disk.vdi', 'compare -s old.vdi new.vdi && echo same'],
  failureStatus: NOT_OPENED_OR_BAD_OPTION,
  run,
};

async function run(context: Context): Promise<number> {
  const given = readCommandLine(context, compareCommand);
  const [nameA, nameB] = given.operands;
  if (nameA === undefined || nameB === undefined || given.operands.length !== 2) {
    throw misuse('Expecting two image file names');
  }
  expectLargeWork(given.operands);
  const quiet = given.has('q');
  const display = askedDisplay(context, given, { step: 2 });
  try {
    const cache = cacheMode('source cache', given.text('T'));
    const a = { ...imageRequest(context, given, nameA, 'f'), cache };
    const disks = await openBoth(context, a, { ...imageRequest(context, given, nameB, 'F'), cache });
    return await withDisks(disks, () => compareDisks(context, disks, { strict: given.has('s'), quiet, display }));
  } finally {
    display.end();
  }
}

async function openBoth(context: Context, a: ImageRequest, b: ImageRequest): Promise<[Disk, Disk]> {
  const graph = newGraph(context);
  const opened: Disk[] = [];
  try {
    const first = await openImage(graph, a);
    opened.push(first);
    return [first, await openImage(graph, b)];
  } catch (error) {
    for (const disk of opened) await disk.close();
    throw error;
  }
}

interface CompareSettings {
  readonly strict: boolean;
  readonly quiet: boolean;
  readonly display: ProgressDisplay;
}

async function compareDisks(context: Context, [a, b]: [Disk, Disk], settings: CompareSettings): Promise<number> {
  const { strict, quiet, display } = settings;
  const print = (line: string) => {
    display.release();
    if (!quiet) context.out.line(line);
  };
  display.begin();
  let found: Comparison;
  try {
    found = await compare(a, b, {
      strict,
      signal: context.signal,
      progress: display.update,
      sizesDiffer: () => print('Warning: Image size mismatch!'),
    });
  } catch (error) {
    const status = error instanceof BlockError && error.message.startsWith(STATUS_FAILURE) ? NO_STATUS : NOT_READ;
    throw withStatus(error, status);
  }
  print(outcome(found));
  return found.kind === 'identical' ? 0 : DIFFERENT;
}

/** T-CMP-1, T-CMP-2. */
function outcome(found: Comparison): string {
  switch (found.kind) {
    case 'identical':
      return 'Images are identical.';
    case 'content':
      return `Content mismatch at offset ${found.offset}!`;
    case 'size':
      return 'Strict mode: Image size mismatch!';
    case 'status':
      return `Strict mode: Offset ${found.offset} block status mismatch!`;
  }
}
