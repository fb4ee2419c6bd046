/** Changing a disk's size (T-RESIZE-1). */
import type { Disk } from '../core/disk.ts';
import type { Preallocation } from '../core/driver.ts';
import { BlockError } from '../core/errors.ts';
import { parseSizeOption } from '../core/options.ts';

/** A size, or a change of it, in bytes. */
export interface SizeChange {
  readonly relation: 'to' | 'by' | 'less';
  readonly bytes: number;
}

/** Options of {@link resizeDisk}. */
export interface ResizeOptions {
  /** Allow making it smaller, which loses what is cut off. */
  readonly shrink?: boolean;
  /** How added space gets its storage. */
  readonly preallocation?: Preallocation;
}

/** Message of the error for making smaller without `shrink`. */
export const SHRINK_REFUSAL = 'Use the --shrink option to perform a shrink operation.';
/** What to warn of then. */
export const SHRINK_WARNING =
  "Shrinking an image will delete all data beyond the shrunken image's end. Before performing such an operation, " +
  'make sure there is no important data there.';

/** Sizes are told as signed numbers of 64 bits; from here on they are negative. */
const SIZE_END = 2 ** 63;

/** `2G`, `+512M` or `-1k` (T-SIZE-1). Throws BlockError EINVAL in the words of T-OPT-4. */
export function parseSizeChange(text: string): SizeChange {
  const relation = text.startsWith('+') ? 'by' : text.startsWith('-') ? 'less' : 'to';
  return { relation, bytes: parseSizeOption(relation === 'to' ? text : text.slice(1), 'size') };
}

/** Resizes; what is no multiple of 512 bytes is for the driver to take, to round or to refuse. Resolves with the new size. */
export async function resizeDisk(disk: Disk, change: SizeChange, options: ResizeOptions = {}): Promise<number> {
  const sign = { to: 0, by: 1, less: -1 }[change.relation];
  const size = sign === 0 ? change.bytes : disk.length + sign * change.bytes;
  if (size <= 0 || size >= SIZE_END) throw new BlockError('EINVAL', 'New image size must be positive');
  const { shrink = false, preallocation = 'off' } = options;
  if (size <= disk.length && preallocation !== 'off') {
    throw new BlockError('EINVAL', 'Preallocation can only be used for growing images');
  }
  if (size < disk.length && !shrink) throw new BlockError('EINVAL', SHRINK_REFUSAL);
  await disk.resize(size, { shrink, preallocation, exact: true });
  await disk.flush();
  return disk.length;
}
