/** Giving blocks a place (V-22, V-23, V-26): written whole, and named by the map afterwards. */
import { BlockError } from '../../core/errors.ts';
import { settled } from '../../core/gate.ts';
import { clearAround, fillOverParent, type Outcome } from './copy-up.ts';
import type { VdiImage } from './image.ts';
import { isStored, ZEROED } from './map.ts';
import { zeroBlocks } from './whole-zeroes.ts';
import { makeRoom } from './write-back.ts';

/** Blocks that get places side by side, and the range of the request that lies in them. */
export interface Run {
  readonly offset: number;
  readonly length: number;
  readonly firstBlock: number;
  readonly firstSlot: number;
  readonly count: number;
  /** The places lie behind the file's end, and so read as zeroes when it grows. */
  readonly fresh: boolean;
}

/** Takes slots for as many of the blocks from `offset` on as can lie side by side. ENOSPC when there is none. */
export function takeRun(image: VdiImage, offset: number, source: Uint8Array, start: number): Run {
  const { slots, blockSize, stride } = image;
  const first = takeOne(image, offset, source.length - start);
  let { length, count } = first;
  const limit = source.length - start;
  while (length < limit && stride === blockSize) {
    const block = first.firstBlock + count;
    if (isStored(image.entry(block)) || image.allocating.has(block)) break;
    if (zeroBlocks(image, offset + length, source, start + length) > 0 || !slots.take(first.firstSlot + count)) break;
    count++;
    length += blockSize;
  }
  return { ...first, length: Math.min(length, limit), count };
}

/** A run of the one block at `offset`, of which `limit` bytes or fewer are to be written. */
export function takeOne(image: VdiImage, offset: number, limit: number): Run {
  const { slots, blockSize, file } = image;
  const firstBlock = Math.floor(offset / blockSize);
  const firstSlot = slots.takeAny();
  if (firstSlot < 0) {
    throw new BlockError('ENOSPC', `No place is left in '${file.filename()}' for block ${firstBlock}`, {
      node: image.node,
    });
  }
  const length = Math.min(blockSize - (offset % blockSize), limit);
  const fresh = image.startOf(firstSlot) >= file.length() && file.zeroInit();
  return { offset, length, firstBlock, firstSlot, count: 1, fresh };
}

/**
 * Writes the run's blocks whole and then names them in the map. Others that want the blocks wait (V-23). Without a source
 * the range becomes zeroes; where that needs no place, none is kept.
 */
export async function allocate(image: VdiImage, run: Run, source: Uint8Array | undefined): Promise<void> {
  const { firstBlock, firstSlot, count } = run;
  let over = () => {};
  const ended = new Promise<void>((resolve) => {
    over = resolve;
  });
  for (let i = 0; i < count; i++) image.allocating.set(firstBlock + i, ended);
  // No map has named them (V-26). Last first, so that the end comes back too.
  const giveBack = () => {
    for (let i = count - 1; i >= 0; i--) image.slots.giveBack(firstSlot + i);
  };
  try {
    const held = image.event('cluster_alloc');
    if (held !== undefined) await held;
    const outcome = await fill(image, run, source);
    if (outcome === 'stored') {
      for (let i = 0; i < count; i++) image.setEntry(firstBlock + i, firstSlot + i);
      image.readable = Math.max(image.readable, firstSlot + count);
    } else {
      giveBack();
      if (outcome === 'zero') image.setEntry(firstBlock, ZEROED);
    }
  } catch (error) {
    giveBack();
    throw error;
  } finally {
    for (let i = 0; i < count; i++) image.allocating.delete(firstBlock + i);
    over();
  }
}

async function fill(image: VdiImage, run: Run, source: Uint8Array | undefined): Promise<Outcome> {
  const last = run.firstBlock + run.count - 1;
  if (source === undefined || image.showsParent(run.firstBlock) || image.showsParent(last)) {
    return fillOverParent(image, run, source);
  }
  await makeRoom(image, run.firstSlot + run.count);
  await fillPlain(image, run, source);
  return 'stored';
}

/** Data, with zeroes around it where the file does not have them by itself (V-22). */
async function fillPlain(image: VdiImage, run: Run, source: Uint8Array): Promise<void> {
  const { file } = image;
  const data = image.position(run.firstSlot) + (run.offset % image.blockSize);
  const pieces = [image.after('write_aio', () => file.write(data, source))];
  clearAround(image, run, data, data + source.length, pieces);
  await settled(pieces);
}
