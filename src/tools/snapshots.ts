/** Snapshots inside images, where a command line names one (T-CONV-5). */
import type { Disk } from '../core/disk.ts';
import type { SnapshotChoice } from '../core/disk-snapshots.ts';
import { addContext } from '../core/errors.ts';
import type { Graph } from '../core/graph.ts';
import type { GivenOptions } from './command.ts';
import { keyValues, type Warning } from './command-line/arguments.ts';
import type { Context } from './context.ts';
import { Failure, misuse } from './failure.ts';
import { type ImageRequest, openImage } from './open-image.ts';

/** What `-l` names: an id or a name, or keys and values of which each is checked. `quotes`: as the program prints them. */
export function snapshotChoice(text: string, warn: Warning, quotes = "''"): SnapshotChoice {
  if (!text.startsWith('snapshot.')) return text;
  const choice: { id?: string; name?: string } = {};
  for (const [key, value] of keyValues(text, undefined, warn)) {
    if (key === 'snapshot.id') choice.id = value;
    else if (key === 'snapshot.name') choice.name = value;
    else {
      const continuation = `Failed in parsing snapshot param ${quotes[0]}${text}${quotes[1]}`;
      throw new Failure(`Invalid parameter '${key}'`, { continuation });
    }
  }
  return choice;
}

/** The option of commands that show images as they are. */
export const LOAD_SNAPSHOT = {
  short: 'l',
  long: 'load-snapshot',
  argument: 'SNAPSHOT',
  help: 'what the image was at a snapshot inside it, by id or name; read-only',
} as const;

/** Opens an image as it is, or at the snapshot that `-l` names, for reading then. Throws Failure, BlockError. */
export async function openAtSnapshot(
  { messages }: Pick<Context, 'messages'>,
  graph: Graph,
  given: GivenOptions,
  request: ImageRequest,
): Promise<Disk> {
  const text = given.text('load-snapshot');
  if (text === undefined) return openImage(graph, request);
  if (request.snapshot === true) throw misuse('-l and --snapshot exclude each other');
  const choice = snapshotChoice(text, (message, hint) => messages.warning(message, hint));
  const disk = await openImage(graph, { ...request, writable: false });
  try {
    await loadSnapshot(disk, choice);
    return disk;
  } catch (error) {
    await disk.close().catch(() => {});
    throw error;
  }
}

/** Shows a snapshot of a disk that is opened for reading. */
export async function loadSnapshot(disk: Disk, choice: SnapshotChoice): Promise<void> {
  try {
    await disk.snapshots.show(choice);
  } catch (error) {
    throw addContext('Failed to load snapshot', error);
  }
}
