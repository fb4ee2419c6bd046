/** New blocks for someone else to fill (V-23): places behind the end of the file, given out in order. */
import { BlockError } from '../../core/errors.ts';
import type { NewStorage, PartRun } from '../../core/new-storage.ts';
import type { VdiImage } from './image.ts';
import { isStored } from './map.ts';
import { makeRoom } from './write-back.ts';

/** Undefined where places are not simply one behind the other at the end, zero before they are written. */
export async function newStorage(image: VdiImage): Promise<NewStorage | undefined> {
  const { file, slots, blockSize } = image;
  if (image.refusal !== undefined || image.isDifferencing || image.stride !== blockSize) return undefined;
  if (!file.growable || !file.zeroInit()) return undefined;
  await makeRoom(image, slots.end + 1);
  const scattered = slots.free > 0 || slots.pending > 0 || image.allocating.size > 0 || image.gate.closed;
  if (scattered || file.length() > image.dataEnd) return undefined;
  return {
    unit: blockSize,
    at: { child: file.name, offset: image.startOf(0) },
    next: slots.end,
    limit: slots.capacity,
    numbers(first, target) {
      for (let index = 0; index < target.length; index++) {
        const slot = image.entry(first + index);
        if (isStored(slot) && !image.isSound(slot)) return false;
        target[index] = isStored(slot) ? slot : -1;
      }
      return true;
    },
    adopt: (parts) => adopt(image, parts),
  };
}

function adopt(image: VdiImage, parts: readonly PartRun[]): void {
  const { slots } = image;
  image.touch();
  for (const { first, count } of parts) {
    for (let block = first; block < first + count; block++) {
      const slot = slots.end;
      if (!slots.take(slot))
        throw new BlockError('ENOSPC', `No place is left in '${image.file.filename()}' for block ${block}`);
      image.setEntry(block, slot);
      image.readable = slots.end;
    }
  }
}
