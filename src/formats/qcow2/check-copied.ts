/** Copied bits against counts (Q-MAP-2, Q-MAP-3): a bit must be set where, and only where, the count is exactly 1. */
import { viewOf } from '../../bytes/big-endian.ts';
import { BlockError } from '../../core/errors.ts';
import { OFFSET_END } from './check-compare.ts';
import type { Walk } from './check-walk.ts';
import { L1_ENTRY_BYTES } from './l1-table.ts';
import { writeMetadata } from './metadata-io.ts';
import { MetadataClass } from './overlap.ts';
import { entryHex, isCompressed, isCopied, offsetOf, withCopied } from './tables.ts';

/** Below the active L1 table only. `fixing`: bits are made right, at once. */
export async function checkCopied(walk: Walk, fixing: boolean): Promise<void> {
  const { image, report } = walk;
  const { l1, layout, file } = image;
  const { clusterSize } = layout;
  const word = fixing ? 'Repairing' : 'ERROR';
  const table = new Uint8Array(clusterSize);
  for (let index = 0; index < l1.entries; index++) {
    const { high, low } = l1.words(index);
    const l2 = offsetOf(high, low);
    if (l2 === 0) continue;
    walk.signal?.throwIfAborted();
    walk.step(clusterSize);
    const cluster = Math.floor(l2 / clusterSize);
    const counts = await countsAround(walk, cluster);
    const count = counts.get(cluster - counts.from);
    if (count === undefined) continue;
    if ((count === 1) !== isCopied(high)) {
      walk.tell(`${word} OFLAG_COPIED L2 cluster: l1_index=${index} l1_entry=${entryHex(high, low)} refcount=${count}`);
      if (fixing) await writeL1Bit(walk, index, count === 1);
      noteFound(walk, fixing);
    }
    // Where tables are not aligned nothing is mended.
    if (l2 >= file.length() || (fixing && l2 % clusterSize !== 0)) continue;
    try {
      await checkTable(walk, l2, table, fixing);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      walk.tell(`ERROR: I/O error in check_oflag_copied(): ${error.message}`);
      report.checkErrors++;
    }
  }
}

function noteFound({ report }: Walk, fixing: boolean): void {
  if (fixing) report.corruptionsFixed++;
  else report.corruptions++;
}

async function writeL1Bit({ image }: Walk, index: number, copied: boolean): Promise<void> {
  const { l1 } = image;
  l1.set(index, l1.l2Offset(index), copied);
  const at = index * L1_ENTRY_BYTES;
  await writeMetadata(image, MetadataClass.activeL1, l1.offset + at, l1.bytes.slice(at, at + L1_ENTRY_BYTES));
}

async function checkTable(walk: Walk, l2: number, table: Uint8Array, fixing: boolean): Promise<void> {
  const { image } = walk;
  const { layout } = image;
  const { entryBytes, clusterSize, clusterBits } = layout;
  const word = fixing ? 'Repairing' : 'ERROR';
  if (!image.file.tryReadNow(l2, table)) await image.file.read(l2, table);
  const view = viewOf(table);
  let changed = false;
  let counts = layout.hasDataFile ? ONES : NO_COUNTS;
  let { from } = counts;
  const perHigh = 2 ** (32 - clusterBits);
  for (let at = 0; at < clusterSize; at += entryBytes) {
    const high = view.getInt32(at);
    const low = view.getInt32(at + 4);
    if (((high & STORED_HIGH) | (low & STORED_LOW)) === 0 || isCompressed(high)) continue;
    const cluster = (high & STORED_HIGH) * perHigh + (low >>> clusterBits);
    if (cluster < from || cluster >= counts.to) {
      counts = await countsAround(walk, cluster);
      from = counts.from;
    }
    const count = counts.get(cluster - from);
    if (count === undefined || (count === 1) === isCopied(high)) continue;
    walk.tell(`${word} OFLAG_COPIED data cluster: l2_entry=${entryHex(high, low)} refcount=${count}`);
    noteFound(walk, fixing);
    if (!fixing) continue;
    view.setUint32(at, withCopied(high, count === 1));
    changed = true;
  }
  if (!changed) return;
  for (let byte = 0; byte < clusterSize; byte += image.l2.entryBytes) image.l2.drop(l2 + byte);
  await writeMetadata(image, MetadataClass.activeL2, l2, table);
}

/** Bits of an entry that name storage. */
const STORED_HIGH = 0x00ffffff;
const STORED_LOW = 0xfffffe00;

/** Counts of clusters [from, to), those of one block: 0 where there cannot be one, undefined where it cannot be read. */
interface BlockCounts {
  readonly from: number;
  readonly to: number;
  /** By the cluster's number in the block. */
  get(index: number): number | undefined;
}

const NO_COUNTS: BlockCounts = { from: 0, to: 0, get: () => undefined };
/** A data file has no counts: what lies there is the guest's alone (Q-MAP-4). */
const ONES: BlockCounts = { from: 0, to: Number.POSITIVE_INFINITY, get: () => 1 };

async function countsAround({ image }: Walk, cluster: number): Promise<BlockCounts> {
  const { refcounts, layout } = image;
  const number = refcounts.blockIndex(cluster);
  const from = number * layout.refcountsPerBlock;
  const range = { from, to: from + layout.refcountsPerBlock };
  const offset = refcounts.table[number] ?? 0;
  if (offset % layout.clusterSize !== 0 || offset >= OFFSET_END) return { ...range, get: () => undefined };
  const isBlock = offset !== 0 && offset < image.file.length();
  try {
    const block = isBlock ? await refcounts.block(number) : undefined;
    if (block === undefined) return { ...range, get: () => 0 };
    const { width } = refcounts;
    const { view } = block;
    return { ...range, get: (index) => width.get(view, index) };
  } catch (error) {
    if (error instanceof BlockError) return NO_COUNTS;
    throw error;
  }
}
