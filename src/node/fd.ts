/** node:fs calls on a file descriptor as promises, finished to the last byte. Errors are BlockErrors. */
import fs from 'node:fs';
import { asBlockError, BlockError, errorText } from '../core/errors.ts';

/** The kernel moves at most 2 GiB less a page in one call. */
const LONGEST = 1024 * 1024 * 1024;

/** Fills `target` from `offset` (null: where the pipe is); fewer bytes only at the end of the file. */
export async function readFully(fd: number, target: Uint8Array, offset: number | null): Promise<number> {
  let done = 0;
  while (done < target.length) {
    const count = await readOnce(fd, target, done, offset === null ? null : offset + done);
    if (count === 0) break;
    done += count;
  }
  return done;
}

export async function writeFully(fd: number, source: Uint8Array, offset: number | null): Promise<void> {
  let done = 0;
  while (done < source.length) {
    const count = await writeOnce(fd, source, done, offset === null ? null : offset + done);
    // A device that takes nothing and says nothing would keep us here for ever.
    if (count === 0) throw new BlockError('ENOSPC', errorText('ENOSPC'));
    done += count;
  }
}

function readOnce(fd: number, target: Uint8Array, start: number, offset: number | null): Promise<number> {
  const length = Math.min(target.length - start, LONGEST);
  return new Promise((resolve, reject) => {
    const attempt = () =>
      fs.read(fd, target, start, length, offset, (error, count) => {
        if (!error) resolve(count);
        else if (error.code === 'EINTR') attempt();
        else reject(asBlockError(error));
      });
    attempt();
  });
}

function writeOnce(fd: number, source: Uint8Array, start: number, offset: number | null): Promise<number> {
  const length = Math.min(source.length - start, LONGEST);
  return new Promise((resolve, reject) => {
    const attempt = () =>
      fs.write(fd, source, start, length, offset, (error, count) => {
        if (!error) resolve(count);
        else if (error.code === 'EINTR') attempt();
        else reject(asBlockError(error));
      });
    attempt();
  });
}

/** A node:fs call with only an error to report. */
export function finished(start: (done: (error: NodeJS.ErrnoException | null) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    start((error) => {
      if (error) reject(asBlockError(error));
      else resolve();
    });
  });
}
