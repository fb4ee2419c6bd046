/** Changing options and writability of an open image (Q-OPT-6), and ending a session (Q-ORD-9). */
import type { ReopenStep, ReopenTarget } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { startCleaning, stopCleaning } from './cache-cleaning.ts';
import type { Qcow2Image } from './image.ts';
import { indexInactiveTables } from './inactive-tables.ts';
import { markClean } from './lazy.ts';
import { type Qcow2Options, settingsFor } from './options.ts';
import { requireDisk } from './snapshots.ts';
import { becomeWritable } from './writability.ts';
import { flushAll } from './write-back.ts';
import { fillLastSector } from './write-compressed.ts';

/** No request is under way until the step is over. */
export async function prepareReopen(image: Qcow2Image, target: ReopenTarget): Promise<ReopenStep> {
  const { options, writable, discard } = target;
  if (writable) requireDisk(image);
  const settings = settingsFor(options as Qcow2Options, discard, image.header, image.layout);
  if (writable && !image.writable && image.isMarkedCorrupt) {
    throw new BlockError('EACCES', 'qcow2: Image is corrupt; cannot be opened read/write', { node: image.node });
  }
  if (image.writable && image.broken === undefined) {
    if (!writable || (image.settings.lazyRefcounts && !settings.lazyRefcounts)) await markClean(image);
    else await flushAll(image);
  }
  const becomes = writable && !image.writable;
  // When it is writable it is too late to refuse.
  if (becomes) await image.refcounts.ready();
  return {
    commit() {
      image.useSettings(settings);
      startCleaning(image);
      if (!writable) image.writable = false;
    },
    abort() {},
    async finish() {
      if (becomes) await becomeWritable(image, { checkOnly: false });
      else if (image.writable) await indexInactiveTables(image);
    },
  };
}

/**
 * Writes back all that is cached and marks the image as cleanly closed; what was opened for reading is left alone. Throws
 * BlockError that says what was not written back.
 */
export async function finishSession(image: Qcow2Image): Promise<void> {
  stopCleaning(image);
  if (!image.writable || image.broken !== undefined) return;
  await fillLastSector(image);
  const cache = image.l2.isDirty ? 'L2 table' : image.refcounts.cache.isDirty ? 'refcount block' : undefined;
  try {
    await markClean(image);
  } catch (error) {
    if (cache === undefined || !(error instanceof BlockError)) throw error;
    const text = `Failed to flush the ${cache} cache: ${error.message}`;
    throw new BlockError(error.code, text, { node: image.node, cause: error });
  }
  image.writable = false;
  image.l2.dropClean();
  image.refcounts.cache.dropClean();
}
