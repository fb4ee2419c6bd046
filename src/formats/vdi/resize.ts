/** Changing the disk's size (V-29, V-67). */
import { alignUp } from '../../bytes/align.ts';
import type { TruncateOptions } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { commit, grow } from './grow.ts';
import { isOldLayout } from './header.ts';
import type { VdiImage } from './image.ts';
import { isStored, UNALLOCATED } from './map.ts';
import { closeGaps } from './move.ts';
import { MAX_BLOCKS, MAX_DISK_SIZE, SECTOR, sizeError } from './validate.ts';
import { alone, shrinkFile, writeBack } from './write-back.ts';

export async function resize(image: VdiImage, length: number, options: TruncateOptions): Promise<void> {
  image.requireSound();
  const wanted = alignUp(length, SECTOR);
  const blocks = Math.ceil(wanted / image.blockSize);
  if (wanted > MAX_DISK_SIZE || blocks > MAX_BLOCKS) throw sizeError(wanted);
  await alone(image, async () => {
    if (wanted < image.length && options.shrink !== true) {
      const text = `Cannot shrink '${image.file.filename()}' from ${image.length} to ${wanted} bytes: data would be lost`;
      throw new BlockError('EINVAL', text, { node: image.node });
    }
    image.touch();
    await writeBack(image);
    if (wanted < image.length) await shrink(image, wanted, blocks);
    else await grow(image, wanted, blocks, options.preallocation ?? 'off');
  });
}

/** Every step leaves a sound image; until the last, its map only has more room than the disk needs. */
async function shrink(image: VdiImage, wanted: number, blocks: number): Promise<void> {
  const { header } = image;
  // Where version 0.2 has its data follows from the number of blocks, which therefore stays.
  const kept = isOldLayout(header) ? header.blocks : blocks;
  header.diskSize = wanted;
  await commit(image, image.countOnDisk, image.map);
  for (let block = blocks; block < image.map.length; block++) {
    const slot = image.entry(block);
    if (slot === UNALLOCATED) continue;
    image.setEntry(block, UNALLOCATED);
    if (isStored(slot)) image.slots.release(slot);
  }
  await writeBack(image);
  // No entry may name a place that an image of the new size cannot have (V-45), and the file is to get shorter too.
  await closeGaps(image);
  if (kept < header.blocks) {
    header.blocks = kept;
    await commit(image, image.slots.end, image.map.slice(0, kept));
  }
  await shrinkFile(image);
}
