/** Which headers can be opened, and what is said of those that cannot (V-11 to V-14). */
import { alignUp, isPowerOfTwo } from '../../bytes/align.ts';
import { isZero } from '../../bytes/zero.ts';
import { BlockError } from '../../core/errors.ts';
import { ImageType, SIGNATURE, type VdiHeader, VERSION_0_2, VERSION_1_0, VERSION_1_1 } from './header.ts';

export const SECTOR = 512;
export const DEFAULT_BLOCK_SIZE = 1 << 20;
const BLOCK_SIZE_MIN = 4096;
const BLOCK_SIZE_MAX = 256 * 1024 * 1024;

/** V-12. */
export const MAX_BLOCKS = 536_870_784;
export const MAX_DISK_SIZE = MAX_BLOCKS * DEFAULT_BLOCK_SIZE;

/** Longest disk whose blocks of `blockSize` a map can hold. */
export function maxDiskSize(blockSize: number): number {
  return Math.min(MAX_DISK_SIZE, MAX_BLOCKS * blockSize);
}

/** The first byte a block map may be at: behind the smaller header. */
const MAP_OFFSET_MIN = 456;

/** Bit 0: zeroes are written into new blocks; 8 and 9 repeat the type in images of some writers. */
export const KNOWN_FLAGS = 0x301;

export function isBlockSize(size: number): boolean {
  return isPowerOfTwo(size) && size >= BLOCK_SIZE_MIN && size <= BLOCK_SIZE_MAX;
}

/** `Unsupported VDI image size …` for what exceeds `max`. */
export function sizeError(size: number | bigint, max = MAX_DISK_SIZE): BlockError {
  const text = `Unsupported VDI image size (size is 0x${size.toString(16)}, max supported is 0x${max.toString(16)})`;
  return new BlockError('ENOTSUP', text);
}

function unsupported(what: string): BlockError {
  return new BlockError('ENOTSUP', `unsupported VDI image (${what})`);
}

/** The disk's usable size: up to the next sector (V-13). */
export function usableSize(header: VdiHeader): number {
  return alignUp(Number(header.diskSize), SECTOR);
}

/**
 * Throws what V-11 says, in its order. Afterwards every position in the image is a safe integer. With `noParent`, an
 * image that is based on another is refused, as QEMU does (V-50).
 */
export function checkHeader(header: VdiHeader, noParent = false): void {
  if (header.diskSize > MAX_DISK_SIZE) throw sizeError(header.diskSize);
  if (header.signature !== SIGNATURE) {
    const found = header.signature.toString(16).padStart(8, '0');
    throw new BlockError('EINVAL', `Image not in VDI format (bad signature ${found})`);
  }
  const { version } = header;
  if (version !== VERSION_1_1 && version !== VERSION_1_0 && version !== VERSION_0_2) {
    throw unsupported(`version ${version >>> 16}.${version & 0xffff}`);
  }
  if (header.geometry.sectorSize !== SECTOR) {
    throw unsupported(`sector size ${header.geometry.sectorSize} is not ${SECTOR}`);
  }
  if (!isBlockSize(header.blockSize)) {
    throw unsupported(`block size ${header.blockSize} is not ${DEFAULT_BLOCK_SIZE}`);
  }
  const room = header.blocks * header.blockSize;
  if (usableSize(header) > room) {
    throw unsupported(`disk size ${usableSize(header)}, image bitmap has room for ${room}`);
  }
  if (noParent || header.type !== ImageType.differencing) {
    if (!isZero(header.linkUuid)) throw unsupported('non-NULL link UUID');
    if (!isZero(header.parentUuid)) throw unsupported('non-NULL parent UUID');
  }
  if (header.blocks > MAX_BLOCKS) throw unsupported(`too many blocks ${header.blocks}, max is ${MAX_BLOCKS}`);
  // QEMU does not look at the type.
  if (!noParent && header.type === ImageType.undo) {
    throw unsupported('image type 3, an undo image of early VirtualBox: what its blocks mean is not known');
  }
  checkLayout(header);
}

/** What no writer makes, and what writing would destroy something by. */
function checkLayout(header: VdiHeader): void {
  const { mapOffset, dataOffset, blocks, blockExtra, type } = header;
  if (type < ImageType.dynamic || type > ImageType.differencing) throw unsupported(`image type ${type}`);
  const hex = (value: number) => `0x${value.toString(16)}`;
  if (mapOffset < MAP_OFFSET_MIN && version1(header)) {
    throw unsupported(`block map offset ${hex(mapOffset)} is inside the header`);
  }
  if (dataOffset < mapOffset + 4 * blocks) {
    throw unsupported(`data offset ${hex(dataOffset)} is inside the block map`);
  }
  if (blockExtra !== 0 && !isPowerOfTwo(blockExtra)) throw unsupported(`block extra size ${blockExtra}`);
  if (!Number.isSafeInteger(dataOffset + blocks * (header.blockSize + blockExtra))) {
    throw unsupported(`${blocks} blocks of ${header.blockSize} + ${blockExtra} bytes`);
  }
}

function version1(header: VdiHeader): boolean {
  return header.version !== VERSION_0_2;
}

/** Throws when the file cannot hold the map the header speaks of: nothing is allocated by the header's word alone (V-14). */
export function checkMapFits(header: VdiHeader, fileLength: number): void {
  const missing = header.mapOffset + 4 * header.blocks - fileLength;
  if (header.blocks === 0 || missing <= 0) return;
  const text = `The VDI image is cut short: its block map ends ${missing} bytes behind the end of the file`;
  throw new BlockError('EINVAL', text);
}
