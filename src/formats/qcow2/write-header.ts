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

/** Cluster 0 as bytes. Throws BlockError ENOSPC where it has no room for all. */
export function encodeHeaderCluster({ header, extensions, backingName }: HeaderContent): Uint8Array {
  const clusterSize = 2 ** header.clusterBits;
  const name = new TextEncoder().encode(backingName ?? '');
  const fields = header.version < 3 ? V2_HEADER_BYTES : HEADER_BYTES + header.unknown.length;
  const records = encodeExtensions(extensions, header.version >= 3 && clusterSize > NAMES_MIN);
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

/** Writes it, the first sector last and alone, and makes it durable. */
export async function rewriteHeader(image: Qcow2Image): Promise<void> {
  const { header, extensions, backingName, file } = image;
  const cluster = encodeHeaderCluster({ header, extensions, backingName });
  const end = Math.min(cluster.length, alignUp(usedBytes(cluster), SECTOR));
  if (end > SECTOR) {
    await writeMetadata(image, MetadataClass.header, SECTOR, cluster.subarray(SECTOR, end));
    await file.flush();
  }
  await writeMetadata(image, MetadataClass.header, 0, cluster.subarray(0, SECTOR));
  await file.flush();
}

function usedBytes(cluster: Uint8Array): number {
  let end = cluster.length;
  while (end > 0 && cluster[end - 1] === 0) end--;
  return end;
}
