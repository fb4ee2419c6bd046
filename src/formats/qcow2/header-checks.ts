/** What a header must be to be used (Q-HDR-5, Q-HDR-6, Q-FEAT). Each throws BlockError with the wording of its rule. */
import { BlockError } from '../../core/errors.ts';
import { decodeExtensions, FEATURE_NAMES, type FeatureName } from './extensions.ts';
import { CompressionType, Incompatible, MAGIC, type Qcow2Header, V3_HEADER_MIN } from './header.ts';
import { L1_BYTES_MAX, layoutOf, REFCOUNT_TABLE_BYTES_MAX, SNAPSHOTS_MAX } from './layout.ts';

function bad(text: string): BlockError {
  return new BlockError('EINVAL', text);
}

function unsupported(text: string): BlockError {
  return new BlockError('ENOTSUP', text);
}

/** What can be told from the fixed fields alone. */
export function checkFirstFields(magic: number, header: Qcow2Header): void {
  if (magic !== MAGIC) throw bad('Image is not in qcow2 format');
  if (header.version < 2 || header.version > 3) throw unsupported(`Unsupported qcow2 version ${header.version}`);
  if (header.clusterBits < 9 || header.clusterBits > 21) {
    throw bad(`Unsupported cluster size: 2^${header.clusterBits}`);
  }
  if (header.version >= 3 && header.headerLength < V3_HEADER_MIN) throw bad('qcow2 header too short');
  if (header.headerLength > 2 ** header.clusterBits) throw bad('qcow2 header exceeds cluster size');
}

/** `cluster`: the image's first cluster, for names that the image has for features. */
export function checkFeatures(header: Qcow2Header, cluster: Uint8Array): void {
  const clusterSize = 2 ** header.clusterBits;
  if (header.backingOffset > clusterSize) throw bad('Invalid backing file offset');
  const { zlib, zstd } = CompressionType;
  if (header.compressionType !== zlib && header.compressionType !== zstd) {
    throw unsupported(`qcow2: unknown compression type: ${header.compressionType}`);
  }
  const bit = (header.incompatible & Incompatible.compression) !== 0n;
  if (header.compressionType !== zlib && !bit) {
    throw bad('qcow2: Compression type incompatible feature bit must be set');
  }
  if (header.compressionType === zlib && bit) {
    throw bad('qcow2: Compression type incompatible feature bit must not be set');
  }
  const unknown = header.incompatible & ~KNOWN_INCOMPATIBLE;
  if (unknown !== 0n)
    throw unsupported(`Unsupported qcow2 feature(s): ${featureList(unknown, namesIn(header, cluster))}`);
}

const KNOWN_INCOMPATIBLE = 31n;

/** Names of the image's own table, if it can be read. */
function namesIn(header: Qcow2Header, cluster: Uint8Array): readonly FeatureName[] {
  try {
    return decodeExtensions(extensionArea(header, cluster)).featureNames;
  } catch (error) {
    if (error instanceof BlockError) return FEATURE_NAMES;
    throw error;
  }
}

function featureList(mask: bigint, names: readonly FeatureName[]): string {
  const parts: string[] = [];
  let rest = mask;
  for (const { word, bit, name } of names) {
    const value = 1n << BigInt(bit);
    if (word !== 0 || bit > 63 || (rest & value) === 0n) continue;
    rest &= ~value;
    if (name !== '') parts.push(name);
  }
  if (rest !== 0n) parts.push(`Unknown incompatible feature: ${rest.toString(16)}`);
  return parts.join(', ');
}

/** Where extensions are: from the fields' end to the backing name, or the cluster's end (Q-EXT-1). */
export function extensionArea(header: Qcow2Header, cluster: Uint8Array): Uint8Array {
  const end = header.backingOffset === 0 ? cluster.length : Math.min(cluster.length, Number(header.backingOffset));
  return cluster.subarray(Math.min(header.headerLength, end), end);
}

export interface TableChecks {
  readonly checkOnly: boolean;
  readonly writable: boolean;
}

/** Tables and sizes (Q-HDR-5). */
export function checkTables(header: Qcow2Header, { checkOnly, writable }: TableChecks): void {
  const corrupt = (header.incompatible & Incompatible.corrupt) !== 0n;
  if (corrupt && writable && !checkOnly) {
    throw new BlockError('EACCES', 'qcow2: Image is corrupt; cannot be opened read/write');
  }
  const clusterSize = 2 ** header.clusterBits;
  if ((header.incompatible & Incompatible.extendedL2) !== 0n && clusterSize / 32 < 512) {
    throw bad(`Unsupported subcluster size: ${clusterSize / 32}`);
  }
  if (header.refcountOrder > 6) throw bad('Reference count entry width too large; may not exceed 64 bits');
  const layout = layoutOf(header);
  if (header.refcountTableClusters === 0 && !checkOnly) throw bad('Image does not contain a reference count table');
  const refcountBytes = header.refcountTableClusters * clusterSize;
  checkTable('Reference count table', header.refcountTableOffset, refcountBytes, REFCOUNT_TABLE_BYTES_MAX, clusterSize);
  if (!checkOnly) {
    // An entry is at least as long as its fixed part.
    const bytes = header.snapshotCount * 40;
    checkTable('Snapshot table', header.snapshotTableOffset, bytes, SNAPSHOTS_MAX * 40, clusterSize);
  }
  checkTable('Active L1 table', header.l1Offset, header.l1Entries * 8, L1_BYTES_MAX, clusterSize);
  const needed = (BigInt(header.size) + BigInt(layout.l2Reach) - 1n) / BigInt(layout.l2Reach);
  if (needed > 2n ** 31n - 1n) throw new BlockError('EFBIG', 'Image is too big');
  if (header.l1Entries < needed) throw bad('L1 table is too small');
}

/** Q-HDR-6. */
export function checkTable(
  name: string,
  offset: number | bigint,
  bytes: number,
  bytesMax: number,
  clusterSize: number,
): void {
  if (bytes > bytesMax) throw new BlockError('EFBIG', `${name} too large`);
  if (BigInt(offset) % BigInt(clusterSize) !== 0n || BigInt(offset) + BigInt(bytes) > 2n ** 63n - 1n) {
    throw bad(`${name} offset invalid`);
  }
}
