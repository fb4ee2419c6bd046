/** The state of a machine, behind the disk: from the first L1 entry that the disk does not need (Q-SNAP-3). */
import { dropClusters } from './clear.ts';
import type { Qcow2Image } from './image.ts';
import { l1EntriesFor } from './layout.ts';
import { read } from './read.ts';
import { write } from './write.ts';

/** Guest offset of its first byte. */
function startOf({ layout, length }: Qcow2Image): number {
  return l1EntriesFor(layout, length) * layout.l2Reach;
}

export async function readVmState(image: Qcow2Image, offset: number, target: Uint8Array): Promise<void> {
  await image.raise('vmstate_load');
  await read(image, startOf(image) + offset, target);
}

export async function writeVmState(image: Qcow2Image, offset: number, source: Uint8Array): Promise<void> {
  await image.raise('vmstate_save');
  await write(image, startOf(image) + offset, source);
}

/** Before the disk gets another size: the state would be elsewhere then, or a part of the disk. */
export async function dropVmState(image: Qcow2Image): Promise<void> {
  const end = image.l1.entries * image.layout.l2Reach;
  if (startOf(image) < end) await dropClusters(image, startOf(image), end, 'other', true);
}
