/** `checksum`: a digest of what a guest sees, whatever the format. */
import { checksum } from '../../jobs/checksum.ts';
import { type Command, readCommandLine } from '../command.ts';
import { cacheMode, outputForm } from '../command-line/arguments.ts';
import {
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  OBJECT,
  OUTPUT,
  PROGRESS,
  PROGRESS_MODE,
  QUIET,
  SOURCE_CACHE,
} from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { newGraph } from '../graph.ts';
import { imageRequest, openImage, withDisks } from '../open-image.ts';
import { jsonText } from '../output/json.ts';
import { askedDisplay } from '../output/progress.ts';

export const checksumCommand: Command = {
  name: 'checksum',
  summary: "Print a checksum of an image's content, equal for equal disks in any format",
  usage: '[--object objectdef] [--image-opts] [-f fmt] [--output=ofmt] [-T src_cache] [-p] [-q] [-U] filename',
  operands: 'FILENAME',
  description:
    'The checksum covers what a guest sees, not the file: it is a tree of SHA-256 digests that can leave out holes\n(scheme diskwright-tree-sha256-1), so that other programs print other digests.',
  options: [
    FORMAT,
    OUTPUT,
    SOURCE_CACHE,
    PROGRESS,
    PROGRESS_MODE,
    { ...QUIET, help: 'show no progress' },
    OBJECT,
    IMAGE_OPTS,
    FORCE_SHARE,
  ],
  examples: ['checksum disk.vdi', 'checksum --output=json disk.raw'],
  run,
};

async function run(context: Context): Promise<number> {
  const given = readCommandLine(context, checksumCommand);
  const { filename } = given;
  const form = outputForm(given.text('output'));
  const cache = cacheMode('source cache', given.text('T'));
  const disk = await openImage(newGraph(context), { ...imageRequest(context, given, filename, 'format'), cache });
  const display = askedDisplay(context, given, { step: 1 });
  const { scheme, digest, size } = await withDisks([disk], () => {
    display.begin();
    return checksum(disk, { signal: context.signal, progress: display.update });
  }).finally(() => display.end());
  if (form === 'human') context.out.line(`${digest}  ${filename}`);
  else context.out.line(jsonText({ filename: disk.filename, scheme, digest, size }));
  return 0;
}
