/** `amend`: changes what the format keeps of an image, in place (T-AMEND-1). */
import { amendSchema, checkAmendOptions } from '../../core/amend.ts';
import type { Disk } from '../../core/disk.ts';
import { BlockError } from '../../core/errors.ts';
import { parseSizeOption } from '../../core/options.ts';
import { type Command, type GivenOptions, readCommandLine } from '../command.ts';
import { cacheMode } from '../command-line/arguments.ts';
import { OptionList } from '../command-line/option-list.ts';
import { IMAGE_OPTS, OBJECT, PROGRESS, PROGRESS_MODE, QUIET } from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { Failure, misuse } from '../failure.ts';
import { newGraph } from '../graph.ts';
import { imageRequest, openImage, withDisks } from '../open-image.ts';
import { askedDisplay, type ProgressDisplay } from '../output/progress.ts';

export const amendCommand: Command = {
  name: 'amend',
  summary: 'Change options of the format of an existing image, in place',
  usage: '[--object objectdef] [--image-opts] [-p] [-q] [-f fmt] [-t cache] [--force] -o options filename',
  operands: 'FILENAME',
  description:
    'What can be changed is, of qcow2 images: the version, the width of reference counts, lazy refcounts, the size,\npassphrases, and what is said of a data file. All that speaks against it is found before anything is changed.',
  options: [
    { short: 'f', argument: 'FMT', help: "the image's format; default: probed" },
    { short: 'o', argument: 'OPTIONS', help: 'name=value,... to be changed; "-o help" lists them' },
    { short: 't', argument: 'CACHE', help: 'cache mode: writeback (default), none, directsync, writethrough, unsafe' },
    { long: 'force', help: 'allow what loses data or access to them' },
    PROGRESS,
    PROGRESS_MODE,
    QUIET,
    OBJECT,
    IMAGE_OPTS,
  ],
  examples: [
    'amend -o compat=1.1,lazy_refcounts=on disk.qcow2',
    'amend -o refcount_bits=64 disk.qcow2',
    'amend -f qcow2 -o help',
  ],
  run,
};

async function run(context: Context): Promise<number> {
  const options = new OptionList();
  const given = readCommandLine(context, amendCommand, { o: (value) => options.add(value) });
  if (!options.given) throw misuse('Must specify options (-o)');
  const display = askedDisplay(context, given, { step: 1 });
  try {
    await amend(context, given, options, display);
  } finally {
    display.end();
  }
  return 0;
}

async function amend(
  context: Context,
  given: GivenOptions,
  options: OptionList,
  display: ProgressDisplay,
): Promise<void> {
  const graph = newGraph(context);
  const showHelp = async (format: string) => {
    const driver = graph.driver(format);
    if (driver === undefined) throw new Failure(`Unknown file format '${format}'`);
    const schema = amendSchema(driver);
    const { optionLines } = await import('../output/option-help.ts');
    context.out.write(`Amend options for '${format}':\n${optionLines(schema)}`);
  };
  const format = given.text('f');
  if (format !== undefined && options.wantsHelp) return showHelp(format);
  const [filename] = given.operands;
  if (filename === undefined || given.operands.length !== 1) throw new Failure('Expecting one image file name');
  const cache = cacheMode('cache', given.text('t'));
  const disk = await openImage(graph, { ...imageRequest(context, given, filename, 'f'), writable: true, cache });
  await withDisks([disk], async () => {
    if (options.wantsHelp) return showHelp(disk.format);
    await amendDisk(context, disk, options, display, given.has('force'));
  });
}

async function amendDisk(
  context: Context,
  disk: Disk,
  options: OptionList,
  display: ProgressDisplay,
  force: boolean,
): Promise<void> {
  const tree = options.tree();
  checkAmendOptions(disk.node.driver, tree);
  if (!context.dialect.qemu && !force && tree.size !== undefined && parseSizeOption(tree.size, 'size') < disk.length) {
    throw new BlockError('EINVAL', 'The disk would become smaller, and what is cut off lost: use --force');
  }
  display.begin();
  try {
    await disk.amend(tree, { force, progress: display.update, signal: context.signal });
  } finally {
    display.complete();
  }
}
