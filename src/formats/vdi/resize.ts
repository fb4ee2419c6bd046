/** Changing the disk's size (V-29, V-67). Nobody else uses the image meanwhile. */
import { alignUp } from '../../bytes/align.ts';
import type { Preallocation, TruncateOptions } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { isOldLayout } from './header.ts';
import type { VdiImage } from './image.ts';
import { isStored, mapBytes, UNALLOCATED } from './map.ts';
import { fillHoles, moveBlocks, slotOwners } from './move.ts';
import { loadSlots } from './slots.ts';
import { MAX_BLOCKS, MAX_DISK_SIZE, SECTOR, sizeError } from './validate.ts';
import { type WriteBack, writeHeader } from './write-back.ts';

export async function resize(
  image: VdiImage,
  writeBack: WriteBack,
  length: number,
  { preallocation = 'off' }: TruncateOptions,
): Promise<void> {
  image.requireSound();
  const wanted = alignUp(length, SECTOR);
  const blocks = Math.ceil(wanted / image.blockSize);
  if (wanted > MAX_DISK_SIZE || blocks > MAX_BLOCKS) throw sizeError(wanted);
  image.touch();
  await writeBack.flush();
  if (wanted >= image.length) await grow(image, writeBack, wanted, blocks, preallocation);
  else await shrink(image, writeBack, wanted, blocks);
}

async function grow(
  image: VdiImage,
  writeBack: WriteBack,
  wanted: number,
  blocks: number,
  preallocation: Preallocation,
): Promise<void> {
  await clearTail(image);
  const before = image.map.length;
  if (blocks > before) {
    if (isOldLayout(image.header)) {
      throw new BlockError('ENOTSUP', 'Images of version 0.2 cannot grow', { node: image.node });
    }
    const room = Math.floor((image.dataOffset - image.header.mapOffset) / 4);
    if (blocks > room && image.slots.next > 0) await makeRoom(image, writeBack, blocks, room);
    else if (blocks > room) moveEmptyData(image, blocks);
    await extendMap(image, blocks);
  }
  image.length = wanted;
  await writeHeader(image);
  await image.file.flush();
  if (image.isStatic || preallocation !== 'off') await storeAll(image, writeBack, before, preallocation);
}

/** What the last block holds past the disk's end must not come to light. */
async function clearTail(image: VdiImage): Promise<void> {
  const inBlock = image.length % image.blockSize;
  const slot = image.entry(Math.floor(image.length / image.blockSize));
  if (inBlock === 0 || !isStored(slot)) return;
  await image.file.writeZeroes(image.position(slot) + inBlock, image.blockSize - inBlock, { unmap: true });
}

/** New entries, durable before the header speaks of them. */
async function extendMap(image: VdiImage, blocks: number): Promise<void> {
  const before = image.map.length;
  if (blocks <= before) return;
  const longer = new Uint32Array(blocks).fill(UNALLOCATED);
  longer.set(image.map);
  await image.file.write(image.header.mapOffset + before * 4, mapBytes(longer, before, blocks));
  await image.file.flush();
  image.map = longer;
  image.header.blocks = blocks;
}

/** With no block stored the data can begin anywhere. */
function moveEmptyData(image: VdiImage, blocks: number): void {
  const end = image.header.mapOffset + blocks * 4;
  image.dataOffset += alignUp(Math.max(0, end - image.dataOffset), Math.max(SECTOR, image.stride));
  image.header.dataOffset = image.dataOffset;
}

/**
 * Moves the first blocks to the end, and puts a new map where they were: the old one stays whole until the header, in one
 * sector, names the new map and the new beginning of the data together.
 */
async function makeRoom(image: VdiImage, writeBack: WriteBack, blocks: number, room: number): Promise<void> {
  const { file, header, slots } = image;
  const mapOffset = alignUp(image.dataOffset, SECTOR);
  const count = Math.ceil((mapOffset - image.dataOffset + blocks * 4) / image.stride);
  await extendMap(image, Math.max(room, image.map.length));
  await writeHeader(image);
  slots.takeAllFree();
  let to = Math.max(slots.next, count);
  const moves = [...slotOwners(image, Math.min(count, slots.next))]
    .map((block, from) => ({ block, from }))
    .filter(({ block }) => block !== UNALLOCATED)
    .map(({ block, from }) => ({ block, from, to: to++ }));
  slots.next = to;
  await moveBlocks(image, writeBack, moves, () => {});
  const longer = new Uint32Array(blocks).fill(UNALLOCATED);
  image.map.forEach((slot, block) => {
    longer[block] = isStored(slot) ? slot - count : slot;
  });
  await file.write(mapOffset, mapBytes(longer, 0, blocks));
  await file.flush();
  image.map = longer;
  image.dataOffset += count * image.stride;
  Object.assign(header, { mapOffset, dataOffset: image.dataOffset, blocks, allocated: to - count });
  image.countOnDisk = header.allocated;
  loadSlots(slots, image.map, header.allocated);
}

/** Gives every block that has none a place of its own, as a static image has. */
async function storeAll(
  image: VdiImage,
  writeBack: WriteBack,
  from: number,
  preallocation: Preallocation,
): Promise<void> {
  const { slots, file } = image;
  for (let block = from; block < image.map.length; block++) {
    if (!isStored(image.entry(block))) image.setEntry(block, slots.next++);
  }
  const end = slots.next === 0 ? 0 : image.endOf(slots.next - 1);
  if (end > file.length()) {
    const mode = preallocation === 'metadata' ? 'off' : preallocation;
    await file.truncate(end, { preallocation: mode });
  }
  await writeBack.flush();
}

async function shrink(image: VdiImage, writeBack: WriteBack, wanted: number, blocks: number): Promise<void> {
  const { header, slots } = image;
  for (let block = blocks; block < image.map.length; block++) {
    const slot = image.entry(block);
    if (slot === UNALLOCATED) continue;
    image.setEntry(block, UNALLOCATED);
    if (isStored(slot)) slots.giveUp(slot);
  }
  await writeBack.flush();
  // No entry may name a place that an image of the new size cannot have (V-45); holes are filled on the way.
  await fillHoles(image, writeBack);
  image.map = image.map.slice(0, blocks);
  header.blocks = blocks;
  image.length = wanted;
  image.headerDirty = true;
  await writeBack.flush();
}
