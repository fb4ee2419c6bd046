/** How large an image would be (Q-ME). */
import { alignUp } from '../../bytes/align.ts';
import type { MeasureContext, Measurement } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { recordBytes } from './bitmaps/directory.ts';
import { WORD_BYTES } from './bitmaps/table.ts';
import { type CreationPlan, l1BytesFor, planCreation, type Qcow2CreateOptions } from './create-options.ts';
import { L1_BYTES_MAX } from './layout.ts';

/** Throws BlockError: options that cannot be, a disk that is too large. */
export async function measure(context: MeasureContext<Qcow2CreateOptions>): Promise<Measurement> {
  const { options, size, extents } = context;
  // What would be below is not looked at.
  const asked = { ...options, backing_file: undefined, backing_fmt: undefined };
  const plan = planCreation({ ...asked, size: Math.min(size, SIZE_MAX) });
  if (l1BytesFor(options, size) > L1_BYTES_MAX) {
    throw new BlockError('EINVAL', 'The image size is too large (try using a larger cluster size)');
  }
  if (size > SIZE_MAX) {
    const text = 'The image size is too large: what more than 2^52 bytes (4 PiB) take cannot be told';
    throw new BlockError('ENOTSUP', text);
  }
  const clusterSize = 2 ** plan.clusterBits;
  const disk = alignUp(plan.size, clusterSize);
  const luks = alignUp(plan.encryption?.length ?? 0, clusterSize);
  const fullyAllocated = luks + metadataBytes(plan, disk) + disk;
  const isOver = options.backing_file !== undefined && extents !== undefined;
  const isFull = isOver || plan.preallocation === 'falloc' || plan.preallocation === 'full';
  const data = isFull ? disk : extents === undefined ? 0 : await dataBytes(extents, clusterSize);
  const bitmaps = plan.version < 3 ? undefined : bitmapBytes(context, clusterSize);
  return { required: fullyAllocated - disk + data, fullyAllocated, bitmaps };
}

/** Of a disk whose image's size can be told exactly. */
const SIZE_MAX = 2 ** 52;

/** Data and table of each, as if nothing in them were of one kind, and the directory. */
function bitmapBytes({ bitmaps, size }: MeasureContext<Qcow2CreateOptions>, clusterSize: number): number | undefined {
  if (bitmaps === undefined) return undefined;
  let bytes = 0;
  let directory = 0;
  for (const { granularity, nameLength } of bitmaps) {
    const clusters = Math.ceil(Math.ceil(Math.ceil(size / granularity) / 8) / clusterSize);
    bytes += clusters * clusterSize + alignUp(clusters * WORD_BYTES, clusterSize);
    directory += recordBytes(nameLength, 0);
  }
  return bytes + alignUp(directory, clusterSize);
}

/** All but the data, when every cluster is allocated (Q-ME-1). */
function metadataBytes({ clusterBits, refcountOrder, options }: CreationPlan, disk: number): number {
  const clusterSize = 2 ** clusterBits;
  const entryBytes = options.extended_l2 ? 16 : 8;
  const l2Entries = alignUp(disk / clusterSize, clusterSize / entryBytes);
  const l1Entries = alignUp((l2Entries * entryBytes) / clusterSize, clusterSize / 8);
  const tables = clusterSize + l2Entries * entryBytes + l1Entries * 8;
  const perBlock = (clusterSize * 8) / 2 ** refcountOrder;
  const others = (tables + disk) / clusterSize;
  let blocks = 0;
  let table = 0;
  for (;;) {
    const needed = Math.ceil((others + blocks + table) / perBlock);
    const neededTable = Math.ceil(needed / (clusterSize / 8));
    if (needed === blocks && neededTable === table) break;
    blocks = needed;
    table = neededTable;
  }
  return tables + (blocks + table) * clusterSize;
}

/** Whole clusters that hold anything but zeroes (Q-ME-2). */
async function dataBytes(
  extents: NonNullable<MeasureContext<Qcow2CreateOptions>['extents']>,
  clusterSize: number,
): Promise<number> {
  let bytes = 0;
  let counted = 0;
  for await (const { offset, length, zero } of extents) {
    if (zero) continue;
    const from = Math.max(counted, Math.floor(offset / clusterSize) * clusterSize);
    const to = alignUp(offset + length, clusterSize);
    if (to <= from) continue;
    bytes += to - from;
    counted = to;
  }
  return bytes;
}
