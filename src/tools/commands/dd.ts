/** `dd`: copies blocks of an image into a new one. */
import { creationDrivers } from '../../core/create.ts';
import { dd } from '../../jobs/dd.ts';
import { type Command, readCommandLine } from '../command.ts';
import { guessFormat } from '../command-line/format-guess.ts';
import { sizeArgument } from '../command-line/numbers.ts';
import { FORCE_SHARE, IMAGE_OPTS, OBJECT, PROGRESS_MODE, SHORT_FORMAT } from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { Failure } from '../failure.ts';
import { newGraph } from '../graph.ts';
import { imageRequest, openImage, withDisks } from '../open-image.ts';
import { askedDisplay } from '../output/progress.ts';

const BLOCK_SIZE_MAX = (1n << 31n) - 1n;

export const ddCommand: Command = {
  name: 'dd',
  summary: 'Copy blocks of an image into a new one',
  usage: '[--image-opts] [-U] [-f fmt] [-O output_fmt] [bs=block_size] [count=blocks] [skip=blocks] if=input of=output',
  operands: 'if=FILENAME of=FILENAME [bs=SIZE] [count=N] [skip=N]',
  description:
    'bs: bytes in a block (default 512). skip: blocks of the input to leave out. count: where to stop, in blocks from the\nstart of the input.',
  options: [
    SHORT_FORMAT,
    { short: 'O', argument: 'FMT', help: "the new image's format; default: as its name ends, else raw" },
    PROGRESS_MODE,
    OBJECT,
    IMAGE_OPTS,
    FORCE_SHARE,
  ],
  examples: ['dd if=disk.vdi of=boot.raw bs=512 count=1', 'dd if=disk.raw of=rest.raw bs=1M skip=1'],
  run,
};

interface Operands {
  readonly input: string;
  readonly output: string;
  /** Bytes in a block. */
  readonly blockSize: number;
  /** Blocks from the input's start; undefined: all. */
  readonly count: number | undefined;
  /** Blocks. */
  readonly skip: number;
}

async function run(context: Context): Promise<number> {
  const given = readCommandLine(context, ddCommand);
  const { input, output, blockSize, count, skip } = parseOperands(given.operands);
  const graph = newGraph(context);
  const disk = await openImage(graph, imageRequest(context, given, input, 'f'));
  const format = given.text('O') ?? guessFormat(context.dialect, output);
  // qemu-img's dd tells no progress, not even to SIGUSR1 (T-GEN-16).
  const display = askedDisplay(context, given, { quiet: context.dialect.qemu, step: 1 });
  let skippedPastEnd: boolean;
  try {
    ({ skippedPastEnd } = await withDisks([disk], async () => {
      if (graph.driver(format) === undefined) throw new Failure('Unknown file format');
      await creationDrivers(graph, format, output);
      display.begin();
      const target = { filename: output, format };
      const { signal } = context;
      return dd({ graph, input: disk, output: target, blockSize, count, skip, signal, progress: display.update });
    }));
    display.complete();
  } finally {
    display.end();
  }
  if (skippedPastEnd) context.messages.error(`${input}: cannot skip to specified offset`);
  return 0;
}

function parseOperands(words: readonly string[]): Operands {
  let input: string | undefined;
  let output: string | undefined;
  let blockSize = 512;
  let count: number | undefined;
  let skip = 0;
  for (const word of words) {
    const equals = word.indexOf('=');
    const name = equals < 0 ? word : word.slice(0, equals);
    const value = word.slice(equals + 1);
    if (equals < 0) throw new Failure(`unrecognized operand ${name}`);
    if (name === 'if') input = value;
    else if (name === 'of') output = value;
    else if (name === 'bs') blockSize = sizeArgument('bs', value, { min: 1n, max: BLOCK_SIZE_MAX });
    else if (name === 'count') count = sizeArgument('count', value);
    else if (name === 'skip') skip = sizeArgument('skip', value);
    else throw new Failure(`unrecognized operand ${name}`);
  }
  if (input === undefined || output === undefined) throw new Failure('Must specify both input and output files');
  return { input, output, blockSize, count, skip };
}
