/** What is done to an image when it becomes writable, and when it stops to be (Q-FEAT-3, Q-FEAT-7, Q-OPT-6). */
import { BlockError, codeOf, withErrno } from '../../core/errors.ts';
import { Autoclear, Incompatible } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { indexInactiveTables } from './inactive-tables.ts';
import { repairDirty } from './repair.ts';
import { rewriteHeader } from './write-header.ts';

const KNOWN_AUTOCLEAR = Autoclear.bitmaps | Autoclear.rawDataFile;

export async function becomeWritable(image: Qcow2Image, { checkOnly }: { checkOnly: boolean }): Promise<void> {
  const { header } = image;
  await image.refcounts.ready();
  image.writable = true;
  image.indexMetadata();
  await indexInactiveTables(image);
  image.dirtyBitSet = (header.incompatible & Incompatible.dirty) !== 0n;
  const unknown = header.autoclear & ~KNOWN_AUTOCLEAR;
  if ((unknown !== 0n || image.bitmaps.stale) && !checkOnly) {
    header.autoclear &= KNOWN_AUTOCLEAR;
    await rewriteHeader(image);
    image.bitmaps.stale = false;
  }
  if (image.dirtyBitSet && !checkOnly) await mendDirty(image);
}

async function mendDirty(image: Qcow2Image): Promise<void> {
  try {
    await repairDirty(image);
  } catch (error) {
    throw withErrno(codeOf(error), 'Could not repair dirty image', { cause: error, node: image.node });
  }
  if ((image.header.incompatible & Incompatible.dirty) !== 0n) {
    throw new BlockError('EIO', 'Could not repair dirty image: Input/output error', { node: image.node });
  }
}
