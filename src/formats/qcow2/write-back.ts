/**
 * Writing metadata back so that a power cut leaves at worst leaks (Q-ORD): counts and data first, then L2 entries, then
 * what they dropped is free. Each is durable before the next.
 */
import { BlockError, codeOf } from '../../core/errors.ts';
import type { TakenEntry } from './cache.ts';
import type { Qcow2Image } from './image.ts';
import { writeMetadata } from './metadata-io.ts';
import { MetadataClass } from './overlap.ts';
import type { Release } from './releases.ts';

/** A compaction changes tables of snapshots too. */
const L2_CLASSES = MetadataClass.activeL2 | MetadataClass.inactiveL2;

/** Makes everything completed before the call durable. One runs at a time; those that wait share the next. */
export function flush(image: Qcow2Image): Promise<void> {
  image.requireUsable();
  image.queuedFlush ??= image.writeBackLock
    .run(() => {
      image.queuedFlush = undefined;
      return writeBack(image);
    })
    .then(() => settleReleases(image));
  return image.queuedFlush;
}

/** Lets a cache that is full of changes write them. */
export function attachWriteBack(image: Qcow2Image): void {
  image.writeMetadataBack = () => flushMetadata(image);
}

/** The same as far as requests that are under way may wait for it: what is released stays in quarantine. */
function flushMetadata(image: Qcow2Image): Promise<void> {
  return image.writeBackLock.run(() => writeBack(image));
}

/** For who holds the lock. What cannot be written stays dirty. */
async function writeBack(image: Qcow2Image): Promise<void> {
  const dropped = image.releases.takeDropped();
  const taken = image.l2.takeDirty();
  let written = false;
  try {
    // Lazy counts may be behind what refers to clusters, as the dirty bit says (Q-ORD-8).
    if (!image.dirtyBitSet) await image.refcounts.writeBack();
    await flushFiles(image);
    if (taken.length > 0) {
      await writeSlices(image, taken);
      await image.file.flush();
    }
    written = true;
  } finally {
    image.l2.settle(taken, written);
    if (written) image.releases.addDurable(dropped);
    else image.releases.putBack(dropped);
  }
}

/** The image file, and the data file beside it. */
async function flushFiles(image: Qcow2Image): Promise<void> {
  const { file, data } = image;
  await (data === file ? file.flush() : Promise.all([file.flush(), data.flush()]));
}

/** As many as can be written are; ENOSPC is the error that counts most. */
async function writeSlices(image: Qcow2Image, taken: readonly TakenEntry[]): Promise<void> {
  let failure: unknown;
  for (const { entry, bytes } of taken) {
    try {
      await image.raise('l2_update');
      await writeMetadata(image, L2_CLASSES, entry.offset, bytes);
    } catch (error) {
      if (failure === undefined || codeOf(error) === 'ENOSPC') failure = error;
    }
  }
  if (failure !== undefined) throw failure;
}

/** Lowers the counts of what was dropped for good, once no request that may know it is under way. */
function settleReleases(image: Qcow2Image): Promise<void> {
  if (!image.releases.any) return Promise.resolve();
  return image.settleLock.run(async () => {
    const releases = image.releases.takeDurable();
    if (releases.length === 0) return;
    await image.gate.barrier();
    image.decompressed.forget();
    for (const release of releases) await free(image, release);
    if (!image.dirtyBitSet) await image.refcounts.writeBack();
  });
}

/** Nothing takes a cluster before its storage has been given back. */
function free(image: Qcow2Image, { offset, length, cause }: Release): Promise<void> {
  const { refcounts, settings } = image;
  const passOn = cause === 'always' || (cause !== 'never' && settings.passDiscard[cause]);
  return refcounts.lock.run(async () => {
    try {
      await image.raise('cluster_free');
      for (const range of await refcounts.changeLocked(offset, length, -1)) {
        image.preallocated = undefined;
        if (passOn) await image.file.discard(range.offset, range.length).catch(ignoreBlockError);
      }
    } catch (error) {
      ignoreBlockError(error);
      image.host.warn(`qcow2_free_clusters failed: ${error instanceof Error ? error.message : error}`);
    }
  });
}

/** What cannot be freed is a leak. */
function ignoreBlockError(error: unknown): void {
  if (!(error instanceof BlockError)) throw error;
}

export function isDirty(image: Qcow2Image): boolean {
  return image.l2.isDirty || image.refcounts.cache.isDirty || image.releases.any;
}

/** Writes everything, counts too, so that nothing is left to do; durable. */
export async function flushAll(image: Qcow2Image): Promise<void> {
  // Lowering counts makes blocks dirty, which are written by the next turn.
  for (let turn = 0; turn === 0 || isDirty(image); turn++) {
    await flush(image);
    await image.refcounts.writeBack();
  }
  await flushFiles(image);
}
