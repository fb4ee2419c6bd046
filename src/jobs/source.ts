/** Disks put one behind another and read as one, as `convert` does with several sources (T-CONV-1). */
import { alignUp } from '../bytes/align.ts';
import { backingImage } from '../core/chain.ts';
import type { Disk } from '../core/disk.ts';
import { BlockError, codeOf, errorText, withErrno } from '../core/errors.ts';
import { statusAbove } from '../core/status.ts';

/** Each disk is rounded up to this many bytes; what it lacks reads as zeroes. */
export const SECTOR = 512;

export interface SourcePart {
  readonly disk: Disk;
  /** Where the part begins and ends in the whole, bytes. */
  readonly start: number;
  readonly end: number;
}

/** What is at `offset` of the whole: `zero` needs no reading, `absent` is not stored in the disk's own image. */
export interface SourceRun {
  readonly part: SourcePart;
  readonly offset: number;
  readonly end: number;
  readonly zero: boolean;
  readonly absent?: boolean;
}

/** What to do about damage: absent, it is an error. */
export type SalvageWarning = ((message: string) => void) | undefined;

export class Source {
  readonly parts: readonly SourcePart[];
  readonly length: number;
  readonly #salvage: SalvageWarning;
  readonly #topOnly: boolean;

  /** `topOnly`: tell as absent what disks do not store themselves, but read from images below. */
  constructor(disks: readonly Disk[], salvage: SalvageWarning, topOnly = false) {
    this.#topOnly = topOnly;
    let start = 0;
    this.parts = disks.map((disk) => {
      const part = { disk, start, end: start + alignUp(disk.length, SECTOR) };
      start = part.end;
      return part;
    });
    this.length = start;
    this.#salvage = salvage;
  }

  /** The run at `offset`, at once; undefined where the status must be waited for. `offset` is inside. */
  tryRunNow(offset: number): SourceRun | undefined {
    const part = this.#partAt(offset);
    const within = offset - part.start;
    const stored = part.disk.length - within;
    if (stored <= 0) return { part, offset, end: part.end, zero: true };
    if (this.#topOnly && backingImage(part.disk.node) !== undefined) return undefined;
    const status = part.disk.tryStatusNow(within, stored);
    return status && { part, offset, end: offset + status.length, zero: status.zero };
  }

  /** The run at `offset`. Where the status cannot be told, salvaging takes a sector as data (T-CONV-6). */
  async run(offset: number): Promise<SourceRun> {
    const now = this.tryRunNow(offset);
    if (now !== undefined) return now;
    const part = this.#partAt(offset);
    const within = offset - part.start;
    for (let length = part.disk.length - within; ; length = alignUp(Math.floor(length / 2), SECTOR)) {
      try {
        return { part, offset, ...(await this.#ask(part, offset, within, length)) };
      } catch (error) {
        const text = `error while reading block status at offset ${offset}`;
        if (this.#salvage === undefined) throw withErrno(codeOf(error), text, { cause: error });
        if (length > SECTOR) continue;
        this.#salvage(`${text}: ${errorText(codeOf(error))}`);
        return { part, offset, end: offset + length, zero: false };
      }
    }
  }

  async #ask({ disk }: SourcePart, offset: number, within: number, length: number) {
    const below = this.#topOnly ? backingImage(disk.node) : undefined;
    const status =
      below === undefined ? await disk.status(within, length) : await statusAbove(disk.node, below, within, length);
    const absent = below !== undefined && !status.allocated;
    return { end: offset + status.length, zero: status.zero, absent };
  }

  /** Fills `target`, which lies inside one part. Salvaging turns sectors that cannot be read into zeroes. */
  async read(part: SourcePart, offset: number, target: Uint8Array): Promise<void> {
    const within = offset - part.start;
    const stored = Math.max(0, Math.min(target.length, part.disk.length - within));
    if (stored < target.length) target.fill(0, stored);
    if (stored === 0) return;
    const wanted = stored === target.length ? target : target.subarray(0, stored);
    // From the host's cache at once: handing a request to a thread costs as much as copying a megabyte.
    if (part.disk.tryReadNow(within, wanted)) return;
    try {
      await part.disk.read(within, wanted);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      if (this.#salvage === undefined) {
        throw withErrno(error.code, `error while reading at byte ${offset}`, { cause: error });
      }
      await this.#readSectors(part, offset, wanted, this.#salvage);
    }
  }

  /** The same for what may lie in several parts. */
  async readAcross(offset: number, target: Uint8Array): Promise<void> {
    for (let done = 0; done < target.length; ) {
      const part = this.#partAt(offset + done);
      const end = Math.min(target.length, part.end - offset);
      await this.read(part, offset + done, target.subarray(done, end));
      done = end;
    }
  }

  async #readSectors(
    part: SourcePart,
    offset: number,
    target: Uint8Array,
    warn: (message: string) => void,
  ): Promise<void> {
    for (let at = 0; at < target.length; at += SECTOR) {
      const sector = target.subarray(at, at + SECTOR);
      try {
        await part.disk.read(offset - part.start + at, sector);
      } catch (error) {
        if (!(error instanceof BlockError)) throw error;
        sector.fill(0);
        warn(`error while reading offset ${offset + at}: ${errorText(error.code)}`);
      }
    }
  }

  #partAt(offset: number): SourcePart {
    const part = this.parts.find(({ end }) => offset < end);
    if (part === undefined) throw new RangeError(`offset ${offset} is not inside the sources`);
    return part;
  }
}
