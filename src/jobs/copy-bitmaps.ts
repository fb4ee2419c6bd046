/** Dirty bitmaps that an image keeps, copied into another image (T-CONV-7). */
import type { BitmapList } from '../bitmaps/bitmap-list.ts';
import { bitmapListOf, bitmaps } from '../bitmaps/bitmaps.ts';
import type { DirtyBitmap } from '../bitmaps/dirty-bitmap.ts';
import type { Disk } from '../core/disk.ts';
import { addContext, BlockError } from '../core/errors.ts';

/** `all`: one that is inconsistent is an error. `consistent`: those are left out. */
export type BitmapChoice = 'all' | 'consistent';

/** Throws BlockError where the bitmaps of these sources cannot be copied. */
export function checkBitmapSources(sources: readonly Disk[], choice: BitmapChoice): void {
  const [source] = sources;
  if (source === undefined || sources.length > 1) {
    throw new BlockError('EINVAL', 'Copying bitmaps only possible with single source');
  }
  const list = bitmapListOf(source);
  if (list.store?.available() !== true) throw new BlockError('ENOTSUP', 'Source lacks bitmap support');
  const broken = kept(list).find(({ inconsistent }) => inconsistent);
  if (broken === undefined || choice === 'consistent') return;
  throw new BlockError('EINVAL', `Cannot copy inconsistent bitmap '${broken.name}'`, {
    hint: "Try --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it",
  });
}

/** Throws BlockError where an image can keep none. */
export function checkBitmapTarget(target: Disk): void {
  if (bitmapListOf(target).store?.available() === true) return;
  throw new BlockError('ENOTSUP', `Format driver '${target.format}' does not support bitmaps`);
}

/**
 * Copies all that the image keeps, with granularity and whether changes are recorded. `skipped` is told of those that are
 * inconsistent. Throws BlockError.
 */
export async function copyBitmaps(source: Disk, target: Disk, skipped: (name: string) => void): Promise<void> {
  const to = bitmaps(target);
  for (const bitmap of kept(bitmapListOf(source))) {
    const { name = '', granularity, disabled } = bitmap;
    if (bitmap.inconsistent) {
      skipped(name);
      continue;
    }
    await to.add(name, { granularity, persistent: true, disabled: true }).catch((error: unknown) => {
      throw addContext(`Failed to create bitmap ${name}`, error);
    });
    try {
      to.merge(name, [{ of: source, name }]);
    } catch (error) {
      await to.remove(name);
      throw addContext(`Failed to populate bitmap ${name}`, error);
    }
    if (!disabled) to.enable(name);
  }
}

function kept(list: BitmapList): DirtyBitmap[] {
  return list.all.filter(({ persistent, name }) => persistent && name !== undefined);
}
