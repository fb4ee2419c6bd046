/** Reading compressed clusters of a request: together, and with those that will be asked for next (Q-READ-3). */
import { alignDown } from '../../bytes/align.ts';
import type { Qcow2Image } from './image.ts';
import { findRun, type Run } from './map.ts';
import type { CompressedPlace } from './tables.ts';

/** Clusters that are taken together, and bytes of them; one is always taken. */
const TOGETHER = 32;
const BYTES_TOGETHER = 4 << 20;
/** When requests follow each other, so much is read ahead of them. */
const AHEAD = 3;
const BYTES_AHEAD = 256 << 10;

/** Compressed clusters side by side, from `guest` on. */
export interface CompressedRun {
  readonly guest: number;
  /** Bytes of the request. */
  readonly length: number;
  readonly places: readonly CompressedPlace[];
}

/** A run, of which the first cluster is known, as far as tables in memory tell. */
export function gatherCompressed(image: Qcow2Image, first: Run, guest: number, limit: number): CompressedRun {
  const { clusterSize } = image.layout;
  const most = Math.min(TOGETHER, Math.max(1, BYTES_TOGETHER / clusterSize));
  const places: CompressedPlace[] = [];
  let length = 0;
  for (let run: Run | undefined = first; run?.compressed !== undefined && length < limit && places.length < most; ) {
    places.push(run.compressed);
    length += run.length;
    run = length < limit ? findRun(image, guest + length, limit - length) : undefined;
  }
  return { guest, length, places };
}

/** Fills `target`, which is as long as the run. */
export async function readCompressed(image: Qcow2Image, run: CompressedRun, target: Uint8Array): Promise<void> {
  const { decompressed, layout } = image;
  const { clusterSize } = layout;
  const ahead = placesAhead(image, run);
  const loading = decompressed.getAll([...run.places, ...ahead]);
  // What was read ahead is waited for, so that nothing goes on behind a request; its failures are not this request's.
  const results = await Promise.allSettled(loading);
  let start = run.guest % clusterSize;
  let done = 0;
  for (const result of results.slice(0, run.places.length)) {
    if (result.status === 'rejected') throw result.reason;
    const part = result.value.subarray(start, start + target.length - done);
    target.set(part, done);
    done += part.length;
    start = 0;
  }
}

/** Where the clusters are that will be wanted next, if this run begins where the last one ended. */
function placesAhead(image: Qcow2Image, { guest, places }: CompressedRun): CompressedPlace[] {
  const { decompressed, layout } = image;
  const { clusterSize } = layout;
  const start = alignDown(guest, clusterSize);
  let next = start + places.length * clusterSize;
  const follows = start === decompressed.nextGuest;
  const most = follows ? Math.min(AHEAD, Math.floor(BYTES_AHEAD / clusterSize)) - places.length + 1 : 0;
  const ahead: CompressedPlace[] = [];
  for (; ahead.length < most && next < image.length; next += clusterSize) {
    const compressed = findRun(image, next, clusterSize)?.compressed;
    if (compressed === undefined) break;
    ahead.push(compressed);
  }
  decompressed.nextGuest = next;
  return ahead;
}
