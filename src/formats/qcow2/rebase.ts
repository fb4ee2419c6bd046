/** What the image names below it, and an image that stores nothing any more (Q-BACK-2, Q-DISC-6). */
import { alignUp } from '../../bytes/align.ts';
import { setU64, viewOf } from '../../bytes/big-endian.ts';
import type { BackingReference } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { dropClusters } from './clear.ts';
import { writeFeatures } from './corruption.ts';
import { Autoclear, CryptMethod, FIELD_AT, Incompatible } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { L1_ENTRY_BYTES, L1Table } from './l1-table.ts';
import { MetadataMap } from './overlap.ts';
import { flushAll } from './write-back.ts';
import { rewriteHeader } from './write-header.ts';

const NAME_MAX = 1023;

/** Throws BlockError EINVAL for a name that is too long (Q-BACK-2). */
export function checkBackingName(name: string, node?: string): void {
  if (new TextEncoder().encode(name).length > NAME_MAX) throw new BlockError('EINVAL', 'Invalid argument', { node });
}

export async function changeBacking(image: Qcow2Image, reference: BackingReference | undefined): Promise<void> {
  image.requireUsable();
  const { header, extensions, backingName: before } = image;
  const name = reference?.filename;
  const raw = (header.autoclear & Autoclear.rawDataFile) !== 0n;
  if (name !== undefined) checkBackingName(name, image.node);
  if (name !== undefined && raw) throw new BlockError('EINVAL', 'Invalid argument', { node: image.node });
  const formatBefore = extensions.backingFormat;
  image.backingName = name === '' ? undefined : name;
  const format = reference?.format ?? '';
  extensions.backingFormat = format === '' ? undefined : format;
  try {
    await rewriteHeader(image);
  } catch (error) {
    image.backingName = before;
    extensions.backingFormat = formatBefore;
    throw error;
  }
}

/** Drops all that the image stores. No request is under way. */
export async function makeEmpty(image: Qcow2Image): Promise<void> {
  image.requireUsable();
  await flushAll(image);
  const { layout, l1 } = image;
  const l1Clusters = alignUp(l1.bytes.length, layout.clusterSize) / layout.clusterSize;
  if (canStartAnew(image, l1Clusters)) await startAnew(image, l1Clusters);
  else await dropClusters(image, 0, alignUp(image.length, layout.clusterSize), 'snapshot', true);
  await flushAll(image);
}

function canStartAnew({ header, snapshots, extensions, layout }: Qcow2Image, l1Clusters: number): boolean {
  return (
    header.version >= 3 &&
    snapshots.length === 0 &&
    extensions.bitmaps === undefined &&
    header.cryptMethod === CryptMethod.none &&
    !layout.hasDataFile &&
    3 + l1Clusters <= layout.refcountsPerBlock
  );
}

/** The image as it was when it was made: while the dirty bit is set, counts need not be right. */
async function startAnew(image: Qcow2Image, l1Clusters: number): Promise<void> {
  const { header, layout, l1, file, refcounts, l2 } = image;
  const { clusterSize } = layout;
  header.incompatible |= Incompatible.dirty;
  await writeFeatures(image);
  await file.flush();
  image.dirtyBitSet = true;
  await image.raise('l1_update');
  await file.write(l1.offset, new Uint8Array(l1.bytes.length));
  await file.flush();
  await image.raise('empty_image_prepare');
  await file.writeZeroes(clusterSize, (2 + l1Clusters) * clusterSize);
  await file.flush();
  const entries = l1.bytes.length / L1_ENTRY_BYTES;
  await writeTables(image, entries);
  image.l1 = new L1Table(3 * clusterSize, new Uint8Array(l1.bytes.length));
  Object.assign(header, {
    l1Entries: entries,
    l1Offset: 3 * clusterSize,
    refcountTableOffset: clusterSize,
    refcountTableClusters: 1,
  });
  await image.raise('reftable_update');
  const entry = new Uint8Array(8);
  setU64(viewOf(entry), 0, 2 * clusterSize);
  await file.write(clusterSize, entry);
  await image.raise('refblock_alloc');
  const block = new Uint8Array(clusterSize);
  for (let cluster = 0; cluster < 3 + l1Clusters; cluster++) refcounts.width.set(viewOf(block), cluster, 1);
  await file.write(2 * clusterSize, block);
  await file.flush();
  forget(image);
  l2.dropClean();
  await refcounts.load();
  header.incompatible &= ~Incompatible.dirty;
  await writeFeatures(image);
  await file.flush();
  image.dirtyBitSet = false;
  await file.truncate((3 + l1Clusters) * clusterSize, { shrink: true });
  image.indexMetadata();
}

/** The header's fields of both tables, which lie side by side. */
async function writeTables(image: Qcow2Image, l1Entries: number): Promise<void> {
  const { clusterSize } = image.layout;
  const fields = new Uint8Array(24);
  const view = viewOf(fields);
  view.setUint32(0, l1Entries);
  setU64(view, 4, 3 * clusterSize);
  setU64(view, 12, clusterSize);
  view.setUint32(20, 1);
  await image.raise('l1_update');
  await image.file.write(FIELD_AT.l1, fields);
  await image.file.flush();
}

function forget(image: Qcow2Image): void {
  image.metadata = new MetadataMap(image.layout.clusterSize);
  image.decompressed.forget();
  image.refcounts.cache.dropClean();
  image.refcounts.hint = 0;
  image.refcounts.packedEnd = 0;
}
