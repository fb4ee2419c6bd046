/** A node that records: what becomes an entry of the log, and when. */
import { alignUp } from '../../bytes/align.ts';
import type { Child, DriverNode, Limits, OpenContext, WriteFlags } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { invariant } from '../../core/invariant.ts';
import { type NodeTarget, nodeOf } from '../../core/node.ts';
import { isSectorSize, SECTOR_MIN } from './format.ts';
import { readEntries, readSuper } from './reader.ts';
import { LogWriter } from './writer.ts';

export interface LogOptions {
  readonly 'log-sector-size': number;
  readonly 'log-append': boolean;
  readonly 'log-super-update-interval': number;
}

const writers = new WeakMap<Partial<DriverNode>, LogWriter>();

/** Puts a named mark into the log of a `log` node, behind all that was answered. Throws BlockError; TypeError for another node. */
export async function mark(target: NodeTarget, name: string): Promise<void> {
  const node = nodeOf(target);
  const writer = writers.get(node.impl);
  if (writer === undefined) throw new TypeError(`node '${node.name}' is no log node`);
  await writer.append({ kind: 'mark', name });
  await writer.writeSuper();
}

export async function openLog(context: OpenContext<LogOptions>, asQemu: boolean): Promise<Partial<DriverNode>> {
  const { options, file } = context;
  const target = context.child('log');
  invariant(target, 'the log child is required');
  const given = options['log-sector-size'];
  const append = options['log-append'];
  if (append && given !== SECTOR_MIN) {
    throw new BlockError('EINVAL', 'log-append and log-sector-size are mutually exclusive');
  }
  if (!isSectorSize(given)) throw new BlockError('EINVAL', `Invalid log sector size ${given}`);
  const superInterval = options['log-super-update-interval'];
  if (superInterval < 1) {
    throw new BlockError('EINVAL', `Invalid log superblock update interval ${superInterval}`);
  }
  const start = append ? await endOf(target) : { sectorSize: given, entries: 0, end: given };
  const writer = new LogWriter(target, { ...start, superInterval });
  const impl = logMethods(file, target, writer);
  if (asQemu) impl.truncate = (length, how) => file.truncate(length, how);
  else impl.takesFua = () => true;
  writers.set(impl, writer);
  return impl;
}

/** Where a log that is there ends; every entry is looked at. An empty one begins. */
async function endOf(log: Child): Promise<{ sectorSize: number; entries: number; end: number }> {
  if (log.length() === 0) return { sectorSize: SECTOR_MIN, entries: 0, end: SECTOR_MIN };
  const { sectorSize, entries } = await readSuper(log);
  let end = sectorSize;
  for await (const { entry, dataAt } of readEntries(log)) end = dataAt + (entry.kind === 'write' ? entry.length : 0);
  return { sectorSize, entries, end };
}

/** What is noted of changes that were made. */
class Notes {
  readonly #file: Child;
  readonly #log: Child;
  readonly #writer: LogWriter;

  constructor(file: Child, log: Child, writer: LogWriter) {
    this.#file = file;
    this.#log = log;
    this.#writer = writer;
  }

  /** `data`: bytes, or so many zeroes. */
  async write(offset: number, length: number, { fua = false }: WriteFlags, data: Uint8Array | number): Promise<void> {
    await this.#writer.append({ kind: 'write', offset, length, fua, flush: false }, data);
    // What the log says is durable must be in it after a power cut, too.
    if (fua) await this.durable();
  }

  async durable(): Promise<void> {
    await this.#writer.writeSuper();
    await this.#log.flush();
  }

  /**
   * The format has no word for another length: a longer disk is one whose last sector is zero, and what is cut off a shorter
   * one is gone, also if it grows again.
   */
  async length(before: number, after: number): Promise<void> {
    const { sectorSize } = this.#writer;
    const [old, end] = [alignUp(before, sectorSize), alignUp(after, sectorSize)];
    if (after < before && after < end) await this.#sector(end - sectorSize);
    if (end > old) await this.write(end - sectorSize, sectorSize, {}, sectorSize);
    else if (end < old) await this.#writer.append({ kind: 'discard', offset: end, length: old - end });
  }

  async #sector(offset: number): Promise<void> {
    const sector = new Uint8Array(this.#writer.sectorSize);
    await this.#file.read(offset, sector);
    await this.write(offset, sector.length, {}, sector);
  }
}

/** An entry is written when its request is done, so that what a flush entry follows was done before the flush. */
function logMethods(file: Child, log: Child, writer: LogWriter): Partial<DriverNode> {
  const notes = new Notes(file, log, writer);
  /** A flush of nothing leaves no entry, as in QEMU. */
  let unflushed = false;
  const changing = async (work: () => Promise<void>) => {
    unflushed = true;
    try {
      await work();
    } finally {
      // Also where a flush began meanwhile.
      unflushed = true;
    }
  };
  return {
    write: (offset, source, flags) =>
      changing(async () => {
        await file.write(offset, source, flags);
        await notes.write(offset, source.length, flags, source);
      }),
    tryWriteNow(offset, source) {
      const entry = { kind: 'write', offset, length: source.length, fua: false, flush: false } as const;
      const done = writer.tryAppend(entry, source, () => file.tryWriteNow(offset, source));
      if (done) unflushed = true;
      return done;
    },
    writeZeroes: (offset, length, flags) =>
      changing(async () => {
        await file.writeZeroes(offset, length, flags);
        await notes.write(offset, length, flags, length);
      }),
    discard: (offset, length) =>
      changing(async () => {
        await file.discard(offset, length);
        await writer.append({ kind: 'discard', offset, length });
      }),
    truncate: (length, options) =>
      changing(async () => {
        const before = file.length();
        await file.truncate(length, options);
        await notes.length(before, file.length());
      }),
    async flush() {
      if (!unflushed) return file.flush();
      unflushed = false;
      try {
        const flushing = file.flush();
        // What is answered while the flush is under way is not covered by it.
        const noted = writer.append({ kind: 'flush' });
        await Promise.all([flushing, noted]);
        await notes.durable();
      } catch (error) {
        unflushed = true;
        throw error;
      }
    },
    limits: () => sectorLimits(file, writer.sectorSize),
  };
}

function sectorLimits(file: Child, sectorSize: number): Limits {
  const below = file.limits();
  const align = (value: number) => Math.max(value, sectorSize);
  return {
    ...below,
    requestAlign: align(below.requestAlign),
    zeroAlign: align(below.zeroAlign),
    discardAlign: align(below.discardAlign),
    preferred: alignUp(below.preferred, sectorSize),
  };
}
