/** Disks through standard input and images through standard output or a pipe, front to back (`convert - TARGET`, `convert SOURCE -`). */
import { constants, fstatSync, openSync, read, write } from 'node:fs';
import { promisify } from 'node:util';
import type { Disk } from '../../core/disk.ts';
import type { Progress } from '../../core/driver.ts';
import { asBlockError, withErrno } from '../../core/errors.ts';
import type { HostClock } from '../../core/host.ts';
import type { RateLimit } from '../../jobs/rate-limit.ts';
import type { StreamedImage } from '../../jobs/stream.ts';
import { sparseRule, sparseRuns } from '../../jobs/zero-runs.ts';

const STDIN = 0;
export const STDOUT = 1;
/** Milliseconds between two looks for a pipe's reader. */
const READER_WAIT = 20;
const CHUNK = 1 << 20;
/** A target whose final size is not known yet grows by at least this much. */
const GROWTH = 256 << 20;
const SECTOR = 512;

const readAt = promisify(read);
const writeAt = promisify(write);

export interface StreamOptions {
  readonly clock: HostClock;
  readonly signal: AbortSignal;
  readonly progress: Progress;
}

/** Repeats `attempt` while the other end of a non-blocking pipe is not ready. */
async function whenReady<T>(clock: HostClock, signal: AbortSignal, attempt: () => Promise<T>): Promise<T> {
  for (;;) {
    signal.throwIfAborted();
    try {
      return await attempt();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      await clock.sleep(1);
    }
  }
}

export interface WriteOptions extends StreamOptions {
  readonly limit: RateLimit | undefined;
}

/** Writes an image to an open file that takes bytes in order. Reads ahead by one piece. */
export async function writeStream(fd: number, { length, pieces }: StreamedImage, options: WriteOptions): Promise<void> {
  let writing: Promise<void> = Promise.resolve();
  let offset = 0;
  for await (const piece of pieces()) {
    options.signal.throwIfAborted();
    await writing;
    await options.limit?.take(piece.length);
    writing = writeFully(fd, piece, offset, options);
    // Its failure is met when it is awaited.
    writing.catch(() => {});
    offset += piece.length;
    options.progress(offset, length);
  }
  await writing;
}

async function writeFully(
  fd: number,
  bytes: Uint8Array,
  offset: number,
  { clock, signal }: StreamOptions,
): Promise<void> {
  try {
    for (let done = 0; done < bytes.length; ) {
      const attempt = () => writeAt(fd, bytes, done, bytes.length - done, null);
      const { bytesWritten } = await whenReady(clock, signal, attempt);
      done += bytesWritten;
    }
  } catch (error) {
    signal.throwIfAborted();
    throw withErrno(asBlockError(error).code, `error while writing at byte ${offset}`, { cause: error });
  }
}

/** Opens a pipe or a character device by name. A pipe without a reader is waited for. Throws BlockError. */
export async function openStream(name: string, { clock, signal }: StreamOptions): Promise<number> {
  for (;;) {
    signal.throwIfAborted();
    try {
      return openSync(name, constants.O_WRONLY | constants.O_NONBLOCK);
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== 'ENXIO') {
        throw withErrno(asBlockError(cause).code, `Could not open '${name}'`, { cause });
      }
      await clock.sleep(READER_WAIT, signal);
    }
  }
}

/** Bytes of standard input, where it is a file; a pipe's are not known. */
export function stdinSize(): number | undefined {
  const info = fstatSync(STDIN);
  return info.isFile() ? info.size : undefined;
}

export interface StdinRule {
  /** Zero runs of at least so many bytes are left out; 0: none are. */
  readonly sparseSize: number;
  /** Whole clusters are written, compressed; those of zeroes are left out. */
  readonly compressed: boolean;
}

/**
 * Fills `target`, which reads as zeroes, from standard input, and gives it the size of what came, rounded up to 512
 * bytes. Resolves with the bytes read.
 */
export async function readStdin(
  target: Disk,
  { sparseSize, compressed }: StdinRule,
  options: StreamOptions,
): Promise<number> {
  const { clock, signal, progress } = options;
  const expected = stdinSize();
  const { requestAlign, compressUnit: unit } = target.limits;
  const ruleOf = () => (compressed ? { minimum: unit, granularity: unit } : sparseRule(sparseSize, requestAlign));
  const rule = sparseSize === 0 ? undefined : ruleOf();
  const buffer = new Uint8Array(compressed ? Math.max(CHUNK, unit) : CHUNK);
  let offset = 0;
  for (;;) {
    signal.throwIfAborted();
    const length = await fillFromStdin(buffer, offset, clock, signal);
    const padded = Math.ceil(length / SECTOR) * SECTOR;
    const isLast = length < buffer.length;
    // Only at the disk's end may a cluster be written in part.
    if (isLast && compressed) await target.resize(offset + padded, { shrink: true });
    if (offset + padded > target.length) await grow(target, offset + padded, expected);
    const piece = buffer.subarray(0, padded).fill(0, length);
    const runs = rule === undefined ? [{ offset: 0, length: padded, zero: false }] : sparseRuns(piece, offset, rule);
    for (const run of runs) {
      if (run.zero || run.length === 0) continue;
      await put(target, offset + run.offset, piece.subarray(run.offset, run.offset + run.length), compressed);
    }
    offset += length;
    progress(offset, Math.max(offset, expected ?? 0));
    if (isLast) break;
  }
  const size = Math.ceil(offset / SECTOR) * SECTOR;
  if (target.length > size) await target.resize(size, { shrink: true });
  return offset;
}

async function fillFromStdin(
  buffer: Uint8Array,
  offset: number,
  clock: HostClock,
  signal: AbortSignal,
): Promise<number> {
  let filled = 0;
  try {
    while (filled < buffer.length) {
      const { bytesRead } = await whenReady(clock, signal, () =>
        readAt(STDIN, buffer, filled, buffer.length - filled, null),
      );
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
  } catch (error) {
    signal.throwIfAborted();
    throw withErrno(asBlockError(error).code, `error while reading at byte ${offset + filled}`, { cause: error });
  }
  return filled;
}

async function grow(target: Disk, needed: number, expected: number | undefined): Promise<void> {
  const wanted = expected ?? Math.max(needed, target.length * 2, GROWTH);
  await target.resize(Math.ceil(Math.max(needed, wanted) / SECTOR) * SECTOR);
}

async function put(target: Disk, offset: number, bytes: Uint8Array, compressed: boolean): Promise<void> {
  try {
    await target.write(offset, bytes, { compressed });
  } catch (error) {
    throw withErrno(asBlockError(error).code, `error while writing at byte ${offset}`, { cause: error });
  }
}
