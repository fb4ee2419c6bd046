/** `bitmap`: changes the dirty bitmaps that an image keeps (T-BITMAP-1). */
import { type BitmapReference, bitmaps, type NodeBitmaps } from '../../bitmaps/bitmaps.ts';
import { BlockError } from '../../core/errors.ts';
import { type Command, type GivenOptions, readCommandLine } from '../command.ts';
import { sizeArgument } from '../command-line/numbers.ts';
import { FORMAT, IMAGE_OPTS, OBJECT } from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { Failure } from '../failure.ts';
import { newGraph } from '../graph.ts';
import { imageRequest, openImage, withDisks } from '../open-image.ts';

export const bitmapCommand: Command = {
  name: 'bitmap',
  summary: 'Change the dirty bitmaps that an image keeps: which parts were written since when',
  usage:
    '(--merge SOURCE | --add | --remove | --clear | --enable | --disable)... [-b source_file [-F source_fmt]] [-g granularity] [--object objectdef] [--image-opts | -f fmt] filename bitmap',
  operands: 'FILENAME BITMAP',
  description:
    'What is to be done is done in the order of the options, up to the first that fails. `info` lists the bitmaps of an\nimage. One marked "in-use" outside of any program was left behind by a crash: it can only be removed.',
  options: [
    { long: 'add', help: 'make a bitmap, which records changes from now on' },
    { long: 'remove', help: 'remove it' },
    { long: 'clear', help: 'forget what was changed so far' },
    { long: 'enable', help: 'record changes' },
    { long: 'disable', help: 'record no more changes' },
    { long: 'merge', argument: 'SOURCE', help: 'add what another bitmap has recorded' },
    {
      short: 'g',
      long: 'granularity',
      argument: 'SIZE',
      help: 'of --add: bytes that one bit stands for; default: the cluster size, 4k to 64k',
    },
    { short: 'b', long: 'source-file', argument: 'FILE', help: 'of --merge: the image that has SOURCE' },
    { short: 'F', long: 'source-format', argument: 'FMT', help: 'the format of that image' },
    FORMAT,
    OBJECT,
    IMAGE_OPTS,
  ],
  examples: [
    'bitmap --add disk.qcow2 monday',
    'bitmap --disable disk.qcow2 monday',
    'bitmap --add --disable --merge monday disk.qcow2 copy',
    'bitmap --merge b0 -b overlay.qcow2 -F qcow2 disk.qcow2 b0',
  ],
  run,
};

/** In the order of the command line. */
type Action = { readonly name: 'add' | 'remove' | 'clear' | 'enable' | 'disable' | 'merge'; readonly source: string };

async function run(context: Context): Promise<number> {
  const actions: Action[] = [];
  let granularity = 0;
  const names = ['add', 'remove', 'clear', 'enable', 'disable', 'merge'] as const;
  const handlers = names.map((name) => [name, (source: string) => void actions.push({ name, source })] as const);
  const given = readCommandLine(context, bitmapCommand, {
    ...Object.fromEntries(handlers),
    granularity: (value) => {
      granularity = sizeArgument('granularity', value);
    },
  });
  const [filename, bitmap] = checkOptions(given, actions);
  const graph = newGraph(context);
  const disk = await openImage(graph, { ...imageRequest(context, given, filename, 'format'), writable: true });
  await withDisks([disk], async () => {
    const sourceFile = given.text('source-file');
    const request = { ...imageRequest(context, given, sourceFile ?? '', 'source-format'), imageOpts: false };
    const source = sourceFile === undefined ? undefined : await openImage(graph, request);
    await withDisks(source === undefined ? [] : [source], async () => {
      for (const { name, source: from } of actions) {
        const reference = source === undefined ? from : { of: source, name: from };
        await act(bitmaps(disk), name, { bitmap, granularity, reference });
      }
    });
  });
  return 0;
}

/** The file's and the bitmap's name. */
function checkOptions(given: GivenOptions, actions: readonly Action[]): readonly [string, string] {
  const [filename, bitmap, more] = given.operands;
  const has = (name: Action['name']) => actions.some((action) => action.name === name);
  const refusals: readonly (readonly [boolean, string])[] = [
    [actions.length === 0, 'Need at least one of --add, --remove, --clear, --enable, --disable, or --merge'],
    [given.has('granularity') && !has('add'), 'granularity only supported with --add'],
    [given.has('source-format') && !given.has('source-file'), '-F only supported with -b'],
    [given.has('source-file') && !has('merge'), 'Merge bitmap source file only supported with --merge'],
  ];
  const refused = refusals.find(([applies]) => applies);
  if (refused !== undefined) throw new Failure(refused[1]);
  if (filename === undefined || bitmap === undefined || more !== undefined) {
    throw new Failure('Expecting filename and bitmap name');
  }
  return [filename, bitmap];
}

interface Work {
  readonly bitmap: string;
  /** 0: the default. */
  readonly granularity: number;
  readonly reference: string | BitmapReference;
}

async function act(list: NodeBitmaps, action: Action['name'], { bitmap, granularity, reference }: Work): Promise<void> {
  try {
    if (action === 'add') {
      await list.add(bitmap, { persistent: true, granularity: granularity === 0 ? undefined : granularity });
    } else if (action === 'merge') list.merge(bitmap, [reference]);
    else await list[action](bitmap);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw new Failure(`Operation ${action} on bitmap ${bitmap} failed: ${error.message}`, {
      hint: error.hint,
      cause: error,
    });
  }
}
