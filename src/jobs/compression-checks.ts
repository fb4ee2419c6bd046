/** Whether a new image can be compressed while it is written (T-CONV-2). */
import type { DriverSpec } from '../core/driver.ts';
import { BlockError } from '../core/errors.ts';
import type { OptionTree } from '../core/options.ts';

const ON: readonly unknown[] = [true, 'on', 'yes', 'true', 'y'];

/** Throws BlockError: ENOTSUP for a format that cannot, EINVAL for creation options that do not go with it. */
export function checkCompression(format: DriverSpec | undefined, options: OptionTree): void {
  if (format?.kind !== 'format' || format.compresses !== true) throw noCompression();
  const { encryption, preallocation = 'off' } = options;
  if (ON.includes(encryption) || Object.keys(options).some((name) => name.startsWith('encrypt.'))) {
    throw new BlockError('EINVAL', 'Compression and encryption not supported at the same time');
  }
  if (preallocation !== 'off') {
    throw new BlockError('EINVAL', 'Compression and preallocation not supported at the same time');
  }
}

export function noCompression(): BlockError {
  return new BlockError('ENOTSUP', 'Compression not supported for this file format');
}
