/** L2 tables that snapshots have, so that nothing is written over them where that is checked (Q-CORR-3: `all`). */
import { BlockError } from '../../core/errors.ts';
import type { Qcow2Image } from './image.ts';
import { MetadataClass, MetadataMap } from './overlap.ts';
import { readSnapshotL1 } from './snapshot-l1.ts';

/** Notes them, where the option asks for it. What cannot be read is left to a check. */
export async function indexInactiveTables(image: Qcow2Image): Promise<void> {
  if ((image.settings.overlapMask & MetadataClass.inactiveL2) === 0) return;
  for (const snapshot of image.snapshots) {
    try {
      const l1 = await readSnapshotL1(image, snapshot);
      for (let index = 0; index < l1.entries; index++) {
        const offset = l1.l2Offset(index);
        if (offset !== 0) image.metadata.add(MetadataClass.inactiveL2, offset, image.layout.clusterSize);
      }
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
    }
  }
}

/** Notes anew where all metadata are, when structures have other places. */
export async function renewMetadata(image: Qcow2Image): Promise<void> {
  image.metadata = new MetadataMap(image.layout.clusterSize);
  image.indexMetadata();
  await indexInactiveTables(image);
}
