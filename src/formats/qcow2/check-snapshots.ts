/** The snapshot table, looked at before anything else and put right after it (Q-CHK-1, Q-CHK-3, Q-CHK-4). */
import type { CheckOptions } from '../../core/driver.ts';
import { addContext, BlockError } from '../../core/errors.ts';
import type { Qcow2Image } from './image.ts';
import { SNAPSHOTS_MAX } from './layout.ts';
import { completed, isIncomplete, readSnapshotTable, type TableRepair } from './snapshot-table.ts';
import { replaceSnapshotTable } from './snapshot-table-write.ts';

/**
 * Reads the table anew and tells what is wrong with its entries. Resolves with how many faults there are, which
 * {@link rewriteSnapshotTable} mends. Throws BlockError, its text beginning with `ERROR`, for a table that cannot be used.
 */
export async function checkSnapshotTable(image: Qcow2Image, { repair, finding }: CheckOptions): Promise<number> {
  const { header, layout, file, node } = image;
  const { snapshotCount, snapshotTableOffset } = header;
  if (BigInt(snapshotTableOffset) % BigInt(layout.clusterSize) !== 0n) {
    throw new BlockError('EINVAL', 'ERROR snapshot table offset invalid', { node });
  }
  const mends = repair === 'all';
  const excess = Math.max(0, snapshotCount - SNAPSHOTS_MAX);
  if (excess > 0 && !mends) {
    const hint = `You can force-remove all ${excess} overhanging snapshots with qemu-img check -r all`;
    throw new BlockError('EFBIG', 'ERROR snapshot table too large', { node, hint });
  }
  let faults = excess;
  if (excess > 0) finding(`Discarding ${excess} overhanging snapshots`);
  const cuts: TableRepair = {
    extraCut(index, bytes) {
      faults++;
      finding(`Discarding too much extra metadata in snapshot table entry ${index} (${bytes} > 1024)`);
    },
    entriesCut(count) {
      faults += count;
      finding(`Discarding ${count} overhanging snapshots (snapshot table is too big)`);
    },
  };
  try {
    const count = snapshotCount - excess;
    image.snapshots = await readSnapshotTable(file, header, count, mends ? cuts : undefined);
  } catch (error) {
    throw addContext('ERROR failed to read the snapshot table', error);
  }
  for (const [index, snapshot] of image.snapshots.entries()) {
    if (layout.version < 3 || !isIncomplete(snapshot)) continue;
    faults++;
    finding(`${mends ? 'Repairing' : 'ERROR'} snapshot table entry ${index} is incomplete`);
  }
  if (image.writable) image.indexMetadata();
  return faults;
}

/** Writes the table as it was read, complete and without what was cut off. Throws BlockError. */
export async function rewriteSnapshotTable(image: Qcow2Image): Promise<void> {
  await replaceSnapshotTable(
    image,
    image.snapshots.map((snapshot) => completed(snapshot, image.length)),
  );
}
