/** Zero writes and discards (V-27, V-28, V-65, V-66): whole blocks give their place up, parts are cleared in the file. */
import type { ZeroFlags } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { settled } from './gate.ts';
import type { VdiImage } from './image.ts';
import { isStored, ZEROED } from './map.ts';
import { mustWait } from './write.ts';

export async function writeZeroes(image: VdiImage, offset: number, length: number, flags: ZeroFlags): Promise<void> {
  image.requireSound();
  const inPlace: ZeroFlags = { unmap: flags.unmap === true, noFallback: flags.noFallback === true };
  await clear(image, offset, length, flags.unmap === true, (at, size) => image.file.writeZeroes(at, size, inPlace));
}

export async function discard(image: VdiImage, offset: number, length: number): Promise<void> {
  if (image.refusal !== undefined) throw new BlockError('ENOTSUP', image.refusal, { node: image.node });
  await clear(image, offset, length, true, (at, size) => image.file.discard(at, size));
}

/** Does `inFile` to the stored parts of the range, but for whole blocks that may give their place up. */
async function clear(
  image: VdiImage,
  offset: number,
  length: number,
  giveUp: boolean,
  inFile: (position: number, length: number) => Promise<void>,
): Promise<void> {
  for (let wait = mustWait(image, offset, length); wait; wait = mustWait(image, offset, length)) await wait;
  const ticket = image.gate.enter();
  try {
    const pieces: Promise<void>[] = [];
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const block = Math.floor(at / image.blockSize);
      const slot = image.entry(block);
      const single = giveUp && !image.isStatic && isStored(slot);
      const size = single ? Math.min(end, (block + 1) * image.blockSize) - at : image.runLength(at, end - at);
      if (single) {
        // Of the last block, the disk may have only a part.
        const whole = at === block * image.blockSize && (size === image.blockSize || end === image.length);
        if (whole) release(image, block, slot);
        else pieces.push(inFile(image.position(slot) + (at % image.blockSize), size));
      } else if (isStored(slot)) pieces.push(inFile(image.position(slot) + (at % image.blockSize), size));
      at += size;
    }
    if (pieces.length > 0) image.touch();
    await settled(pieces);
  } finally {
    image.gate.leave(ticket);
  }
}

function release(image: VdiImage, block: number, slot: number): void {
  image.touch();
  image.setEntry(block, ZEROED);
  image.slots.release(slot);
}
