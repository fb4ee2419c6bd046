/** The state of a machine, behind the disk: from the first L1 entry that the disk does not need (Q-SNAP-3). */
import { alignDown, alignUp } from '../../bytes/align.ts';
import { SECTOR } from '../../crypto/sector-cipher.ts';
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
  const guest = startOf(image) + offset;
  if (image.cipher === undefined) return read(image, guest, target);
  const { start, bytes } = await sectorsAround(image, guest, target.length);
  target.set(bytes.subarray(guest - start, guest - start + target.length));
}

export async function writeVmState(image: Qcow2Image, offset: number, source: Uint8Array): Promise<void> {
  await image.raise('vmstate_save');
  const guest = startOf(image) + offset;
  if (image.cipher === undefined) return write(image, guest, source);
  const { start, bytes } = await sectorsAround(image, guest, source.length);
  bytes.set(source, guest - start);
  await write(image, start, bytes);
}

/** What is encrypted is read and written by sectors; states come in pieces of any length, one after the other. */
async function sectorsAround(image: Qcow2Image, guest: number, length: number) {
  const start = alignDown(guest, SECTOR);
  const bytes = new Uint8Array(alignUp(guest + length, SECTOR) - start);
  await read(image, start, bytes);
  return { start, bytes };
}

/** Before the disk gets another size: the state would be elsewhere then, or a part of the disk. */
export async function dropVmState(image: Qcow2Image): Promise<void> {
  const end = image.l1.entries * image.layout.l2Reach;
  if (startOf(image) < end) await dropClusters(image, startOf(image), end, 'other', true);
}
