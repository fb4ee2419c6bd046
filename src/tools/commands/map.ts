/** `map`: what is stored where. */
import { type MapEntry, map } from '../../jobs/map.ts';
import { type Command, readCommandLine } from '../command.ts';
import { outputForm } from '../command-line/arguments.ts';
import { sizeArgument } from '../command-line/numbers.ts';
import { FORCE_SHARE, FORMAT, IMAGE_OPTS, OBJECT, OUTPUT } from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { Failure } from '../failure.ts';
import { newGraph } from '../graph.ts';
import { imageRequest, openImage, withDisks } from '../open-image.ts';
import { jsonListing, type MapListing, tableListing } from '../output/map-text.ts';
import type { HeldOutput } from '../output/stream.ts';

export const mapCommand: Command = {
  name: 'map',
  summary: 'Tell what is stored where in an image',
  usage:
    '[--object objectdef] [--image-opts] [-f fmt] [--start-offset=offset] [--max-length=len] [--output=ofmt] [-U] filename',
  operands: 'FILENAME',
  description: 'For people only stored data is listed, with its place in the file; as JSON also zeroes and gaps.',
  options: [
    FORMAT,
    { short: 's', long: 'start-offset', argument: 'OFFSET', help: 'begin at this byte of the disk' },
    { short: 'l', long: 'max-length', argument: 'LENGTH', help: 'look at so many bytes at most' },
    OUTPUT,
    OBJECT,
    IMAGE_OPTS,
    FORCE_SHARE,
  ],
  examples: ['map disk.vdi', 'map --output=json disk.vdi', 'map -s 1G -l 64M disk.vdi'],
  run,
};

async function run(context: Context): Promise<number> {
  let start = 0;
  let length: number | undefined;
  const given = readCommandLine(context, mapCommand, {
    'start-offset': (value) => {
      start = sizeArgument('start offset', value);
    },
    'max-length': (value) => {
      length = sizeArgument('max length', value);
    },
  });
  const { filename } = given;
  const form = outputForm(given.text('output'));
  const disk = await openImage(newGraph(context), imageRequest(context, given, filename, 'format'));
  await withDisks([disk], async () => {
    const batches = map(disk, { start, ...(length === undefined ? {} : { length }) });
    await (form === 'json' ? printJson(context, batches) : printTable(context, batches));
  });
  return 0;
}

async function printJson({ out }: Context, batches: AsyncIterable<readonly MapEntry[]>): Promise<void> {
  await list(
    out,
    jsonListing((text) => out.write(text)),
    batches,
  );
}

async function printTable({ out }: Context, batches: AsyncIterable<readonly MapEntry[]>): Promise<void> {
  const table = tableListing((text) => out.write(text));
  const add = (entry: MapEntry) => {
    if (!entry.data || entry.zero) return;
    if (entry.offset === undefined) throw new Failure('File contains external, encrypted or compressed clusters.');
    table.add(entry);
  };
  await list(out, { ...table, add }, batches);
}

async function list(out: HeldOutput, listing: MapListing, batches: AsyncIterable<readonly MapEntry[]>): Promise<void> {
  try {
    for await (const entries of batches) {
      if (out.broken) return;
      for (const entry of entries) listing.add(entry);
    }
    listing.close();
  } finally {
    listing.flush();
  }
}
