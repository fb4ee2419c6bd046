/** Reading cluster 0: header, extensions, backing name (Q-HDR-5). */
import { viewOf } from '../../bytes/big-endian.ts';
import type { Child } from '../../core/driver.ts';
import { BlockError, codeOf, withErrno } from '../../core/errors.ts';
import { decodeExtensions, type Extensions } from './extensions.ts';
import { CryptMethod, decodeHeader, HEADER_BYTES, type Qcow2Header } from './header.ts';
import { checkFeatures, checkFirstFields, checkTables, extensionArea, type TableChecks } from './header-checks.ts';

const BACKING_NAME_MAX = 1023;
const DIRECTORY_MAX = 67_107_840;
const BITMAPS_MAX = 65535;

export interface HeaderCluster {
  readonly header: Qcow2Header;
  /** The cluster's bytes. */
  readonly cluster: Uint8Array;
}

/** The header's fields, checked as far as they can be alone and with one another. Throws BlockError. */
export async function readHeader(file: Child, checks: TableChecks): Promise<HeaderCluster> {
  const first = new Uint8Array(HEADER_BYTES);
  await readOrTell(file, first);
  const header = decodeHeader(first);
  checkFirstFields(viewOf(first).getUint32(0), header);
  const cluster = new Uint8Array(2 ** header.clusterBits);
  await readOrTell(file, cluster);
  header.unknown = cluster.slice(HEADER_BYTES, Math.max(HEADER_BYTES, header.version >= 3 ? header.headerLength : 0));
  checkFeatures(header, cluster);
  checkTables(header, checks);
  return { header, cluster };
}

async function readOrTell(file: Child, target: Uint8Array): Promise<void> {
  try {
    if (!file.tryReadNow(0, target)) await file.read(0, target);
  } catch (error) {
    throw withErrno(codeOf(error), 'Could not read qcow2 header', { cause: error });
  }
}

/** Q-EXT. Throws BlockError. */
export function readExtensions({ header, cluster }: HeaderCluster): Extensions {
  const extensions = decodeExtensions(extensionArea(header, cluster));
  checkEncryption(header, extensions);
  checkBitmaps(header, extensions);
  return extensions;
}

function checkEncryption({ cryptMethod, clusterBits }: Qcow2Header, { encryption }: Extensions): void {
  if (encryption === undefined) {
    if (cryptMethod !== CryptMethod.luks) return;
    throw new BlockError('EINVAL', `Missing CRYPTO header for crypt method ${cryptMethod}`);
  }
  if (cryptMethod !== CryptMethod.luks) {
    throw new BlockError('EINVAL', 'CRYPTO header extension only expected with LUKS encryption method');
  }
  const clusterSize = 2 ** clusterBits;
  if (BigInt(encryption.offset) % BigInt(clusterSize) !== 0n) {
    const text = `Encryption header offset '${encryption.offset}' is not a multiple of cluster size '${clusterSize}'`;
    throw new BlockError('EINVAL', text);
  }
}

/** Q-EXT-5. */
function checkBitmaps({ clusterBits }: Qcow2Header, { bitmaps }: Extensions): void {
  if (bitmaps === undefined) return;
  const { count, directorySize, directoryOffset } = bitmaps;
  const bad = (text: string) => new BlockError('EINVAL', text);
  if (count > BITMAPS_MAX) {
    throw bad(`bitmaps_ext: Image has ${count} bitmaps, exceeding the QEMU supported maximum of ${BITMAPS_MAX}`);
  }
  if (count === 0) throw bad('found bitmaps extension with zero bitmaps');
  if (BigInt(directoryOffset) % BigInt(2 ** clusterBits) !== 0n || BigInt(directoryOffset) >= 2n ** 63n) {
    throw bad('bitmaps_ext: invalid bitmap directory offset');
  }
  if (directorySize > DIRECTORY_MAX) {
    throw bad(
      `bitmaps_ext: bitmap directory size (${directorySize}) exceeds the maximum supported size (${DIRECTORY_MAX})`,
    );
  }
}

/**
 * What the image names as the one below it; undefined: nothing. Throws BlockError EINVAL for a name that is too long, holds
 * NUL or overlaps the header (Q-HDR-10).
 */
export function readBackingName({ header, cluster }: HeaderCluster): string | undefined {
  const offset = Number(header.backingOffset);
  if (offset === 0) return undefined;
  const length = header.backingLength;
  if (length > Math.min(BACKING_NAME_MAX, cluster.length - offset)) {
    throw new BlockError('EINVAL', 'Backing file name too long');
  }
  if (length === 0) return undefined;
  if (offset < header.headerLength) throw new BlockError('EINVAL', 'Backing file name overlaps the header');
  const bytes = cluster.subarray(offset, offset + length);
  if (bytes.includes(0)) throw new BlockError('EINVAL', 'Backing file name holds a NUL byte');
  return new TextDecoder().decode(bytes);
}
