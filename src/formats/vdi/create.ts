/** Making an image (V-40 to V-43). */
import { alignUp, isPowerOfTwo } from '../../bytes/align.ts';
import { formatUuid, parseUuid, randomUuid } from '../../bytes/uuid.ts';
import type { Child, CreationCheckContext, FormatCreateContext } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { type OptionSchema, option } from '../../core/options.ts';
import { readNamedHeader } from './find-parent.ts';
import {
  DESCRIPTION_MAX,
  encodeHeader,
  HEADER_BYTES,
  HEADER_SIZE_LOGICAL,
  ImageType,
  SIGNATURE,
  type VdiHeader,
  VERSION_1_1,
} from './header.ts';
import { ENTRY_BYTES, mapBytes, UNALLOCATED } from './map.ts';
import { requireUuid } from './rebase.ts';
import { DEFAULT_BLOCK_SIZE, isBlockSize, maxDiskSize, SECTOR, sizeError } from './validate.ts';

export interface VdiCreateOptions {
  readonly size: number;
  readonly static: boolean;
  readonly preallocation: 'off' | 'metadata' | 'falloc' | 'full';
  readonly 'block-size': number;
  readonly uuid: string | undefined;
  readonly description: string;
  readonly 'data-align': number;
  readonly parent: string | undefined;
  readonly differencing: boolean;
}

export const createOptions: OptionSchema<VdiCreateOptions> = {
  size: option.size({ help: 'Virtual disk size', fallback: 0, shown: true }),
  static: option.boolean({ help: 'VDI static (pre-allocated) image', fallback: false, shown: true }),
  preallocation: option.choice(['off', 'metadata', 'falloc', 'full'], {
    help: 'Preallocation mode (allowed values: off, metadata, falloc, full); all but off make a static image',
    fallback: 'off',
    beyond: true,
  }),
  'block-size': option.size({
    help: 'Block size, a power of two from 4k to 256M',
    fallback: DEFAULT_BLOCK_SIZE,
    beyond: true,
  }),
  uuid: option.text<string | undefined>({
    help: 'UUID of the image; random if not given',
    fallback: undefined,
    beyond: true,
  }),
  description: option.text({ help: 'Comment, at most 255 bytes', fallback: '', beyond: true }),
  'data-align': option.size({
    help: 'Alignment of the data in the file, a power of two from 512 on',
    fallback: DEFAULT_BLOCK_SIZE,
    beyond: true,
  }),
  parent: option.text<string | undefined>({
    help: 'File name of the VDI that the image is based on; its UUIDs are recorded',
    fallback: undefined,
    beyond: true,
  }),
  differencing: option.boolean({
    help: 'A differencing image; without a parent, one that is to be named whenever the image is opened',
    fallback: false,
    beyond: true,
  }),
};

const MAP_OFFSET = HEADER_BYTES;
const BANNER = '<<< diskwright Virtual Disk Image >>>';
/** As VirtualBox leaves it until something attaches the disk. */
const NO_GEOMETRY = { cylinders: 0, heads: 0, sectors: 0, sectorSize: SECTOR };
/** Entries of the map that are written at a time. */
const MAP_PIECE = 1 << 20;

/** Throws BlockError for options that cannot be, and the host's where the parent cannot be read. */
export async function checkCreation(context: CreationCheckContext<VdiCreateOptions>): Promise<void> {
  const header = newHeader(context.options, (target) => target.fill(0));
  await recordParent(header, context);
}

/** Puts the UUIDs of the image below, if there is one, into the header of the image `filename`. */
async function recordParent(
  header: VdiHeader,
  { filename, options, host }: CreationCheckContext<VdiCreateOptions>,
): Promise<void> {
  if (options.parent === undefined) return;
  const parent = await readNamedHeader(host, filename, options.parent);
  requireUuid(parent, header.uuid, options.parent);
  Object.assign(header, { linkUuid: parent.uuid, parentUuid: parent.modificationUuid });
}

export async function create({ file, options, host, signal }: FormatCreateContext<VdiCreateOptions>): Promise<void> {
  const header = newHeader(options, (target) => host.random(target));
  await recordParent(header, { filename: file.filename(), options, host });
  const identity = header.type === ImageType.static;
  for (let first = 0; first < header.blocks; first += MAP_PIECE) {
    signal?.throwIfAborted();
    const piece = new Uint32Array(Math.min(MAP_PIECE, header.blocks - first));
    for (let i = 0; i < piece.length; i++) piece[i] = identity ? first + i : UNALLOCATED;
    await write(file, header.mapOffset + first * ENTRY_BYTES, mapBytes(piece, 0, piece.length));
  }
  const end = header.dataOffset + header.allocated * header.blockSize;
  const full = options.preallocation === 'falloc' || options.preallocation === 'full' ? options.preallocation : 'off';
  if (file.length() < end) await file.truncate(end, { preallocation: full });
  // Last, behind all it speaks of, so that a file cut short by a crash is no image.
  await file.flush();
  await write(file, 0, encodeNewHeader(header));
  await file.flush();
}

async function write(file: Child, offset: number, bytes: Uint8Array): Promise<void> {
  if (!file.tryWriteNow(offset, bytes)) await file.write(offset, bytes);
}

/** {@link HEADER_BYTES} bytes. */
export function encodeNewHeader(header: VdiHeader): Uint8Array {
  return encodeHeader(header, BANNER);
}

/** The header of a new image. Throws BlockError EINVAL or ENOTSUP for options that cannot be. */
export function newHeader(options: VdiCreateOptions, random: (target: Uint8Array) => void): VdiHeader {
  const blockSize = options['block-size'];
  const align = options['data-align'];
  const bad = (text: string) => new BlockError('EINVAL', text);
  if (!isBlockSize(blockSize)) throw bad(`Block size ${blockSize} is not a power of two from 4096 to 268435456`);
  if (!isPowerOfTwo(align) || align < SECTOR || align > 2 ** 30) {
    throw bad(`Data alignment ${align} is not a power of two from 512 to 1073741824`);
  }
  const max = maxDiskSize(blockSize);
  // Rounded as a bigint: what is too large may be no safe integer.
  const rounded = ((BigInt(options.size) + 511n) / 512n) * 512n;
  if (rounded > max) throw sizeError(rounded, max);
  const size = Number(rounded);
  const blocks = Math.ceil(size / blockSize);
  const dataOffset = alignUp(MAP_OFFSET + blocks * 4, align);
  if (dataOffset >= 2 ** 32) throw bad(`With ${blocks} blocks the data cannot be aligned to ${align}`);
  const uuid = options.uuid === undefined ? randomUuid(random) : parseUuid(options.uuid);
  if (uuid === undefined)
    throw bad(`Invalid UUID '${options.uuid}', expected one like ${formatUuid(randomUuid(random))}`);
  if (new TextEncoder().encode(options.description).length > DESCRIPTION_MAX) {
    throw bad(`Description is longer than ${DESCRIPTION_MAX} bytes`);
  }
  const isStatic = options.static || options.preallocation !== 'off';
  const isDifferencing = options.differencing || options.parent !== undefined;
  if (isStatic && isDifferencing) throw bad('An image that is based on another cannot be static');
  return {
    signature: SIGNATURE,
    version: VERSION_1_1,
    headerSize: HEADER_SIZE_LOGICAL,
    type: isDifferencing ? ImageType.differencing : isStatic ? ImageType.static : ImageType.dynamic,
    flags: 0,
    description: options.description,
    mapOffset: MAP_OFFSET,
    dataOffset,
    geometry: NO_GEOMETRY,
    logicalGeometry: NO_GEOMETRY,
    diskSize: size,
    blockSize,
    blockExtra: 0,
    blocks,
    allocated: isStatic ? blocks : 0,
    uuid,
    modificationUuid: randomUuid(random),
    linkUuid: new Uint8Array(16),
    parentUuid: new Uint8Array(16),
  };
}
