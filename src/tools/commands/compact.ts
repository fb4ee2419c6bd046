/** `compact`: gives unused storage of an image back to the host. */
import { formatSize } from '../../bytes/size.ts';
import { compactDisk } from '../../jobs/compact.ts';
import { type Command, readCommandLine } from '../command.ts';
import { FORMAT, IMAGE_OPTS, OBJECT, PROGRESS, PROGRESS_MODE, QUIET } from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { newGraph } from '../graph.ts';
import { imageRequest, openImage, withDisks } from '../open-image.ts';
import { askedDisplay } from '../output/progress.ts';

export const compactCommand: Command = {
  name: 'compact',
  summary: 'Make an image file smaller by what the disk does not use',
  usage: '[--object objectdef] [--image-opts] [-f fmt] [-p] [-q] filename',
  operands: 'FILENAME',
  description:
    'Works in place. An interruption, even a power cut, leaves a good image. Zero-fill free space in the disk first to\ngain more: parts that hold zeroes are given back.',
  options: [FORMAT, PROGRESS, PROGRESS_MODE, QUIET, OBJECT, IMAGE_OPTS],
  examples: ['compact disk.vdi', 'compact -p disk.qcow2'],
  run,
};

async function run(context: Context): Promise<number> {
  const given = readCommandLine(context, compactCommand);
  const { filename } = given;
  const quiet = given.has('q');
  const request = { ...imageRequest(context, given, filename, 'format'), writable: true };
  const disk = await openImage(newGraph(context), request);
  const display = askedDisplay(context, given, { step: 1 });
  const result = await withDisks([disk], async () => {
    display.begin();
    const compacted = await compactDisk(disk, { signal: context.signal, progress: display.update });
    display.complete();
    return compacted;
  }).finally(() => display.end());
  if (!quiet) context.out.line(summary(result));
  return 0;
}

function summary({
  before,
  after,
}: {
  readonly before: number | undefined;
  readonly after: number | undefined;
}): string {
  if (before === undefined || after === undefined) return 'Image compacted.';
  return `Image compacted: disk size ${formatSize(before)} -> ${formatSize(after)}.`;
}
