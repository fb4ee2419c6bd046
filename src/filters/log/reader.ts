/** Reading a log, entry by entry. */
import { BlockError } from '../../core/errors.ts';
import { decodeEntry, decodeSuper, type LogEntry, type LogSuper, SECTOR_MIN } from './format.ts';

/** What a log is read from: a disk, or a child of a node. */
export interface LogSource {
  length(): number;
  read(offset: number, target: Uint8Array): Promise<unknown>;
}

export interface PlacedEntry {
  /** From 0. */
  readonly index: number;
  readonly entry: LogEntry;
  /** Where the data of a write begin in the log, bytes. */
  readonly dataAt: number;
}

/** Throws BlockError EINVAL for what is no log. */
export async function readSuper(log: LogSource): Promise<LogSuper> {
  const head = new Uint8Array(Math.min(SECTOR_MIN, log.length()));
  await log.read(0, head);
  return decodeSuper(head);
}

/** All entries that the superblock counts. Throws BlockError EINVAL where the log is cut short or damaged. */
export async function* readEntries(log: LogSource): AsyncGenerator<PlacedEntry> {
  const { entries, sectorSize } = await readSuper(log);
  const head = new Uint8Array(sectorSize);
  let at = sectorSize;
  for (let index = 0; index < entries; index++) {
    if (at + sectorSize > log.length()) throw cutShort(index);
    await log.read(at, head);
    const entry = decodeEntry(head, sectorSize, index);
    const dataAt = at + sectorSize;
    at = dataAt + (entry.kind === 'write' ? entry.length : 0);
    if (at > log.length()) throw cutShort(index);
    yield { index, entry, dataAt };
  }
}

function cutShort(index: number): BlockError {
  return new BlockError('EINVAL', `Log entry ${index}: the log ends before its end`);
}
