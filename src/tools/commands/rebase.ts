/** `rebase`: puts another image below an image, or none. */
import { BlockError } from '../../core/errors.ts';
import { rebase } from '../../jobs/rebase.ts';
import { type Command, type GivenOptions, readCommandLine } from '../command.ts';
import { cacheMode } from '../command-line/arguments.ts';
import {
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  OBJECT,
  PROGRESS,
  PROGRESS_MODE,
  QUIET,
  SOURCE_CACHE,
} from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { Failure, misuse } from '../failure.ts';
import { newGraph } from '../graph.ts';
import { imageRequest, openImage, withDisks } from '../open-image.ts';
import { askedDisplay, type ProgressDisplay } from '../output/progress.ts';

export const rebaseCommand: Command = {
  name: 'rebase',
  summary: 'Put another image below an image, or none, under the same content',
  usage:
    '[--object objectdef] [--image-opts] [-U] [-q] [-f fmt] [-t cache] [-T src_cache] [-p] [-u] -b backing_file [-F backing_fmt] filename',
  operands: 'FILENAME',
  description:
    'What the new image below has otherwise than the old one is written into FILENAME first, so that its content stays.\nWith -b "" it stands alone afterwards. With -u only the name is changed: for an image that was moved or renamed.',
  options: [
    FORMAT,
    { short: 'b', argument: 'FILE', help: 'the image to be below, as seen from the folder of FILENAME; empty: none' },
    { short: 'F', argument: 'FMT', help: 'the format of that image' },
    {
      short: 'u',
      help: 'unsafe: change the name only; the content is that of the other image where nothing is stored',
    },
    { short: 't', argument: 'CACHE', help: 'cache mode: writeback (default), none, directsync, writethrough, unsafe' },
    { ...SOURCE_CACHE, help: 'cache mode of the image to be below' },
    PROGRESS,
    PROGRESS_MODE,
    QUIET,
    OBJECT,
    IMAGE_OPTS,
    { ...FORCE_SHARE, help: 'open the image to be below even though another program is writing to it' },
  ],
  examples: [
    'rebase -b new-base.vdi -F vdi overlay.vdi',
    'rebase -b "" overlay.vdi',
    'rebase -u -b moved/base.vdi -F vdi overlay.vdi',
  ],
  run,
};

async function run(context: Context): Promise<number> {
  const given = readCommandLine(context, rebaseCommand);
  const { filename } = given;
  const unsafe = given.has('u');
  if (!unsafe && given.text('b') === undefined) {
    throw misuse('Must specify backing file (-b) or use unsafe mode (-u)');
  }
  const display = askedDisplay(context, given, { step: 2 });
  display.begin();
  try {
    await rebaseImage(context, given, filename, display);
    display.complete();
  } finally {
    display.end();
  }
  return 0;
}

async function rebaseImage(
  context: Context,
  given: GivenOptions,
  filename: string,
  { update }: ProgressDisplay,
): Promise<void> {
  const unsafe = given.has('u');
  const cache = cacheMode('cache', given.text('t'));
  const sourceCache = cacheMode('source cache', given.text('T'));
  // The image itself is written to, so that it cannot be shared.
  const forceShare = given.has('force-share');
  const request = { ...imageRequest(context, given, filename, 'format'), forceShare: false };
  const disk = await openImage(newGraph(context), { ...request, writable: true, cache, noBacking: unsafe });
  const name = given.text('b') ?? '';
  const backing = name === '' ? undefined : { filename: name, format: given.text('F') };
  const options = { backing, unsafe, cache: sourceCache, forceShare, signal: context.signal, progress: update };
  try {
    await withDisks([disk], () => rebase(disk, options));
  } catch (error) {
    if (!context.dialect.qemu || given.has('b') || !(error instanceof BlockError)) throw error;
    // As qemu-img prints a name that was not given.
    throw new Failure(error.message.replace("backing file to ''", "backing file to '(null)'"), { cause: error });
  }
}
