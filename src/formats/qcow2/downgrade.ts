/** From version 3 to version 2 and back (Q-AM-3). */
import { viewOf } from '../../bytes/big-endian.ts';
import type { Progress } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { ENCRYPTED_SNAPSHOT, expandZeroes, isEncryptedSnapshot } from './expand-zeroes.ts';
import { CompressionType, HEADER_BYTES, Incompatible } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { type L2Visit, visitL2Tables } from './l2-walk.ts';
import { layoutOf } from './layout.ts';
import { markClean } from './lazy.ts';
import { completed, isIncomplete } from './snapshot-table.ts';
import { replaceSnapshotTable } from './snapshot-table-write.ts';
import { isCompressed } from './tables.ts';
import { flushAll } from './write-back.ts';
import { changeHeader } from './write-header.ts';

/** What the image will be by then. */
export interface DowngradeTarget {
  /** Bytes of the disk. */
  readonly size: number;
  /** Of refcounts. */
  readonly order: number;
}

const SIXTEEN_BITS = 4;
const STATE_MAX = 2 ** 32;
/** The dirty bit is cleared before, and the type of compression is looked at by itself. */
const ALLOWED = Incompatible.dirty | Incompatible.compression;

/** Throws BlockError ENOTSUP for what version 2 cannot hold. Changes nothing. */
export async function checkDowngrade(image: Qcow2Image, { size, order }: DowngradeTarget): Promise<void> {
  const { header, layout, snapshots } = image;
  const refuse = (text: string) => new BlockError('ENOTSUP', text, { node: image.node });
  if (order !== SIXTEEN_BITS) throw refuse('compat=0.10 requires refcount_bits=16');
  if (layout.hasDataFile) throw refuse('Cannot downgrade an image with a data file');
  const outgrown = snapshots.some(
    ({ vmStateSize, diskSize }) => vmStateSize >= STATE_MAX || (diskSize !== undefined && Number(diskSize) !== size),
  );
  if (outgrown) throw refuse('Internal snapshots prevent downgrade of image');
  const features = header.incompatible & ~ALLOWED;
  if (features !== 0n) {
    throw refuse(`Cannot downgrade an image with incompatible features 0x${features.toString(16)} set`);
  }
  const isZstd = header.compressionType === CompressionType.zstd;
  await visitL2Tables(image, async (table) => {
    if (isZstd && hasCompressed(table)) {
      throw refuse('Cannot downgrade an image with zstd compression type and existing compressed clusters');
    }
    if (isEncryptedSnapshot(image, table)) throw refuse(ENCRYPTED_SNAPSHOT);
  });
}

function hasCompressed({ bytes }: L2Visit): boolean {
  const view = viewOf(bytes);
  for (let at = 0; at < bytes.length; at += 8) if (isCompressed(view.getUint32(at))) return true;
  return false;
}

/** What {@link checkDowngrade} has let pass. */
export async function downgrade(image: Qcow2Image, progress: Progress | undefined): Promise<void> {
  const { length } = image.bitmaps.stored;
  if (length > 0) {
    await image.bitmaps.dropAll();
    image.host.warn(
      `warning: Version 2 has no persistent bitmaps: ${length} of '${image.file.filename()}' are dropped`,
    );
  }
  image.settings = { ...image.settings, lazyRefcounts: false, discardNoUnref: false };
  await expandZeroes(image, progress);
  await markClean(image);
  await changeHeader(image, {
    version: 2,
    incompatible: 0n,
    compatible: 0n,
    autoclear: 0n,
    compressionType: CompressionType.zlib,
    unknown: new Uint8Array(0),
  });
  image.layout = layoutOf(image.header);
}

/** Entries of snapshots first, which must say more in version 3 than in version 2. */
export async function upgrade(image: Qcow2Image): Promise<void> {
  if (image.snapshots.some(isIncomplete)) {
    await replaceSnapshotTable(
      image,
      image.snapshots.map((snapshot) => completed(snapshot, image.length)),
    );
    await flushAll(image);
  }
  await changeHeader(image, { version: 3, headerLength: HEADER_BYTES });
  image.layout = layoutOf(image.header);
}
