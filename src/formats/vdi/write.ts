/** Writing (V-22, V-23, V-26): in place where a block is stored, else into a new place that the map names afterwards. */
import { invariant } from '../../core/invariant.ts';
import type { VdiImage } from './image.ts';
import { isStored } from './map.ts';
import { settled } from './read.ts';
import type { WriteBack } from './write-back.ts';

export async function write(image: VdiImage, writeBack: WriteBack, offset: number, source: Uint8Array): Promise<void> {
  image.requireSound();
  image.touch();
  const { blockSize } = image;
  const room = blockSize - (offset % blockSize);
  if (source.length <= room) return writeBlock(image, writeBack, offset, source);
  const pieces: Promise<void>[] = [];
  for (let done = 0; done < source.length; ) {
    const length = Math.min(blockSize - ((offset + done) % blockSize), source.length - done);
    pieces.push(writeBlock(image, writeBack, offset + done, source.subarray(done, done + length)));
    done += length;
  }
  await settled(pieces);
}

async function writeBlock(image: VdiImage, writeBack: WriteBack, offset: number, source: Uint8Array): Promise<void> {
  const block = Math.floor(offset / image.blockSize);
  const inBlock = offset - block * image.blockSize;
  for (;;) {
    const slot = image.entry(block);
    if (isStored(slot)) {
      const generation = image.slots.enter();
      try {
        return await image.file.write(image.position(slot) + inBlock, source);
      } finally {
        image.slots.leave(generation);
      }
    }
    const other = image.allocating.get(block);
    if (other === undefined) return allocate(image, writeBack, block, inBlock, source);
    // Whether it succeeds is its own affair; the entry tells how to go on.
    await other.catch(() => {});
  }
}

/** One of several writes into a block that is not stored does this; the others wait for it (V-23). */
function allocate(
  image: VdiImage,
  writeBack: WriteBack,
  block: number,
  inBlock: number,
  source: Uint8Array,
): Promise<void> {
  const work = (async () => {
    const slot = await takeSlot(image, writeBack);
    try {
      await fillBlock(image, slot, inBlock, source);
    } catch (error) {
      // The map never named it (V-26).
      image.slots.putBack(slot);
      throw error;
    }
    image.setEntry(block, slot);
  })();
  const tracked = work.finally(() => image.allocating.delete(block));
  image.allocating.set(block, tracked);
  return tracked;
}

/** A free slot, else the next one; never one that the map of a disk of this size could not name (V-45). */
async function takeSlot(image: VdiImage, writeBack: WriteBack): Promise<number> {
  const { slots } = image;
  for (;;) {
    const free = slots.takeFree();
    if (free !== undefined) return free;
    if (slots.next < image.map.length) return slots.next++;
    // The others were given up not long ago: they are free when the map is durable and nobody uses them any longer.
    invariant(slots.hasPending, 'a disk has as many places as blocks');
    await writeBack.flush();
    if (!slots.hasFree) await slots.whenSomeLeave();
  }
}

/** Writes a whole block, zero around the data; what lies past the file's end is zero without being written (V-22). */
async function fillBlock(image: VdiImage, slot: number, inBlock: number, source: Uint8Array): Promise<void> {
  const { file, blockSize } = image;
  const start = image.position(slot);
  const fresh = start >= file.length() && file.zeroInit();
  if (!fresh && source.length < blockSize) {
    const tail = inBlock + source.length;
    await settled([
      inBlock > 0 ? file.writeZeroes(start, inBlock, { unmap: true }) : Promise.resolve(),
      tail < blockSize ? file.writeZeroes(start + tail, blockSize - tail, { unmap: true }) : Promise.resolve(),
    ]);
  }
  await file.write(start + inBlock, source);
}

/** At once or not at all: in place, or into a new place behind the end of the file. */
export function tryWriteNow(image: VdiImage, offset: number, source: Uint8Array): boolean {
  const { blockSize } = image;
  const block = Math.floor(offset / blockSize);
  const inBlock = offset - block * blockSize;
  if (inBlock + source.length > blockSize || image.damage.any) return false;
  const slot = image.entry(block);
  if (isStored(slot)) {
    if (!image.file.tryWriteNow(image.position(slot) + inBlock, source)) return false;
    image.touch();
    return true;
  }
  return allocateNow(image, block, inBlock, source);
}

function allocateNow(image: VdiImage, block: number, inBlock: number, source: Uint8Array): boolean {
  const { slots, file } = image;
  const slot = slots.next;
  if (slots.hasFree || slot >= image.map.length || image.allocating.size > 0) return false;
  const start = image.position(slot);
  if (start < file.length() || !file.zeroInit()) return false;
  if (!file.tryWriteNow(start + inBlock, source)) return false;
  slots.next++;
  image.touch();
  image.setEntry(block, slot);
  return true;
}
