/** Giving back what holds nothing (V-51): blocks of zeroes lose their place, and the last blocks move into the gaps. */
import { isZero } from '../../bytes/zero.ts';
import type { CompactOptions } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import type { VdiImage } from './image.ts';
import { isStored, ZEROED } from './map.ts';
import { closeGaps, countStored } from './move.ts';
import { alone, shrinkFile, writeBack } from './write-back.ts';

const READ_BYTES = 4 << 20;

/** At any moment a power cut leaves an image whose check finds leaks at worst. An abort stops between two batches. */
export async function compact(image: VdiImage, options: CompactOptions): Promise<void> {
  image.requireSound();
  if (image.isStatic) {
    const text = `'${image.file.filename()}' is a static image: its size is fixed`;
    throw new BlockError('ENOTSUP', text, { node: image.node });
  }
  await alone(image, () => compactAlone(image, options));
}

async function compactAlone(image: VdiImage, { signal, progress }: CompactOptions): Promise<void> {
  const total = 2 * countStored(image);
  let done = 0;
  const step = () => progress?.(Math.min(++done, total), total);
  progress?.(0, total);
  await dropZeroBlocks(image, step, signal);
  // The map without them is durable before their places are used.
  await writeBack(image);
  signal?.throwIfAborted();
  await closeGaps(image, { signal, moved: step });
  image.touch();
  await writeBack(image);
  await shrinkFile(image);
  await image.file.flush();
  progress?.(total, total);
}

async function dropZeroBlocks(image: VdiImage, step: () => void, signal: AbortSignal | undefined): Promise<void> {
  const buffer = new Uint8Array(Math.min(image.blockSize, READ_BYTES));
  for (let block = 0; block < image.map.length; block++) {
    const slot = image.entry(block);
    if (!isStored(slot)) continue;
    signal?.throwIfAborted();
    if (await isZeroBlock(image, block, slot, buffer)) {
      image.touch();
      image.setEntry(block, ZEROED);
      image.slots.release(slot);
    }
    step();
  }
}

/** Only what the disk has of its last block counts. */
async function isZeroBlock(image: VdiImage, block: number, slot: number, buffer: Uint8Array): Promise<boolean> {
  const size = Math.min(image.blockSize, image.length - block * image.blockSize);
  for (let at = 0; at < size; at += buffer.length) {
    const piece = buffer.subarray(0, Math.min(buffer.length, size - at));
    await image.file.read(image.position(slot) + at, piece);
    if (!isZero(piece)) return false;
  }
  return true;
}
