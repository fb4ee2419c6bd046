/** `resize`: makes a disk larger or smaller. */
import type { Preallocation } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { parseSizeChange, resizeDisk, SHRINK_REFUSAL, SHRINK_WARNING } from '../../jobs/resize.ts';
import { type Command, readCommandLine } from '../command.ts';
import { FORMAT, IMAGE_OPTS, OBJECT, QUIET } from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { Failure, HelpRequest, misuse } from '../failure.ts';
import { newGraph } from '../graph.ts';
import { imageRequest, openImage, withDisks } from '../open-image.ts';

const PREALLOCATIONS: readonly string[] = ['off', 'metadata', 'falloc', 'full'] satisfies Preallocation[];

export const resizeCommand: Command = {
  name: 'resize',
  summary: 'Make a disk larger or smaller',
  usage: '[--object objectdef] [--image-opts] [-f fmt] [--preallocation=prealloc] [-q] [--shrink] filename [+ | -]size',
  operands: 'FILENAME [+ | -]SIZE',
  description:
    'SIZE is the new size, or what is to be added (+) or cut off (-). File systems on the disk are not touched: make\nthem smaller before the disk, and larger after it.',
  options: [
    FORMAT,
    { long: 'preallocation', argument: 'MODE', help: 'how what is added is stored: off, metadata, falloc or full' },
    { long: 'shrink', help: 'allow to make the disk smaller; what is cut off is lost' },
    QUIET,
    OBJECT,
    IMAGE_OPTS,
  ],
  examples: ['resize disk.vdi +10G', 'resize --shrink disk.vdi 20G'],
  run,
};

async function run(context: Context): Promise<number> {
  // The last word is the size in any case, so that "-1M" is none of the options.
  const words = context.words.slice(0, -1);
  const sizeText = context.words.at(-1);
  if (!context.dialect.qemu && (sizeText === '--help' || sizeText === '-h')) throw new HelpRequest(resizeCommand);
  if (sizeText === undefined || words.length === 0) throw misuse('Not enough arguments');
  const given = readCommandLine(context, resizeCommand, { preallocation: checkPreallocation }, words);
  const [filename] = given.operands;
  if (filename === undefined || given.operands.length !== 1) throw misuse('Expecting image file name and size');
  const change = parseSizeChange(sizeText);
  const preallocation = (given.text('preallocation') ?? 'off') as Preallocation;
  const request = { ...imageRequest(context, given, filename, 'format'), writable: true };
  const disk = await openImage(newGraph(context), request);
  try {
    await withDisks([disk], () => resizeDisk(disk, change, { shrink: given.has('shrink'), preallocation }));
  } catch (error) {
    if (!(error instanceof BlockError) || error.message !== SHRINK_REFUSAL) throw error;
    throw new Failure(SHRINK_REFUSAL, { continuation: `warning: ${SHRINK_WARNING}`, cause: error });
  }
  if (!given.has('q')) context.out.line('Image resized.');
  return 0;
}

function checkPreallocation(mode: string): void {
  if (!PREALLOCATIONS.includes(mode)) throw new Failure(`Invalid preallocation mode '${mode}'`);
}
