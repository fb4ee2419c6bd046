/** Dropping cached metadata that nobody has used for some time (Q-OPT-3), on the host's clock. */
import type { Qcow2Image } from './image.ts';

/** Made once: a reason of its own, with a stack, for each image that closes costs more than the rest of it. */
const STOPPED = new Error('cleaning has been stopped');

const underway = new WeakMap<Qcow2Image, AbortController>();

/** Begins, or begins anew with other settings. Where the host has no time for it, nothing is dropped. */
export function startCleaning(image: Qcow2Image): void {
  stopCleaning(image);
  const milliseconds = image.settings.cacheCleanInterval * 1000;
  if (milliseconds === 0 || image.host.clock.rest === undefined) return;
  const stop = new AbortController();
  underway.set(image, stop);
  void clean(image, milliseconds, stop.signal);
}

export function stopCleaning(image: Qcow2Image): void {
  underway.get(image)?.abort(STOPPED);
  underway.delete(image);
}

/** What was used last just after one turn is dropped two turns later, else sooner. */
async function clean(image: Qcow2Image, milliseconds: number, signal: AbortSignal): Promise<void> {
  for (;;) {
    try {
      await image.host.clock.rest?.(milliseconds, signal);
    } catch (error) {
      if (signal.aborted) return;
      throw error;
    }
    image.l2.dropIdle();
    image.refcounts.cache.dropIdle();
  }
}
