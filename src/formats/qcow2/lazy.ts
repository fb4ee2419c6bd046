/** The dirty bit, which says that counts may be behind (Q-ORD-8). */
import { writeFeatures } from './corruption.ts';
import { Incompatible } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { flushAll } from './write-back.ts';

const setting = new WeakMap<Qcow2Image, Promise<void>>();

/** Before the first L2 change with lazy refcounts: sets the bit, durably. */
export async function beforeL2Change(image: Qcow2Image): Promise<void> {
  if (!image.settings.lazyRefcounts || image.dirtyBitSet) return;
  let underway = setting.get(image);
  if (underway === undefined) {
    underway = setDirty(image).finally(() => setting.delete(image));
    setting.set(image, underway);
  }
  await underway;
}

async function setDirty(image: Qcow2Image): Promise<void> {
  const { header, file } = image;
  header.incompatible |= Incompatible.dirty;
  try {
    await image.headerLock.run(() => writeFeatures(image));
    await file.flush();
    image.dirtyBitSet = true;
  } catch (error) {
    header.incompatible &= ~Incompatible.dirty;
    throw error;
  }
}

/** Writes all counts, then clears the bit; both durable. */
export async function markClean(image: Qcow2Image): Promise<void> {
  await flushAll(image);
  if (!image.dirtyBitSet) return;
  image.header.incompatible &= ~Incompatible.dirty;
  await image.headerLock.run(() => writeFeatures(image));
  await image.file.flush();
  image.dirtyBitSet = false;
}
