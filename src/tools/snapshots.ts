/** Snapshots inside images, where a command line names one (T-CONV-5). */
import type { Disk } from '../core/disk.ts';
import type { SnapshotChoice } from '../core/disk-snapshots.ts';
import { addContext } from '../core/errors.ts';
import { keyValues, type Warning } from './command-line/arguments.ts';
import { Failure } from './failure.ts';

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

/** Shows a snapshot of a disk that is opened for reading. */
export async function loadSnapshot(disk: Disk, choice: SnapshotChoice): Promise<void> {
  try {
    await disk.snapshots.show(choice);
  } catch (error) {
    throw addContext('Failed to load snapshot', error);
  }
}
