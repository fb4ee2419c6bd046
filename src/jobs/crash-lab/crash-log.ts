/** A log of writes as the lab sees it: changes, the flushes between them, and the moments at which the power may go. */
import { BlockError } from '../../core/errors.ts';
import { type LogSource, readEntries, readSuper } from '../../filters/log/reader.ts';

/** A change of the disk, as one entry of the log has it. */
export interface Change {
  /** The entry's number, from 0. */
  readonly entry: number;
  readonly kind: 'write' | 'discard';
  /** Bytes. */
  readonly offset: number;
  readonly length: number;
  /** Where a write's data begin in the log. */
  readonly dataAt: number;
  /** Durable as soon as it is done. */
  readonly fua: boolean;
}

/** Changes between two flushes: all before are durable, these may be lost. Indices into `changes`. */
export interface Epoch {
  readonly start: number;
  readonly end: number;
}

/** A moment at which the power may go: what comes later in the log was not done. */
export interface Moment {
  /** Index into `epochs`. */
  readonly epoch: number;
  /** The first change that was not done. */
  readonly end: number;
  /** Entries of the log that came before. */
  readonly cut: number;
  /** Marks that came before. */
  readonly marks: number;
  /** A change with FUA that was being made then, and so may be lost like others. */
  readonly inFlight: number | undefined;
}

export interface CrashLog {
  readonly entries: number;
  readonly sectorSize: number;
  readonly changes: readonly Change[];
  readonly epochs: readonly Epoch[];
  readonly moments: readonly Moment[];
  readonly marks: readonly { readonly name: string; readonly entry: number }[];
}

/** Entries of a log that fit in memory here. */
const ENTRIES_MAX = 1 << 22;

/** Reads all entries. Throws BlockError EINVAL for what is no log or is damaged, EFBIG for one of more than 4194304 entries. */
export async function readCrashLog(source: LogSource, signal?: AbortSignal): Promise<CrashLog> {
  const { entries, sectorSize } = await readSuper(source);
  if (entries > ENTRIES_MAX)
    throw new BlockError('EFBIG', `The log has ${entries} entries; ${ENTRIES_MAX} can be tried`);
  const builder = new Builder();
  for await (const { index, entry, dataAt } of readEntries(source)) {
    if (index % 1024 === 0) signal?.throwIfAborted();
    if (entry.kind === 'mark') builder.mark(index, entry.name);
    else if (entry.kind === 'flush') builder.flush(index);
    else {
      if (entry.kind === 'write' && entry.flush) builder.flush(index);
      const { kind, offset, length } = entry;
      const fua = entry.kind === 'write' && entry.fua;
      if (length > 0) builder.change({ entry: index, kind, offset, length, dataAt, fua });
    }
  }
  return builder.end(entries, sectorSize);
}

class Builder {
  readonly #changes: Change[] = [];
  readonly #epochs: Epoch[] = [];
  readonly #moments: Moment[] = [];
  readonly #marks: { name: string; entry: number }[] = [];
  #epochStart = 0;

  change(change: Change): void {
    this.#changes.push(change);
    if (change.fua) this.#moment(change.entry + 1, this.#changes.length - 1);
  }

  mark(entry: number, name: string): void {
    this.#moment(entry);
    this.#marks.push({ name, entry });
  }

  flush(entry: number): void {
    if (this.#changes.length === this.#epochStart) return;
    this.#moment(entry);
    this.#epochs.push({ start: this.#epochStart, end: this.#changes.length });
    this.#epochStart = this.#changes.length;
  }

  /** Notes a moment, unless all that it can leave another leaves too, with the same marks. */
  #moment(cut: number, inFlight?: number): void {
    const moment = { epoch: this.#epochs.length, end: this.#changes.length, cut, marks: this.#marks.length, inFlight };
    const last = this.#moments.at(-1);
    if (last === undefined || last.end !== moment.end || last.marks !== moment.marks) this.#moments.push(moment);
  }

  end(entries: number, sectorSize: number): CrashLog {
    this.#moment(entries);
    this.#epochs.push({ start: this.#epochStart, end: this.#changes.length });
    return {
      entries,
      sectorSize,
      changes: this.#changes,
      epochs: this.#epochs,
      moments: this.#moments,
      marks: this.#marks,
    };
  }
}
