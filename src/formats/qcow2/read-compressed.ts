/** Reading compressed clusters of a request: together, and with those that will be asked for next (Q-READ-3). */
import { alignDown } from '../../bytes/align.ts';
import type { Qcow2Image } from './image.ts';
import { findRun, type Run } from './map.ts';
import type { CompressedPlace } from './tables.ts';

/** Clusters that are taken together, and bytes of them; one is always taken. */
const TOGETHER = 512;
const BYTES_TOGETHER = 4 << 20;
/** Whole clusters of a request as long as that are decoded into its memory, and not kept. */
const DIRECT_MIN = 128 << 10;
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
  const lead = run.guest % clusterSize;
  const parts = run.places.map((_place, index) =>
    target.subarray(Math.max(0, index * clusterSize - lead), (index + 1) * clusterSize - lead),
  );
  const direct =
    target.length >= DIRECT_MIN ? parts.map((part) => (part.length === clusterSize ? part : undefined)) : [];
  // Failures of what was read ahead are not this request's.
  const loaded = await decompressed.getAll([...run.places, ...ahead], direct);
  for (const [index, part] of parts.entries()) {
    const bytes = loaded[index];
    if (!(bytes instanceof Uint8Array)) throw bytes;
    const start = index === 0 ? lead : 0;
    if (bytes !== part) part.set(bytes.subarray(start, start + part.length));
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
