/** Random operations as the workload of a crash test. */
import type { Disk } from '../../src/core/disk.ts';
import { type DiskOperation, operationData } from '../../src/testing/disk-operations.ts';
import type { RecordedDisk } from '../../src/testing/index.ts';

/** Does them one after the other, clipped to the disk; flushes are waited for at once, or only before the next one. */
export async function runOperations(
  disk: RecordedDisk<Disk>,
  operations: readonly DiskOperation[],
  waitForFlushes: boolean,
): Promise<void> {
  let flushing = Promise.resolve();
  for (const operation of operations) {
    if (operation.kind === 'flush') {
      await flushing;
      flushing = disk.flush();
      if (waitForFlushes) await flushing;
    } else if (operation.kind === 'resize') await disk.truncate(operation.length);
    else if ('offset' in operation) {
      const offset = Math.min(operation.offset, disk.disk.length);
      const room = Math.min(operation.length, disk.disk.length - offset);
      if (operation.kind === 'write') await disk.write(offset, operationData(operation.seed ?? 0, room));
      else if (operation.kind === 'discard') await disk.discard(offset, room);
      else await disk.writeZeroes(offset, room, { unmap: operation.kind === 'unmap' });
    }
  }
  await flushing;
}
