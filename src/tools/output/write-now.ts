/** Writing to a descriptor without waiting for its reader, for programs that have more to do than to be read. */
import { constants, fstatSync, openSync, writeSync } from 'node:fs';
import { loadKoffi } from '../../node/koffi.ts';
import type { WriteNow } from './hurried-log.ts';

/** What a pipe with any room at all takes as a whole, bytes (PIPE_BUF of Linux). */
const PIECE = 4096;
const POLLOUT = 4;

/**
 * A file takes everything. A pipe or terminal is opened once more, so that it need not wait with us and waits as ever with all
 * others who have it. What cannot be opened (sockets, pipes of another user) is asked first whether it has room; where there
 * is no such call, it is written as ever. Throws the system's error for a descriptor that is closed.
 */
export function writerNow(descriptor: number): WriteNow {
  const stats = fstatSync(descriptor);
  if (stats.isFile()) return (bytes) => writeSync(descriptor, bytes);
  if (stats.isFIFO() || stats.isCharacterDevice()) {
    try {
      const { O_WRONLY, O_NONBLOCK, O_NOCTTY } = constants;
      const own = openSync(`/proc/self/fd/${descriptor}`, O_WRONLY | O_NONBLOCK | O_NOCTTY);
      return (bytes) => written(own, bytes);
    } catch {
      // Another user's, or no such folder.
    }
  }
  const hasRoom = pollFor(descriptor);
  return (bytes) => (hasRoom() ? written(descriptor, bytes.subarray(0, PIECE)) : 0);
}

function written(descriptor: number, bytes: Uint8Array): number {
  try {
    return writeSync(descriptor, bytes);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return 0;
    throw error;
  }
}

function pollFor(descriptor: number): () => boolean {
  if (process.platform !== 'linux') return () => true;
  try {
    const poll = loadKoffi().load(null).func('int poll(void *fds, ulong count, int milliseconds)');
    // struct pollfd: descriptor, events asked for and found, of 16 bits each.
    const request = new DataView(new ArrayBuffer(8));
    const bytes = new Uint8Array(request.buffer);
    request.setInt32(0, descriptor, true);
    request.setInt16(4, POLLOUT, true);
    // An error counts as room: writing tells of it.
    return () => Number(poll(bytes, 1, 0)) !== 0;
  } catch {
    return () => true;
  }
}
