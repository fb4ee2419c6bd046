/** Block status, whole runs (Q-READ-4). */
import type { Extent, ExtentPlace } from '../../core/driver.ts';
import { corruption } from './corruption.ts';
import { CryptMethod } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { findRun, loadRun, type Run } from './map.ts';
import { Kind } from './tables.ts';

/** Most compressed clusters that are told together: looking at each takes its time. */
const TOLD_TOGETHER = 16384;

export async function status(image: Qcow2Image, offset: number, length: number): Promise<Extent> {
  image.requireUsable();
  image.preallocated ??= await isPreallocated(image);
  const run = await loadRun(image, offset, length);
  if (run.kind === Kind.invalid) throw await corruption(image, { fatal: true, text: run.problem ?? '' });
  return extentOf(image, run, offset, length);
}

export function tryStatusNow(image: Qcow2Image, offset: number, length: number): Extent | undefined {
  if (image.broken !== undefined) return undefined;
  const run = findRun(image, offset, length);
  if (run === undefined || run.kind === Kind.invalid) return undefined;
  if (run.kind === Kind.normal && image.preallocated === undefined) return undefined;
  return extentOf(image, run, offset, length);
}

function extentOf(image: Qcow2Image, run: Run, offset: number, limit: number): Extent {
  const { kind, host, length } = run;
  const at = () => ({ child: image.data.name, offset: host });
  switch (kind) {
    case Kind.normal:
      if (image.header.cryptMethod !== CryptMethod.none) return { kind: 'encoded', length };
      return { kind: 'data', length, at: at(), recurse: image.preallocated === true };
    case Kind.compressed:
      return { kind: 'encoded', length: lengthOfCompressed(image, run, offset, limit) };
    case Kind.zeroPlain:
      return { kind: 'zero', length };
    case Kind.zeroAllocated:
      return { kind: 'zero', length, at: at() };
    case Kind.unallocatedAllocated:
      return { kind: 'unallocated', length, at: at() };
    default:
      return { kind: 'unallocated', length };
  }
}

/** Clusters are told together as far as tables in memory tell of them, and within the limit. */
function lengthOfCompressed(image: Qcow2Image, first: Run, offset: number, most: number): number {
  const limit = Math.min(most, TOLD_TOGETHER * image.layout.clusterSize);
  let { length } = first;
  for (let run: Run | undefined = first; length < limit; length += run.length) {
    run = findRun(image, offset + length, limit - length);
    if (run?.kind !== Kind.compressed) break;
  }
  return length;
}

/** Where a range is stored in one piece, as requests would read and write it. */
export function place(image: Qcow2Image, offset: number, length: number): ExtentPlace | undefined {
  if (image.broken !== undefined || image.gate.closed || image.cipher !== undefined) return undefined;
  const run = findRun(image, offset, length);
  if (run === undefined || run.kind !== Kind.normal || run.length < length) return undefined;
  // What a snapshot shares is not to be written.
  if (!run.copied && image.writable && !image.layout.hasDataFile) return undefined;
  const { data, file } = image;
  if (data === file && run.host + length > file.length()) return undefined;
  return { child: data.name, offset: run.host };
}

/** Whether clearly more clusters are counted as used than the file has storage for: holes may then be among the data. */
async function isPreallocated(image: Qcow2Image): Promise<boolean> {
  const { refcounts, layout, file } = image;
  const allocated = file.allocatedSize();
  if (allocated === undefined || layout.hasDataFile) return false;
  const real = allocated / layout.clusterSize;
  const enough = Math.max(Math.floor((real * 10) / 9), real + 2);
  // What cannot be told is not so.
  const isKnown = await refcounts.ready().then(
    () => true,
    () => false,
  );
  if (!isKnown) return false;
  let used = 0;
  const clusters = Math.ceil(file.length() / layout.clusterSize);
  for (let index = 0; index < refcounts.table.length; index++) {
    const first = index * layout.refcountsPerBlock;
    if (first >= clusters) break;
    const block = await refcounts.block(index).catch(() => undefined);
    if (block === undefined) continue;
    const end = Math.min(layout.refcountsPerBlock, clusters - first);
    for (let i = 0; i < end; i++) if (refcounts.width.get(block.view, i) > 0) used++;
    if (used >= enough) return true;
  }
  return false;
}
