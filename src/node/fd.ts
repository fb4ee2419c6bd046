/** Reads and writes on a file descriptor, finished to the last byte. Errors are BlockErrors. */
import { BlockError, errorText } from '../core/errors.ts';
import type { BlockingCalls } from './calls.ts';

/** The kernel moves at most 2 GiB less a page in one call. */
const LONGEST = 1024 * 1024 * 1024;

/** Fills `target` from `offset` (null: where the pipe is); fewer bytes only at the end of the file. */
export async function readFully(
  calls: BlockingCalls,
  fd: number,
  target: Uint8Array,
  offset: number | null,
): Promise<number> {
  let done = 0;
  while (done < target.length) {
    const count = await calls.read(fd, part(target, done), offset === null ? null : offset + done);
    if (count === 0) break;
    done += count;
  }
  return done;
}

export async function writeFully(
  calls: BlockingCalls,
  fd: number,
  source: Uint8Array,
  offset: number | null,
): Promise<void> {
  let done = 0;
  while (done < source.length) {
    const count = await calls.write(fd, part(source, done), offset === null ? null : offset + done);
    // A device that takes nothing and says nothing would keep us here for ever.
    if (count === 0) throw new BlockError('ENOSPC', errorText('ENOSPC'));
    done += count;
  }
}

function part(bytes: Uint8Array, done: number): Uint8Array {
  return done === 0 && bytes.length <= LONGEST ? bytes : bytes.subarray(done, done + LONGEST);
}
