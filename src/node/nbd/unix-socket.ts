/** The place of a unix socket: what is in its way, and who may reach it (N-114). */
import { chmodSync } from 'node:fs';
import { lstat, unlink } from 'node:fs/promises';
import { connect, type Server } from 'node:net';
import { dirname } from 'node:path';
import { BlockError, codeOf, type ErrorCode, errorText } from '../../core/errors.ts';

/** `sun_path` without its NUL, bytes. */
const PATH_MAX = 107;

/** Makes room: a socket whose server is gone is removed. Throws BlockError EADDRINUSE's text for anything else that is there. */
export async function clearSocketPath(path: string): Promise<void> {
  if (Buffer.byteLength(path) > PATH_MAX) {
    const hint = `Path must be less than ${PATH_MAX + 1} bytes`;
    throw new BlockError('ENAMETOOLONG', `UNIX socket path '${path}' is too long`, { hint });
  }
  const inTheWay = (place: string) =>
    lstat(place).catch((error: unknown) => {
      if (codeOf(error) === 'ENOENT') return undefined;
      throw bindFailure(path, errorText(codeOf(error)), codeOf(error));
    });
  const found = await inTheWay(path);
  // Of a missing folder the system's own message says that permission was denied.
  if (found === undefined && (await inTheWay(dirname(path))) === undefined) {
    throw bindFailure(path, errorText('ENOENT'), 'ENOENT');
  }
  if (found === undefined) return;
  if (!found.isSocket() || (await isServed(path))) throw bindFailure(path, 'Address already in use');
  await unlink(path);
}

export function bindFailure(path: string, reason: string, code: ErrorCode = 'EBUSY'): BlockError {
  return new BlockError(code, `Failed to bind socket to ${path}: ${reason}`);
}

/** Whether someone listens there. What cannot be found out counts as yes, so that nothing is taken away from anyone. */
function isServed(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', (error) => {
      probe.destroy();
      resolve((error as NodeJS.ErrnoException).code !== 'ECONNREFUSED');
    });
  });
}

/** Listens there with these permission bits from the first moment on. */
export function listenAtPath(server: Server, path: string, mode: number): void {
  let former: number | undefined;
  try {
    former = process.umask(0o777 & ~mode);
  } catch {
    // Threads have no umask of their own.
    server.once('listening', () => chmodSync(path, mode));
  }
  try {
    server.listen(path);
  } finally {
    if (former !== undefined) process.umask(former);
  }
}
