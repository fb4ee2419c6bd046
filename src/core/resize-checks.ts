/** What is asked before a disk is resized. */
import type { Disk } from './disk.ts';
import type { TruncateOptions } from './driver.ts';
import { BlockError, withErrno } from './errors.ts';

/** BL-SIZE-3, BL-SIZE-4: in this order. Throws BlockError. */
export function checkResize(disk: Disk, length: number, options: TruncateOptions): void {
  const { impl, name: node } = disk.node;
  checkSize(length, node);
  if (impl.truncate === undefined) {
    throw new BlockError('ENOTSUP', 'Image format driver does not support resize', { node });
  }
  if (!disk.writable) throw new BlockError('EACCES', 'Image is read-only', { node });
  if (length < disk.length && options.shrink !== true) {
    const text = `Cannot shrink '${disk.filename}' from ${disk.length} to ${length} bytes: data would be lost`;
    throw new BlockError('EINVAL', text, { node });
  }
}

/** A size that offsets can be told of. Throws BlockError: EINVAL for what is negative as a signed number of 64 bits. */
export function checkSize(length: number, node: string): void {
  if (length < 0 || length >= 2 ** 63) throw new BlockError('EINVAL', 'Image size cannot be negative', { node });
  if (!Number.isInteger(length)) throw new BlockError('EINVAL', 'Image size must be a whole number of bytes', { node });
  if (!Number.isSafeInteger(length)) throw withErrno('EFBIG', 'Could not resize the image', { node });
}
