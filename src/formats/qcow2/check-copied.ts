/** Copied bits against counts (Q-MAP-2, Q-MAP-3): a bit must be set where, and only where, the count is exactly 1. */
import { viewOf } from '../../bytes/big-endian.ts';
import { BlockError } from '../../core/errors.ts';
import type { Walk } from './check-walk.ts';
import { L1_ENTRY_BYTES } from './l1-table.ts';
import { writeMetadata } from './metadata-io.ts';
import { MetadataClass } from './overlap.ts';
import { clusterKind, entryHex, isCopied, Kind, offsetOf, withCopied } from './tables.ts';

/** Below the active L1 table only. `fixing`: bits are made right, at once. */
export async function checkCopied(walk: Walk, fixing: boolean): Promise<void> {
  const { image, report } = walk;
  const { l1, layout, file } = image;
  const { clusterSize } = layout;
  const word = fixing ? 'Repairing' : 'ERROR';
  for (let index = 0; index < l1.entries; index++) {
    const { high, low } = l1.words(index);
    const l2 = offsetOf(high, low);
    if (l2 === 0) continue;
    walk.signal?.throwIfAborted();
    const count = await countOf(walk, l2);
    if (count === undefined) continue;
    if ((count === 1) !== isCopied(high)) {
      walk.tell(`${word} OFLAG_COPIED L2 cluster: l1_index=${index} l1_entry=${entryHex(high, low)} refcount=${count}`);
      if (fixing) await writeL1Bit(walk, index, count === 1);
      noteFound(walk, fixing);
    }
    if (l2 % clusterSize !== 0 || l2 >= file.length()) continue;
    try {
      await checkTable(walk, l2, fixing);
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

async function checkTable(walk: Walk, l2: number, fixing: boolean): Promise<void> {
  const { image } = walk;
  const { layout } = image;
  const word = fixing ? 'Repairing' : 'ERROR';
  if (layout.hasDataFile) return;
  const table = new Uint8Array(layout.clusterSize);
  await image.file.read(l2, table);
  const view = viewOf(table);
  let changed = false;
  for (let at = 0; at < table.length; at += layout.entryBytes) {
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    const kind = clusterKind(high, low, false);
    if (kind !== Kind.normal && kind !== Kind.zeroAllocated) continue;
    const count = await countOf(walk, offsetOf(high, low));
    if (count === undefined || (count === 1) === isCopied(high)) continue;
    walk.tell(`${word} OFLAG_COPIED data cluster: l2_entry=${entryHex(high, low)} refcount=${count}`);
    noteFound(walk, fixing);
    if (!fixing) continue;
    view.setUint32(at, withCopied(high, count === 1));
    changed = true;
  }
  if (!changed) return;
  for (let byte = 0; byte < layout.clusterSize; byte += image.l2.entryBytes) image.l2.drop(l2 + byte);
  await writeMetadata(image, MetadataClass.activeL2, l2, table);
}

/** The count of the cluster at an offset, 0 where its block cannot be one; undefined: it cannot be read. */
async function countOf({ image }: Walk, offset: number): Promise<number | undefined> {
  const { refcounts, layout } = image;
  const cluster = Math.floor(offset / layout.clusterSize);
  const block = refcounts.table[refcounts.blockIndex(cluster)] ?? 0;
  if (block % layout.clusterSize !== 0 || block >= image.file.length()) return 0;
  return refcounts.get(cluster).catch((error: unknown) => {
    if (error instanceof BlockError) return undefined;
    throw error;
  });
}
