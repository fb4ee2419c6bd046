/** The VDI format: VirtualBox disk images (specification: the V rules). */
import { isZero } from '../../bytes/zero.ts';
import { type DriverNode, defineFormat, NO_REOPEN_STEP, type OpenContext } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { option } from '../../core/options.ts';
import { check } from './check.ts';
import { discard, writeZeroes } from './clear.ts';
import { compact } from './compact.ts';
import { create, createOptions, type VdiCreateOptions } from './create.ts';
import { extent } from './extents.ts';
import {
  decodeHeader,
  HEADER_BYTES,
  HEADER_SIZE_LOGICAL,
  ImageType,
  isOldLayout,
  SIGNATURE,
  type VdiHeader,
} from './header.ts';
import { VdiImage } from './image.ts';
import { info } from './info.ts';
import { readMap } from './map.ts';
import { measure } from './measure.ts';
import { read, tryReadNow } from './read.ts';
import { resize } from './resize.ts';
import { checkHeader, checkMapFits, KNOWN_FLAGS, SECTOR, usableSize } from './validate.ts';
import { tryWriteNow, write } from './write.ts';
import { flush, isDirty } from './write-back.ts';

interface VdiOptions {
  readonly upgrade: boolean;
}

export const vdi = defineFormat<VdiOptions, VdiCreateOptions>({
  name: 'vdi',
  summary: 'VirtualBox disk images',
  options: {
    upgrade: option.boolean({
      help: 'on writing, turn a header of 384 bytes into one of 400, as VirtualBox does',
      fallback: false,
      beyond: true,
    }),
  },
  probe: (head) => (head.length >= HEADER_BYTES && decodeHeader(head).signature === SIGNATURE ? 100 : 0),
  create: { options: createOptions, run: create },
  measure,
  open: openVdi,
});

async function openVdi(context: OpenContext<VdiOptions>): Promise<DriverNode> {
  const { file, host, node } = context;
  const headerBytes = new Uint8Array(HEADER_BYTES);
  await file.read(0, headerBytes);
  const header = decodeHeader(headerBytes);
  checkHeader(header);
  checkMapFits(header, file.length());
  const name = file.filename();
  const readOnly = context.writable && !isWritable(context, header);
  if (isZero(header.uuid)) host.notice(`'${name}': the image has a null UUID, which VirtualBox refuses`);
  if (context.noIO) return headerOnly(header, readOnly);
  const map = await readMap(file, header.mapOffset, header.blocks);
  const image = new VdiImage({ file, host, node, header, headerBytes, map, salvage: context.salvage });
  if (context.writable && !readOnly && context.options.upgrade) upgrade(image);
  return vdiNode(image, readOnly);
}

/** Unknown flags may mean anything, so such an image is only read (V-61). */
function isWritable({ autoReadOnly, node }: OpenContext<VdiOptions>, header: VdiHeader): boolean {
  if (autoReadOnly && (header.flags & ~KNOWN_FLAGS) !== 0) return false;
  requireKnownFlags(header, node);
  return true;
}

function requireKnownFlags({ flags }: VdiHeader, node: string): void {
  if ((flags & ~KNOWN_FLAGS) === 0) return;
  const text = `unsupported VDI image (unknown flags 0x${flags.toString(16)}; it can be opened read-only)`;
  throw new BlockError('EACCES', text, { node });
}

function vdiNode(image: VdiImage, readOnly: boolean): DriverNode {
  const { file, header } = image;
  return {
    readOnly,
    length: () => image.length,
    read: (offset, target) => read(image, offset, target),
    tryReadNow: (offset, target) => tryReadNow(image, offset, target),
    write: (offset, source) => write(image, offset, source),
    tryWriteNow: (offset, source) => tryWriteNow(image, offset, source),
    writeZeroes: (offset, length, flags) => writeZeroes(image, offset, length, flags),
    discard: (offset, length) => discard(image, offset, length),
    flush: () => flush(image),
    status: async (offset, length) => extent(image, offset, length),
    tryStatusNow: (offset, length) => extent(image, offset, length),
    limits: () => ({ preferred: image.blockSize }),
    truncate: (length, options) => resize(image, length, options),
    info: () => info(header, Math.max(0, image.countOnDisk - image.slots.used)),
    check: (options) => check(image, options),
    compact: (options) => compact(image, options),
    async prepareReopen({ writable }) {
      if (writable) requireKnownFlags(header, image.node);
      return NO_REOPEN_STEP;
    },
    // A dynamic image reads as zeroes where nothing is stored (V-30).
    zeroInit: () => !image.isStatic || file.zeroInit(),
    async close() {
      if (isDirty(image)) await flush(image);
    },
  };
}

/** Enough to tell of the image, without its map (V-4). */
function headerOnly(header: VdiHeader, readOnly: boolean): DriverNode {
  return {
    readOnly,
    length: () => usableSize(header),
    async read() {
      throw new BlockError('EIO', 'The image was opened for information only');
    },
    info: () => info(header, undefined),
    zeroInit: () => header.type !== ImageType.static,
  };
}

/** V-64. */
function upgrade(image: VdiImage): void {
  const { header } = image;
  const end = 72 + HEADER_SIZE_LOGICAL;
  if (isOldLayout(header) || header.headerSize >= HEADER_SIZE_LOGICAL || header.mapOffset < end) return;
  header.headerSize = HEADER_SIZE_LOGICAL;
  header.logicalGeometry = { cylinders: 0, heads: 0, sectors: 0, sectorSize: SECTOR };
  image.headerDirty = true;
}
