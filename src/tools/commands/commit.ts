/** `commit`: puts what an image stores into one below it. */
import { findBackingImage } from '../../core/chain.ts';
import type { Disk } from '../../core/disk.ts';
import { BlockError, withErrno } from '../../core/errors.ts';
import type { BlockNode } from '../../core/node.ts';
import { commit } from '../../jobs/commit.ts';
import { type Command, readCommandLine } from '../command.ts';
import { cacheMode } from '../command-line/arguments.ts';
import { sizeArgument } from '../command-line/numbers.ts';
import { FORMAT, IMAGE_OPTS, OBJECT, PROGRESS, PROGRESS_MODE, QUIET } from '../command-line/standard-options.ts';
import type { Context } from '../context.ts';
import { Failure } from '../failure.ts';
import { newGraph } from '../graph.ts';
import { imageRequest, openImage } from '../open-image.ts';
import { askedDisplay, type ProgressDisplay } from '../output/progress.ts';

export const commitCommand: Command = {
  name: 'commit',
  summary: 'Put what an image stores into the image below it',
  usage: '[--object objectdef] [--image-opts] [-q] [-f fmt] [-t cache] [-b base] [-r rate_limit] [-d] [-p] filename',
  operands: 'FILENAME',
  description:
    'The image is emptied afterwards. With -b the content goes into an image further down, and all that lies above stays\nas it is. Other images based on the one that is written to change their content: do not commit below them.',
  options: [
    FORMAT,
    { short: 'b', argument: 'BASE', help: 'the image of the chain to commit into; default: the one directly below' },
    { short: 'd', help: 'do not empty the image afterwards' },
    { short: 'r', argument: 'RATE', help: 'write at most so many bytes a second' },
    { short: 't', argument: 'CACHE', help: 'cache mode: writeback (default), none, directsync, writethrough, unsafe' },
    PROGRESS,
    PROGRESS_MODE,
    QUIET,
    OBJECT,
    IMAGE_OPTS,
  ],
  examples: ['commit overlay.vdi', 'commit -d -p overlay.vdi', 'commit -b base.vdi top.vdi'],
  run,
};

async function run(context: Context): Promise<number> {
  let rate: number | undefined;
  const given = readCommandLine(context, commitCommand, {
    r: (value) => {
      rate = sizeArgument('rate limit', value);
    },
  });
  const { filename } = given;
  const cache = cacheMode('cache', given.text('t'));
  const graph = newGraph(context);
  const request = { ...imageRequest(context, given, filename, 'format'), writable: true, cache };
  const disk = await openImage(graph, request);
  const quiet = given.has('q');
  const display = askedDisplay(context, given, { step: 1 });
  display.begin();
  try {
    const base = await namedBase(disk, filename, given.text('b'));
    const empty = !given.has('d') && base === undefined;
    await commitDisk(context, disk, { base, empty, rateLimit: rate, display });
    display.complete();
  } catch (error) {
    await disk.close().catch(() => {});
    throw error;
  } finally {
    display.end();
  }
  await disk.close().catch((error: unknown) => {
    throw error instanceof BlockError
      ? withErrno(error.code, 'Error while closing the image', { cause: error })
      : error;
  });
  if (!quiet) context.out.line('Image committed.');
  return 0;
}

async function namedBase(disk: Disk, filename: string, name: string | undefined): Promise<BlockNode | undefined> {
  if (name === undefined) return undefined;
  const base = name === '' ? undefined : await findBackingImage(disk.graph.host, disk.node, name);
  if (base === undefined) throw new Failure(`Did not find '${name}' in the backing chain of '${filename}'`);
  return base;
}

interface CommitSettings {
  readonly base: BlockNode | undefined;
  readonly empty: boolean;
  readonly rateLimit: number | undefined;
  readonly display: ProgressDisplay;
}

async function commitDisk({ dialect, signal }: Context, disk: Disk, settings: CommitSettings): Promise<void> {
  const { display, ...options } = settings;
  try {
    await commit(disk, { ...options, signal, progress: display.update });
  } catch (error) {
    if (!(error instanceof BlockError) || !COPYING.test(error.message)) throw error;
    const text = 'Block job failed';
    throw dialect.qemu ? withErrno(error.code, text, { cause: error }) : new Failure(`${text}: ${error.message}`);
  }
}

/** qemu-img does not tell at which byte. */
const COPYING = /^error while (reading|writing) /;
