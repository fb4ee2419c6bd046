/** How far a check is: bytes of tables and counts, which are gone through several times, and of data that are looked at. */
import type { CheckOptions } from '../../core/driver.ts';
import type { Qcow2Image } from './image.ts';
import { L1_ENTRY_BYTES } from './l1-table.ts';
import { L1_BYTES_MAX } from './layout.ts';

/** Work done: bytes. */
export type Step = (bytes: number) => void;

/** `passes`: how often references are counted and compared. What comes on top of that is not counted. */
export function stepsOf(image: Qcow2Image, options: CheckOptions, passes: number): Step {
  const { progress, repair, decompress } = options;
  if (progress === undefined) return () => {};
  const { layout, file } = image;
  const tables = tableBytes(image);
  const clusters = Math.ceil(file.length() / layout.clusterSize);
  const counts = Math.ceil(clusters / layout.refcountsPerBlock) * layout.clusterSize;
  const walks = passes + (repair === 'all' ? 1 : 0) + (image.snapshots.length > 0 ? 1 : 0);
  const total = Math.ceil(tables * walks + counts * passes + (decompress === true ? file.length() : 0));
  let done = 0;
  progress(0, total);
  return (bytes) => {
    done = Math.min(total, done + bytes);
    progress(done, total);
  };
}

/** L2 tables of the disk, and at most so many of its snapshots. */
function tableBytes({ l1, snapshots, layout }: Qcow2Image): number {
  let tables = 0;
  for (let index = 0; index < l1.entries; index++) if (l1.l2Offset(index) !== 0) tables++;
  for (const { l1Entries } of snapshots) if (l1Entries * L1_ENTRY_BYTES <= L1_BYTES_MAX) tables += l1Entries;
  return tables * layout.clusterSize;
}
