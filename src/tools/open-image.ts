/** Opening the images a command line names (T-GEN-8 to T-GEN-11). */
import type { Disk, OpenOptions } from '../core/disk.ts';
import { addContext, BlockError } from '../core/errors.ts';
import type { Graph } from '../core/graph.ts';
import { type OptionTree, parseBoolOption } from '../core/options.ts';
import type { GivenOptions } from './command.ts';
import { keyValues, type Warning } from './command-line/arguments.ts';
import type { Context } from './context.ts';
import { Failure } from './failure.ts';

export interface ImageRequest extends OpenOptions {
  /** A file name, or with `imageOpts` an option string. */
  readonly name: string;
  readonly imageOpts: boolean;
  /** Told of what is deprecated in an option string. */
  readonly warn: Warning;
}

/** What the options that all readers of images share ask for. `format` is the option with the image's format, if there is one. */
export function imageRequest({ messages }: Context, given: GivenOptions, name: string, format?: string): ImageRequest {
  return {
    name,
    imageOpts: given.has('image-opts'),
    format: format === undefined ? undefined : given.text(format),
    forceShare: given.has('force-share'),
    warn: (message, hint) => messages.warning(message, hint),
  };
}

/** Opens an image; failures read `Could not open '‹name›': …` (T-GEN-9). */
export async function openImage(graph: Graph, { name, imageOpts, warn, ...options }: ImageRequest): Promise<Disk> {
  if (imageOpts && options.format !== undefined) {
    throw new Failure('--image-opts and --format are mutually exclusive');
  }
  const source = imageOpts ? imageOptions(name, options.forceShare === true, warn) : name;
  try {
    return await graph.open(source, options);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw addContext(`Could not open '${name}'`, error);
  }
}

function imageOptions(text: string, forceShare: boolean, warn: Warning): OptionTree {
  const tree: OptionTree = Object.fromEntries(keyValues(text, 'file', warn));
  const shared = tree['force-share'];
  if (forceShare && shared !== undefined && !parseBoolOption(shared, 'force-share')) {
    throw new Failure('--force-share/-U conflicts with image options');
  }
  return tree;
}

/** Runs `work` and closes the disks, whatever happens; a failure to close counts only when the work did not fail. */
export async function withDisks<T>(disks: readonly Disk[], work: () => Promise<T>): Promise<T> {
  let result: T;
  try {
    result = await work();
  } catch (error) {
    await Promise.allSettled(disks.map((disk) => disk.close()));
    throw error;
  }
  for (const disk of disks) await disk.close();
  return result;
}
