/** `create`: makes an empty image. */
import { createImage } from '../../core/create.ts';
import { addContext, BlockError } from '../../core/errors.ts';
import { type Command, readCommandLine } from '../command.ts';
import { guessFormat } from '../command-line/format-guess.ts';
import { sizeArgument } from '../command-line/numbers.ts';
import { OptionList } from '../command-line/option-list.ts';
import { OBJECT, QUIET } from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { misuse } from '../failure.ts';
import { newGraph } from '../graph.ts';

export const createCommand: Command = {
  name: 'create',
  summary: 'Make an empty image',
  usage: '[--object objectdef] [-q] [-f fmt] [-b backing_file [-F backing_fmt]] [-u] [-o options] filename [size]',
  operands: 'FILENAME [SIZE]',
  options: [
    { short: 'f', argument: 'FMT', help: "the image's format; default: as the file name ends, else raw" },
    { short: 'o', argument: 'OPTIONS', help: 'name=value,... for the format; "-o help" lists them' },
    {
      short: 'b',
      argument: 'FILE',
      help: 'base it on this image, as seen from the folder of FILENAME; the size is then its',
    },
    { short: 'F', argument: 'FMT', help: 'the format of that image' },
    { short: 'u', help: 'do not look at the image it is based on, which need not be there' },
    QUIET,
    OBJECT,
  ],
  examples: [
    'create disk.vdi 20G',
    'create -f vdi -o static=on disk.vdi 1G',
    'create -f vdi -b base.vdi -F vdi overlay.vdi',
    'create -f vdi -o help disk.vdi',
  ],
  run,
};

async function run(context: Context): Promise<number> {
  const options = new OptionList();
  const given = readCommandLine(context, createCommand, { o: (value) => options.add(value) });
  const [filename, sizeText, unexpected] = given.operands;
  const format = given.text('f') ?? guessFormat(context.dialect, filename);
  const graph = newGraph(context);
  if (options.wantsHelp) {
    const { creationHelp } = await import('../output/option-help.ts');
    context.out.write(await creationHelp(graph, context.dialect, format, filename));
    return 0;
  }
  if (filename === undefined) throw misuse('Expecting image file name');
  const size = sizeText === undefined ? undefined : sizeArgument('image size', sizeText);
  if (unexpected !== undefined) throw misuse(`Unexpected argument: ${unexpected}`);
  const report = (line: string) => {
    context.out.line(line);
    context.out.flush();
  };
  try {
    await createImage(graph, {
      filename,
      format,
      options: options.tree(),
      size,
      backingFile: given.text('b'),
      backingFormat: given.text('F'),
      unchecked: given.has('u'),
      report: given.has('q') ? undefined : report,
      signal: context.signal,
    });
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw addContext(filename, error);
  }
  return 0;
}
