/** Giving back what holds nothing (V-51): blocks that need no place lose it, and the last blocks move into the gaps. */
import { firstDifference } from '../../bytes/difference.ts';
import { isZero } from '../../bytes/zero.ts';
import type { Child, CompactOptions } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import type { VdiImage } from './image.ts';
import { isStored, UNALLOCATED, ZEROED } from './map.ts';
import { closeGaps, countStored } from './move.ts';
import { alone, shrinkFile, writeBack } from './write-back.ts';

const READ_BYTES = 4 << 20;

/** What a compaction compares blocks with besides zeroes. */
export interface CompactParent {
  /** The parent, if what it holds now is what this image was made over. */
  trusted(): Child | undefined;
}

/** At any moment a power cut leaves an image whose check finds leaks at worst. An abort stops between two batches. */
export async function compact(image: VdiImage, parent: CompactParent, options: CompactOptions): Promise<void> {
  image.requireSound();
  if (image.isStatic) {
    const text = `'${image.file.filename()}' is a static image: its size is fixed`;
    throw new BlockError('ENOTSUP', text, { node: image.node });
  }
  await alone(image, () => compactAlone(image, parent.trusted(), options));
}

async function compactAlone(
  image: VdiImage,
  parent: Child | undefined,
  { signal, progress }: CompactOptions,
): Promise<void> {
  const total = 2 * countStored(image);
  let done = 0;
  const step = () => progress?.(Math.min(++done, total), total);
  progress?.(0, total);
  await dropBlocks(image, parent, step, signal);
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

/** Blocks of zeroes are known to be zero, which hides the parent; blocks like the parent's show it again. */
async function dropBlocks(
  image: VdiImage,
  parent: Child | undefined,
  step: () => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const length = Math.min(image.blockSize, READ_BYTES);
  const buffers = { own: new Uint8Array(length), parents: new Uint8Array(parent === undefined ? 0 : length) };
  for (let block = 0; block < image.map.length; block++) {
    const slot = image.entry(block);
    if (!isStored(slot)) continue;
    signal?.throwIfAborted();
    const entry = await entryWithoutPlace(image, parent, block, buffers);
    if (entry !== undefined) {
      image.touch();
      image.setEntry(block, entry);
      image.slots.release(slot);
    }
    step();
  }
}

/** What a block's entry can be for the disk to stay as it is; undefined: it needs its place. */
async function entryWithoutPlace(
  image: VdiImage,
  parent: Child | undefined,
  block: number,
  { own, parents }: { readonly own: Uint8Array; readonly parents: Uint8Array },
): Promise<number | undefined> {
  const start = block * image.blockSize;
  // Only what the disk has of its last block counts.
  const size = Math.min(image.blockSize, image.length - start);
  let zero = true;
  let same = image.isDifferencing && parent !== undefined;
  for (let at = 0; at < size && (zero || same); at += own.length) {
    const piece = own.subarray(0, Math.min(own.length, size - at));
    await image.file.read(image.position(image.entry(block)) + at, piece);
    zero &&= isZero(piece);
    if (!same || parent === undefined) continue;
    const other = parents.subarray(0, piece.length);
    await parent.read(start + at, other);
    same = firstDifference(piece, other) < 0;
  }
  if (zero) return ZEROED;
  return same ? UNALLOCATED : undefined;
}
