/** Replaying a log of writes onto a disk, up to an entry or a mark. */
import type { Disk } from '../core/disk.ts';
import type { Progress } from '../core/driver.ts';
import { BlockError } from '../core/errors.ts';
import { type LogSource, type PlacedEntry, readEntries, readSuper } from '../filters/log/reader.ts';

/** The part of the log that {@link replayLog} goes through. */
export interface ReplayOptions {
  /** The first entry that is replayed, from 0. Default 0. */
  readonly from?: number;
  /** Entries up to this one, which is not replayed. Default: all. */
  readonly until?: number;
  /** Or up to this mark: the first of that name at or behind `from`. */
  readonly untilMark?: string;
  /** Leave discards out, where what is discarded is to be seen still. */
  readonly skipDiscards?: boolean;
  readonly progress?: Progress | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** How far {@link replayLog} came. */
export interface ReplayResult {
  /** Entries that were replayed. */
  readonly entries: number;
  /** The entry behind the last one replayed. */
  readonly next: number;
}

/** Data are copied in pieces of this many bytes. */
const PIECE = 1 << 20;

/**
 * Does to `target` what the log says was done. Throws BlockError: EINVAL where the log is damaged, ENOENT for a mark that is
 * not there (and then nothing is done), ENOSPC where the target is too short.
 */
export async function replay(log: Disk, target: Disk, options: ReplayOptions = {}): Promise<ReplayResult> {
  const source = sourceOf(log);
  const { from = 0, signal, progress } = options;
  const { entries: total } = await readSuper(source);
  const until = Math.min(total, options.until ?? total, await entryOfMark(source, options, from));
  let entries = 0;
  for await (const placed of readEntries(source)) {
    signal?.throwIfAborted();
    if (placed.index >= until) break;
    if (placed.index < from) continue;
    await replayEntry(log, target, placed, options);
    entries++;
    progress?.(placed.index + 1 - from, until - from);
  }
  await target.flush();
  return { entries, next: Math.max(from, until) };
}

/** The log's entries, for listing them. */
export function logEntries(log: Disk): AsyncGenerator<PlacedEntry> {
  return readEntries(sourceOf(log));
}

function sourceOf(log: Disk): LogSource {
  return { length: () => log.length, read: (offset, target) => log.read(offset, target) };
}

async function entryOfMark(source: LogSource, { untilMark }: ReplayOptions, from: number): Promise<number> {
  if (untilMark === undefined) return Number.POSITIVE_INFINITY;
  for await (const { index, entry } of readEntries(source)) {
    if (index >= from && entry.kind === 'mark' && entry.name === untilMark) return index;
  }
  throw new BlockError('ENOENT', `The log has no mark '${untilMark}'`);
}

async function replayEntry(
  log: Disk,
  target: Disk,
  { index, entry, dataAt }: PlacedEntry,
  { skipDiscards }: ReplayOptions,
): Promise<void> {
  if (entry.kind === 'flush' || entry.kind === 'mark') return;
  const end = entry.offset + entry.length;
  if (end > target.length) {
    throw new BlockError(
      'ENOSPC',
      `Log entry ${index} reaches byte ${end}; '${target.filename}' ends at ${target.length}`,
    );
  }
  if (entry.kind === 'discard') {
    if (skipDiscards !== true) await target.discard(entry.offset, entry.length);
    return;
  }
  for (let done = 0; done < entry.length; done += PIECE) {
    const bytes = await log.read(dataAt + done, Math.min(PIECE, entry.length - done));
    await target.write(entry.offset + done, bytes);
  }
}
