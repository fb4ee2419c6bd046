/** The VDI format: VirtualBox disk images (specification: the V rules). */
import { isZero } from '../../bytes/zero.ts';
import { type DriverNode, defineFormat, type OpenContext } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { option } from '../../core/options.ts';
import { check } from './check.ts';
import { discard, writeZeroes } from './clear.ts';
import { compact } from './compact.ts';
import { create, createOptions, type VdiCreateOptions } from './create.ts';
import { Damage } from './damage.ts';
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
import { read, tryReadNow } from './read.ts';
import { resize } from './resize.ts';
import { loadSlots, Slots } from './slots.ts';
import { checkHeader, checkMapFits, KNOWN_FLAGS, SECTOR, usableSize } from './validate.ts';
import { tryWriteNow, write } from './write.ts';
import { WriteBack } from './write-back.ts';

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
  open: openVdi,
});

async function openVdi(context: OpenContext<VdiOptions>): Promise<DriverNode> {
  const { file, writable, host } = context;
  const headerBytes = new Uint8Array(HEADER_BYTES);
  await file.read(0, headerBytes);
  const header = decodeHeader(headerBytes);
  checkHeader(header);
  const name = file.filename();
  if (writable && (header.flags & ~KNOWN_FLAGS) !== 0) {
    const text = `unsupported VDI image (unknown flags 0x${header.flags.toString(16)}; it can be opened read-only)`;
    throw new BlockError('ENOTSUP', text, { node: context.node });
  }
  if (isZero(header.uuid)) host.notice(`'${name}': the image has a null UUID, which VirtualBox refuses`);
  if (context.noIO) return headerOnly(header);
  checkMapFits(header, file.length());
  const map = await readMap(file, header.mapOffset, header.blocks);
  const damage = new Damage({ map, header, fileLength: file.length(), salvage: context.salvage });
  const slots = new Slots(damage.slotsUsed);
  if (writable) loadSlots(slots, map, damage.slotsUsed);
  const image = new VdiImage({ file, host, node: context.node, header, headerBytes, map, slots, damage });
  if (writable && context.options.upgrade) upgrade(image);
  return vdiNode(image);
}

function vdiNode(image: VdiImage): DriverNode {
  const { file, header } = image;
  const writeBack = new WriteBack(image);
  return {
    length: () => image.length,
    read: (offset, target) => read(image, offset, target),
    tryReadNow: (offset, target) => tryReadNow(image, offset, target),
    write: (offset, source) => write(image, writeBack, offset, source),
    tryWriteNow: (offset, source) => tryWriteNow(image, offset, source),
    writeZeroes: (offset, length, flags) => writeZeroes(image, offset, length, flags),
    discard: (offset, length) => discard(image, offset, length),
    flush: () => writeBack.flush(),
    status: async (offset, length) => extent(image, offset, length),
    tryStatusNow: (offset, length) => extent(image, offset, length),
    limits: () => ({ preferred: image.blockSize }),
    truncate: (length, options) => resize(image, writeBack, length, options),
    info: () => info(header, Math.max(0, header.allocated - image.countStored())),
    check: (options) => check(image, writeBack, options),
    compact: (options) => compact(image, writeBack, options),
    zeroInit: () => header.type !== ImageType.static || file.zeroInit(),
  };
}

/** Enough to tell of the image, without its map (V-4). */
function headerOnly(header: VdiHeader): DriverNode {
  return {
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
