/** Changing a host file's size, with storage for what is added (BL-SIZE-3). */
import type { Preallocation, TruncateOptions } from '../core/driver.ts';
import { BlockError, codeOf, withErrno } from '../core/errors.ts';
import type { HostFile } from '../core/host.ts';

/** Zeroes are written in pieces of this many bytes when a file is filled. */
const FILL_PIECE = 1 << 20;

/** Makes the file `length` bytes long; on failure it is as long as before. */
export async function resizeFile(
  file: HostFile,
  length: number,
  { preallocation = 'off', exact = false, noFallback = false }: TruncateOptions,
  signal?: AbortSignal,
): Promise<void> {
  const before = file.size();
  if (file.kind !== 'regular') return resizeDevice(before, length, preallocation, exact);
  if (preallocation !== 'off' && length < before) {
    throw new BlockError('ENOTSUP', 'Cannot use preallocation for shrinking files');
  }
  if (preallocation === 'metadata') throw new BlockError('ENOTSUP', 'Unsupported preallocation mode: metadata');
  if (preallocation === 'off' || length === before) return truncate(file, length);
  try {
    if (preallocation === 'falloc' && (await allocate(file, before, length))) return;
    if (noFallback) throw withErrno('ENOTSUP', 'Could not preallocate new data');
    // First, so that a size no file can have is refused before the storage is full.
    await truncate(file, length);
    await fill(file, before, length, signal);
  } catch (error) {
    await file.truncate(before).catch(() => {});
    throw error;
  }
}

/** A device has the size it has; what uses it may need less. */
function resizeDevice(size: number, length: number, preallocation: Preallocation, exact: boolean): void {
  if (preallocation !== 'off') {
    const text = `Preallocation mode '${preallocation}' unsupported for this non-regular file`;
    throw new BlockError('ENOTSUP', text);
  }
  if (exact && length !== size) throw new BlockError('ENOTSUP', 'Cannot resize device files');
  if (length > size) throw new BlockError('EINVAL', 'Cannot grow device files');
}

async function truncate(file: HostFile, length: number): Promise<void> {
  if (!Number.isSafeInteger(length)) throw withErrno('EFBIG', 'Could not resize file');
  try {
    await file.truncate(length);
  } catch (error) {
    throw withErrno(codeOf(error), 'Could not resize file', { cause: error });
  }
}

/** False where the host cannot reserve storage. */
async function allocate(file: HostFile, from: number, to: number): Promise<boolean> {
  try {
    await file.allocate(from, to - from);
    return true;
  } catch (error) {
    if (codeOf(error) === 'ENOTSUP') return false;
    throw withErrno(codeOf(error), 'Could not preallocate new data', { cause: error });
  }
}

async function fill(file: HostFile, from: number, to: number, signal: AbortSignal | undefined): Promise<void> {
  const align = file.requestAlign;
  const zeroes = new Uint8Array(FILL_PIECE);
  const end = Math.ceil(to / align) * align;
  try {
    for (let at = Math.ceil(from / align) * align; at < end; at += FILL_PIECE) {
      signal?.throwIfAborted();
      await file.write(at, zeroes.subarray(0, Math.min(FILL_PIECE, end - at)));
    }
    await file.flush();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw withErrno(codeOf(error), 'Could not write zeros for preallocation', { cause: error });
  }
  if (file.size() !== to) await truncate(file, to);
}
