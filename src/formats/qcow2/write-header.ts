/** Rewriting cluster 0 as a whole (Q-HDR-8). */
import { alignUp } from '../../bytes/align.ts';
import { BlockError } from '../../core/errors.ts';
import { type Extensions, encodeExtensions } from './extensions.ts';
import { encodeHeader, HEADER_BYTES, type Qcow2Header, V2_HEADER_BYTES } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { writeMetadata } from './metadata-io.ts';
import { MetadataClass } from './overlap.ts';

const SECTOR = 512;
/** Clusters must be larger than this for the table of feature names to be written. */
const NAMES_MIN = 4096;

export interface HeaderContent {
  /** Gets the place and length of the backing name, and its own length. */
  readonly header: Qcow2Header;
  readonly extensions: Extensions;
  readonly backingName: string | undefined;
}

/** Cluster 0 as bytes. Throws BlockError ENOSPC where it has no room for all. `short`: without the names of features. */
export function encodeHeaderCluster({ header, extensions, backingName }: HeaderContent, short = false): Uint8Array {
  const clusterSize = 2 ** header.clusterBits;
  const name = new TextEncoder().encode(backingName ?? '');
  const fields = header.version < 3 ? V2_HEADER_BYTES : HEADER_BYTES + header.unknown.length;
  const records = encodeExtensions(extensions, header.version >= 3 && clusterSize > NAMES_MIN && !short);
  const nameAt = fields + records.length;
  if (nameAt + name.length > clusterSize) throw new BlockError('ENOSPC', 'No space left in the file header');
  header.headerLength = fields;
  header.backingOffset = name.length === 0 ? 0 : nameAt;
  header.backingLength = name.length;
  const cluster = new Uint8Array(clusterSize);
  encodeHeader(cluster, header);
  cluster.set(records, fields);
  cluster.set(name, nameAt);
  return cluster;
}

/** Throws BlockError ENOSPC where the header would have no room with some fields or extensions changed. */
export function requireHeaderRoom(
  { header, extensions, backingName }: Qcow2Image,
  fields: Partial<Qcow2Header>,
  records: Partial<Extensions> = {},
): void {
  encodeHeaderCluster({ header: { ...header, ...fields }, extensions: { ...extensions, ...records }, backingName });
}

/**
 * Writes it, durably. What goes into one sector without the names of features is there first, in one write, so that a
 * power cut leaves all that was or all that is; what is longer goes before the first sector, which tells of it.
 */
export function rewriteHeader(image: Qcow2Image): Promise<void> {
  return image.headerLock.run(() => rewrite(image));
}

async function rewrite(image: Qcow2Image): Promise<void> {
  const { header, extensions, backingName } = image;
  const cluster = encodeHeaderCluster({ header, extensions, backingName });
  const end = Math.min(cluster.length, alignUp(usedBytes(cluster), SECTOR));
  if (end > SECTOR) {
    const short = encodeHeaderCluster({ header: { ...header }, extensions, backingName }, true);
    if (usedBytes(short) <= SECTOR) await writeSectors(image, 0, short.subarray(0, SECTOR));
    await writeSectors(image, SECTOR, cluster.subarray(SECTOR, end));
  }
  await writeSectors(image, 0, cluster.subarray(0, SECTOR));
}

async function writeSectors(image: Qcow2Image, at: number, bytes: Uint8Array): Promise<void> {
  await writeMetadata(image, MetadataClass.header, at, bytes);
  await image.file.flush();
}

/** Changes fields and extensions, in the file too. What cannot be written is in memory as it was. */
export async function changeHeader(
  image: Qcow2Image,
  fields: Partial<Qcow2Header>,
  records: Partial<Extensions> = {},
): Promise<void> {
  const { header, extensions } = image;
  const before = { fields: valuesOf(header, fields), records: valuesOf(extensions, records) };
  Object.assign(header, fields);
  Object.assign(extensions, records);
  try {
    await rewriteHeader(image);
  } catch (error) {
    Object.assign(header, before.fields);
    Object.assign(extensions, before.records);
    throw error;
  }
}

/** What `from` has under the keys of `like`. */
function valuesOf<T extends object>(from: T, like: Partial<T>): Partial<T> {
  return Object.fromEntries(Object.keys(like).map((key) => [key, from[key as keyof T]])) as Partial<T>;
}

function usedBytes(cluster: Uint8Array): number {
  let end = cluster.length;
  while (end > 0 && cluster[end - 1] === 0) end--;
  return end;
}
