/** Growing (V-29, V-67): a longer map, and room for it where the data are in its way. */
import { alignUp } from '../../bytes/align.ts';
import type { Preallocation } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { allocate, takeOne } from './allocate.ts';
import { isOldLayout } from './header.ts';
import type { VdiImage } from './image.ts';
import { ENTRY_BYTES, isStored, mapBytes, UNALLOCATED, ZEROED } from './map.ts';
import { type Move, moveBlocks } from './move.ts';
import { DEFAULT_BLOCK_SIZE, SECTOR } from './validate.ts';
import { writeBack, writeHeader } from './write-back.ts';

/** Entries of a new map that are written at a time. */
const MAP_PIECE = 1 << 20;

/** Makes the disk `wanted` bytes long, in `blocks` blocks. Nobody else uses the image; nothing is dirty. */
export async function grow(
  image: VdiImage,
  wanted: number,
  blocks: number,
  preallocation: Preallocation,
): Promise<void> {
  await clearBeyondEnd(image);
  await hideParentBeyondEnd(image);
  const before = image.isStatic ? 0 : Math.ceil(image.length / image.blockSize);
  if (blocks > image.map.length) await lengthenMap(image, wanted, blocks);
  else {
    image.header.diskSize = wanted;
    await commit(image, image.countOnDisk, image.map);
  }
  if (image.isStatic || preallocation !== 'off') await storeAll(image, before, preallocation);
}

/** What the image holds past the disk's end must not come to light; durable. */
async function clearBeyondEnd(image: VdiImage): Promise<void> {
  const { blockSize, length, file } = image;
  for (let at = length; at < image.map.length * blockSize; ) {
    const slot = image.entry(Math.floor(at / blockSize));
    const size = image.runLength(at, image.map.length * blockSize - at);
    if (isStored(slot)) await file.writeZeroes(image.position(slot) + (at % blockSize), size, { unmap: true });
    at += size;
  }
  await file.flush();
}

/** Nor may what a longer parent has there (BL-SIZE-4): new blocks are zero, and the last one is copied up. Durable. */
async function hideParentBeyondEnd(image: VdiImage): Promise<void> {
  if (!image.isDifferencing) return;
  const { blockSize, length, map } = image;
  for (let block = Math.ceil(length / blockSize); block < map.length; block++) {
    if (image.entry(block) === UNALLOCATED) image.setEntry(block, ZEROED);
  }
  const last = Math.floor(length / blockSize);
  if (length % blockSize !== 0 && image.showsParent(last)) {
    const showing = Math.min((last + 1) * blockSize, image.requireParent()?.length() ?? 0) - length;
    // Zeroes beyond the disk's end: before them, all that the disk has of the block is copied.
    if (showing > 0) await allocate(image, takeOne(image, length, showing), undefined);
  }
  await writeBack(image);
}

async function lengthenMap(image: VdiImage, wanted: number, blocks: number): Promise<void> {
  const { header } = image;
  if (isOldLayout(header)) {
    throw new BlockError('ENOTSUP', 'Images of VDI version 0.2 cannot grow', { node: image.node });
  }
  const room = Math.floor((header.dataOffset - header.mapOffset) / ENTRY_BYTES);
  if (blocks <= room) return extendMap(image, wanted, blocks);
  if (image.slots.end === 0) {
    moveDataOffset(image, blocks);
    return extendMap(image, wanted, blocks);
  }
  // As many entries as have room without moving, so that moved blocks find numbers that the map may name.
  if (room > image.map.length) await extendMap(image, image.length, room);
  await replaceMap(image, wanted, blocks);
}

/** New entries behind the old ones, durable before the header speaks of them. */
async function extendMap(image: VdiImage, wanted: number, blocks: number): Promise<void> {
  const { header, file, map } = image;
  const longer = new Uint32Array(blocks).fill(image.emptyEntry);
  longer.set(map);
  await writeMap(image, longer, header.mapOffset, map.length);
  await file.flush();
  header.blocks = blocks;
  header.diskSize = wanted;
  await commit(image, image.countOnDisk, longer);
}

/** With no block stored the data can begin anywhere; as before, at a multiple of what they are aligned to. */
function moveDataOffset(image: VdiImage, blocks: number): void {
  const { header } = image;
  let alignment = DEFAULT_BLOCK_SIZE;
  while (alignment > SECTOR && header.dataOffset % alignment !== 0) alignment /= 2;
  const dataOffset = alignUp(header.mapOffset + blocks * ENTRY_BYTES, alignment);
  requireOffset(image, dataOffset);
  header.dataOffset = dataOffset;
}

/**
 * Moves the first blocks to the end, and puts a new map where they were: the old one stays whole until the header, in one
 * sector, names the new map and the new beginning of the data together.
 */
async function replaceMap(image: VdiImage, wanted: number, blocks: number): Promise<void> {
  const { header, file, stride } = image;
  const mapOffset = alignUp(header.mapOffset + image.map.length * ENTRY_BYTES, SECTOR);
  const given = Math.ceil((mapOffset + blocks * ENTRY_BYTES - header.dataOffset) / stride);
  requireOffset(image, header.dataOffset + given * stride);
  await vacate(image, given);
  const longer = new Uint32Array(blocks).fill(image.emptyEntry);
  for (let block = 0; block < image.map.length; block++) {
    const slot = image.entry(block);
    longer[block] = isStored(slot) ? slot - given : slot;
  }
  const count = Math.max(0, image.slots.end - given);
  await writeMap(image, longer, mapOffset, 0);
  await file.flush();
  Object.assign(header, { mapOffset, dataOffset: header.dataOffset + given * stride, blocks, diskSize: wanted });
  await commit(image, count, longer);
}

/**
 * Moves every block out of the first `given` slots. Where all numbers that the old map may name are in use, the places
 * have higher ones until the new map is there: a check after a crash then finds them too large, and repairs that.
 */
async function vacate(image: VdiImage, given: number): Promise<void> {
  const moves = function* (): Generator<Move> {
    for (let block = 0; block < image.map.length; block++) {
      if (image.entry(block) < given) yield { block, to: image.slots.takeFrom(given) };
    }
  };
  await moveBlocks(image, moves());
}

/** Data offsets are 32-bit fields. */
function requireOffset(image: VdiImage, dataOffset: number): void {
  if (dataOffset < 2 ** 32) return;
  throw new BlockError('EFBIG', `The map of '${image.file.filename()}' would not fit before 4 GiB`, {
    node: image.node,
  });
}

async function writeMap(image: VdiImage, map: Uint32Array, mapOffset: number, from: number): Promise<void> {
  const { file } = image;
  const end = mapOffset + map.length * ENTRY_BYTES;
  if (!file.growable && file.length() < end) await file.truncate(end);
  await image.event('l2_update');
  for (let first = from; first < map.length; first += MAP_PIECE) {
    const to = Math.min(map.length, first + MAP_PIECE);
    await file.write(mapOffset + first * ENTRY_BYTES, mapBytes(map, first, to));
  }
}

/** Writes the header with its new layout, durable. If that fails, which layout the file has is not known. */
export async function commit(image: VdiImage, count: number, map: Uint32Array): Promise<void> {
  try {
    await writeHeader(image, count);
    await image.file.flush();
  } catch (error) {
    image.refusal = `The header of '${image.file.filename()}' could not be written; open the image again to go on`;
    image.headerDirty = false;
    throw error;
  }
  image.relayout(map);
}

/** Gives every block from `first` on that has none a place of its own, as a static image has. */
async function storeAll(image: VdiImage, first: number, preallocation: Preallocation): Promise<void> {
  const { slots, file } = image;
  const before = file.length();
  for (let block = first; block < image.map.length; block++) {
    if (isStored(image.entry(block))) continue;
    const slot = slots.takeAny();
    image.setEntry(block, slot);
    if (image.startOf(slot) < before) await file.writeZeroes(image.startOf(slot), image.stride);
  }
  const end = image.dataEnd;
  if (slots.end > 0 && file.length() < end) {
    await file.truncate(end, { preallocation: preallocation === 'metadata' ? 'off' : preallocation });
  }
  image.readable = Math.max(image.readable, slots.end);
  await writeBack(image);
}
