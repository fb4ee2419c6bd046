/** `measure`: how large an image file would be. */
import { checkCreationOptions, creationSchema } from '../../core/create.ts';
import type { SnapshotChoice } from '../../core/disk-snapshots.ts';
import type { DriverSpec, Measurement } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import type { Graph } from '../../core/graph.ts';
import type { OptionTree } from '../../core/options.ts';
import { measure } from '../../jobs/measure.ts';
import { type Command, type GivenOptions, readCommandLine } from '../command.ts';
import { type OutputForm, outputForm } from '../command-line/arguments.ts';
import { sizeArgument } from '../command-line/numbers.ts';
import { OptionList } from '../command-line/option-list.ts';
import { FORCE_SHARE, IMAGE_OPTS, OBJECT, OUTPUT, SHORT_FORMAT } from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { Failure } from '../failure.ts';
import { newGraph } from '../graph.ts';
import { imageRequest, openImage, withDisks } from '../open-image.ts';
import { jsonText } from '../output/json.ts';
import { loadSnapshot, snapshotChoice } from '../snapshots.ts';

export const measureCommand: Command = {
  name: 'measure',
  summary: 'Tell how large an image file would be',
  usage:
    '[--output=ofmt] [-O output_fmt] [-o options] [--size N | [--object objectdef] [--image-opts] [-f fmt] [-l snapshot_param] filename]',
  operands: '--size SIZE | FILENAME',
  options: [
    { short: 'O', argument: 'FMT', help: 'the format the image would have; default: raw' },
    { short: 'o', argument: 'OPTIONS', help: 'name=value,... as for create' },
    SHORT_FORMAT,
    { short: 'l', argument: 'SNAPSHOT', help: 'what the source was at a snapshot inside it, by id or name' },
    IMAGE_OPTS,
    OBJECT,
    OUTPUT,
    { long: 'size', argument: 'SIZE', help: 'of an image of this size, whatever it holds' },
    FORCE_SHARE,
  ],
  examples: ['measure -O vdi disk.raw', 'measure -O vdi --size 20G'],
  run,
};

async function run(context: Context): Promise<number> {
  const options = new OptionList();
  let size: number | undefined;
  let snapshot: SnapshotChoice | undefined;
  let form: OutputForm = 'human';
  const given = readCommandLine(context, measureCommand, {
    o: (value) => options.add(value),
    l: (value) => {
      snapshot = snapshotChoice(value, (message, hint) => context.messages.warning(message, hint));
    },
    size: (value) => {
      size = sizeArgument('image size', value);
    },
    output: (value) => {
      form = outputForm(value);
    },
  });
  const filename = checkOperands(given, size);
  const format = given.text('O') ?? 'raw';
  const graph = newGraph(context);
  const tree = options.tree();
  let result: Measurement;
  if (filename === undefined) {
    result = await measure(graph, { format, options: formatOptions(graph, format, tree), content: size ?? 0 });
  } else {
    const disk = await openImage(graph, imageRequest(context, given, filename, 'f'));
    result = await withDisks([disk], async () => {
      if (snapshot !== undefined) await loadSnapshot(disk, snapshot);
      return measure(graph, { format, options: formatOptions(graph, format, tree), content: disk });
    });
  }
  print(context, form, result);
  return 0;
}

/** The file name, if that is what is measured. */
function checkOperands(given: GivenOptions, size: number | undefined): string | undefined {
  const [filename, second] = given.operands;
  if (second !== undefined) throw new Failure('At most one filename argument is allowed.');
  if (filename === undefined && (given.has('image-opts') || given.has('f') || given.has('l'))) {
    throw new Failure('--image-opts, -f, and -l require a filename argument.');
  }
  if (filename !== undefined && size !== undefined) {
    throw new Failure('--size N cannot be used together with a filename.');
  }
  if (filename === undefined && size === undefined) {
    throw new Failure('Either --size N or one filename must be specified.');
  }
  return filename;
}

/** The options of the format itself; those of the file's protocol are checked and then say nothing. */
function formatOptions(graph: Graph, format: string, tree: OptionTree): OptionTree {
  const spec: DriverSpec | undefined = graph.driver(format);
  if (spec?.create === undefined) return tree;
  const file = graph.driver('file');
  const schema = creationSchema(spec, file?.kind === 'protocol' ? file : undefined);
  try {
    checkCreationOptions(schema, tree);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    const continuation = `Invalid options for file format '${format}'`;
    throw new Failure(error.message, { hint: error.hint, continuation, cause: error });
  }
  const own = spec.create.options;
  return Object.fromEntries(Object.entries(tree).filter(([name]) => name !== 'size' && Object.hasOwn(own, name)));
}

function print({ out }: Context, form: OutputForm, { required, fullyAllocated, bitmaps }: Measurement): void {
  if (form === 'json') out.line(jsonText({ bitmaps, required, 'fully-allocated': fullyAllocated }));
  else {
    out.write(`required size: ${BigInt(required)}\nfully allocated size: ${BigInt(fullyAllocated)}\n`);
    if (bitmaps !== undefined) out.write(`bitmaps size: ${bitmaps}\n`);
  }
}
