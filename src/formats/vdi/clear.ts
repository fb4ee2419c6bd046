/** Zero writes and discards (V-27, V-28, V-65, V-66): whole blocks give their place up, parts are cleared in the file. */
import { alignDown, alignUp } from '../../bytes/align.ts';
import type { ZeroFlags } from '../../core/driver.ts';
import { withErrno } from '../../core/errors.ts';
import type { VdiImage } from './image.ts';
import { isStored, ZEROED } from './map.ts';
import { settled } from './read.ts';

export async function writeZeroes(image: VdiImage, offset: number, length: number, flags: ZeroFlags): Promise<void> {
  image.requireSound();
  image.touch();
  const unmap = flags.unmap === true;
  const parts: Promise<void>[] = [];
  await eachBlock(image, offset, length, (block, inBlock, size, whole) => {
    const slot = image.entry(block);
    if (!isStored(slot)) return;
    if (unmap && !image.isStatic && whole) giveUp(image, block, slot);
    else parts.push(clearPart(image, slot, inBlock, size, flags));
  });
  await settled(parts);
}

/** Content of a stored part becomes zero in the file. */
async function clearPart(
  image: VdiImage,
  slot: number,
  inBlock: number,
  size: number,
  flags: ZeroFlags,
): Promise<void> {
  const generation = image.slots.enter();
  try {
    await image.file.writeZeroes(image.position(slot) + inBlock, size, {
      unmap: flags.unmap === true,
      noFallback: flags.noFallback === true,
    });
  } finally {
    image.slots.leave(generation);
  }
}

export async function discard(image: VdiImage, offset: number, length: number): Promise<void> {
  if (image.damage.any) throw withErrno('ENOTSUP', 'A damaged image gives no storage back');
  image.touch();
  const parts: Promise<void>[] = [];
  await eachBlock(image, offset, length, (block, inBlock, size, whole) => {
    const slot = image.entry(block);
    if (!isStored(slot)) return;
    if (!image.isStatic && whole) giveUp(image, block, slot);
    else parts.push(discardPart(image, slot, inBlock, size));
  });
  await settled(parts);
}

async function discardPart(image: VdiImage, slot: number, inBlock: number, size: number): Promise<void> {
  const start = image.position(slot) + inBlock;
  const { discardAlign } = image.file.limits();
  const first = alignUp(start, discardAlign);
  const end = alignDown(start + size, discardAlign);
  if (end <= first) return;
  const generation = image.slots.enter();
  try {
    await image.file.discard(first, end - first);
  } finally {
    image.slots.leave(generation);
  }
}

function giveUp(image: VdiImage, block: number, slot: number): void {
  image.setEntry(block, ZEROED);
  image.slots.giveUp(slot);
}

/**
 * Calls `work` for the part of each block in the range, once nobody is allocating that block. `whole`: all of the block
 * that the disk has, which of its last block may be less than a block.
 */
async function eachBlock(
  image: VdiImage,
  offset: number,
  length: number,
  work: (block: number, inBlock: number, size: number, whole: boolean) => void,
): Promise<void> {
  const { blockSize } = image;
  const end = offset + length;
  for (let at = offset; at < end; ) {
    const block = Math.floor(at / blockSize);
    const inBlock = at - block * blockSize;
    const size = Math.min(blockSize - inBlock, end - at);
    for (let other = image.allocating.get(block); other; other = image.allocating.get(block)) {
      await other.catch(() => {});
    }
    work(block, inBlock, size, inBlock === 0 && (size === blockSize || at + size >= image.length));
    at += size;
  }
}
