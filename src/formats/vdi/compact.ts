/** Giving back what holds nothing (V-51): blocks of zeroes lose their place, and the last blocks move into the holes. */
import { isZero } from '../../bytes/zero.ts';
import type { CompactOptions } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import type { VdiImage } from './image.ts';
import { isStored, ZEROED } from './map.ts';
import { fillHoles } from './move.ts';
import type { WriteBack } from './write-back.ts';

/** At any moment a power cut leaves an image whose check finds leaks at worst. An abort stops between two batches. */
export async function compact(image: VdiImage, writeBack: WriteBack, options: CompactOptions): Promise<void> {
  image.requireSound();
  if (image.isStatic) {
    const text = `'${image.file.filename()}' is a static image: its size is fixed`;
    throw new BlockError('ENOTSUP', text, { node: image.node });
  }
  image.touch();
  const stored = image.countStored();
  const report = (done: number) => options.progress?.(Math.min(done, 2 * stored), 2 * stored);
  report(0);
  const seen = await dropZeroBlocks(image, report, options.signal);
  // The map without them is durable before their places are used.
  await writeBack.flush();
  await fillHoles(image, writeBack, { signal: options.signal, moved: (count) => report(seen + count) });
  report(2 * stored);
}

async function dropZeroBlocks(
  image: VdiImage,
  report: (done: number) => void,
  signal: AbortSignal | undefined,
): Promise<number> {
  const { blockSize, file } = image;
  const buffer = new Uint8Array(Math.min(blockSize, 4 << 20));
  let seen = 0;
  for (let block = 0; block < image.map.length; block++) {
    const slot = image.entry(block);
    if (!isStored(slot)) continue;
    signal?.throwIfAborted();
    let zero = true;
    for (let at = 0; zero && at < blockSize; at += buffer.length) {
      await file.read(image.position(slot) + at, buffer);
      zero = isZero(buffer);
    }
    if (zero) {
      image.setEntry(block, ZEROED);
      image.slots.giveUp(slot);
    }
    report(++seen);
  }
  return seen;
}
