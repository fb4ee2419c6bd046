/** The VDI format: VirtualBox disk images (specification: the V rules). */
import { formatUuid } from '../../bytes/uuid.ts';
import { isZero } from '../../bytes/zero.ts';
import {
  type BackingReference,
  type DriverInfo,
  type DriverNode,
  defineFormat,
  NO_REOPEN_STEP,
  type OpenContext,
} from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { option } from '../../core/options.ts';
import { check } from './check.ts';
import { discard, writeZeroes } from './clear.ts';
import { compact } from './compact.ts';
import { checkCreation, create, createOptions, type VdiCreateOptions } from './create.ts';
import { extent, place } from './extents.ts';
import { findParent, parentMissing } from './find-parent.ts';
import {
  decodeHeader,
  HEADER_BYTES,
  HEADER_SIZE_LOGICAL,
  ImageType,
  isOldLayout,
  readHeaderBytes,
  SIGNATURE,
  type VdiHeader,
} from './header.ts';
import { VdiImage } from './image.ts';
import { info } from './info.ts';
import { Lineage, uuidsOf } from './lineage.ts';
import { readMap } from './map.ts';
import { measure } from './measure.ts';
import { newStorage } from './new-storage.ts';
import { read, tryReadNow } from './read.ts';
import { changeParent, makeEmpty } from './rebase.ts';
import { resize } from './resize.ts';
import { stream } from './stream.ts';
import { checkHeader, checkMapFits, KNOWN_FLAGS, SECTOR, usableSize } from './validate.ts';
import { tryWriteNow, write } from './write.ts';
import { flush, isDirty } from './write-back.ts';

interface VdiOptions {
  readonly upgrade: boolean;
  readonly 'parent-folders': string;
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
    'parent-folders': option.text({
      help: "folders with colons between them, as seen from the image's, where its parent is looked for besides",
      fallback: '',
      beyond: true,
    }),
  },
  events: [
    ...['read_aio', 'read_backing_aio', 'write_aio', 'cow_read', 'cow_write', 'cluster_alloc', 'cluster_free'],
    ...['l1_update', 'l2_update', 'empty_image_prepare'],
  ],
  supportsBacking: true,
  temporaryOverlay: { differencing: true },
  probe: (head) => (head.length >= HEADER_BYTES && decodeHeader(head).signature === SIGNATURE ? 100 : 0),
  create: { options: createOptions, backing: { file: 'parent', only: 'vdi' }, check: checkCreation, run: create },
  measure,
  stream,
  migratable: false,
  open: (context) => openVdi(context),
});

/** `rehearsing`: what is written to its files is not kept by anyone. */
async function openVdi(context: OpenContext<VdiOptions>, rehearsing = false): Promise<DriverNode> {
  const { file, host, node, event, eventsHeard } = context;
  const headerBytes = await readHeaderBytes(file);
  const header = decodeHeader(headerBytes);
  checkHeader(header);
  checkMapFits(header, file.length());
  const name = file.filename();
  const readOnly = context.writable && !isWritable(context, header);
  if (isZero(header.uuid)) host.notice(`'${name}': the image has a null UUID, which VirtualBox refuses`);
  const { reference, orphaned } = await recordedParent(context, header);
  if (context.noIO) return headerOnly(header, readOnly, reference);
  const map = await readMap(file, header.mapOffset, header.blocks);
  const parent = () => context.child('backing');
  const { salvage } = context;
  const image = new VdiImage({
    file,
    host,
    node,
    header,
    headerBytes,
    map,
    salvage,
    parent,
    event,
    eventsHeard,
    orphaned,
    rehearsing,
  });
  if (context.writable && !readOnly && context.options.upgrade) upgrade(image);
  return {
    ...vdiNode(image, readOnly, () => context.childInfo('backing'), reference),
    rehearse: (files) => openVdi(files.context(context), true),
  };
}

interface RecordedParent {
  readonly reference: BackingReference | undefined;
  /** Why there is none although there should be. */
  readonly orphaned: string | undefined;
}

/** The file of the parent that the header names, if it matters. Throws BlockError ENOENT when it is missing and needed. */
async function recordedParent(context: OpenContext<VdiOptions>, header: VdiHeader): Promise<RecordedParent> {
  const { file, host, hostContext, noIO, checkOnly, backingGiven, signal } = context;
  if (header.type !== ImageType.differencing || (backingGiven && !noIO)) {
    return { reference: undefined, orphaned: undefined };
  }
  const filename = file.filename();
  let missing: BlockError;
  if (isZero(header.linkUuid)) {
    const text = `'${filename}' is based on another image and does not record which`;
    missing = new BlockError('ENOENT', text, {
      hint: 'Name it with backing.file.filename=FILE and backing.driver=FORMAT',
    });
  } else {
    const search = { host, context: hostContext, filename, header, folders: context.options['parent-folders'], signal };
    const reference = await findParent(search);
    if (reference !== undefined) return { reference, orphaned: undefined };
    missing = parentMissing(search);
  }
  // Who only checks, or asks what the image is, does not need it.
  if (noIO || checkOnly) return { reference: undefined, orphaned: missing.message };
  throw missing;
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

function vdiNode(
  image: VdiImage,
  readOnly: boolean,
  parentInfo: () => DriverInfo | undefined,
  recorded: BackingReference | undefined,
): DriverNode {
  const { file, header, host, node, parent } = image;
  const lineage = new Lineage({ header, filename: () => file.filename(), host, node, parent, parentInfo });
  let reference = recorded;
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
    place: (offset, length) => place(image, offset, length),
    newStorage: () => newStorage(image),
    limits: () => ({ preferred: image.blockSize }),
    truncate: (length, options) => resize(image, length, options),
    info: () => info(header, Math.max(0, image.countOnDisk - image.slots.used)),
    check: (options) => check(image, options),
    compact: (options) => compact(image, lineage, options),
    async prepareReopen({ writable }) {
      if (writable) requireKnownFlags(header, node);
      return writable ? NO_REOPEN_STEP : { commit: () => image.endSession(), abort() {} };
    },
    backing: () => reference ?? linkedParent(image, parentInfo()),
    async changeBacking(next) {
      await changeParent(image, next, parentInfo);
      reference = next;
      lineage.look(true);
    },
    checkBacking: () => lineage.require(),
    async makeEmpty() {
      await makeEmpty(image, parentInfo);
      lineage.look(true);
    },
    // Called for every change of what is linked, the parent too.
    preparePermissions: () => ({ commit: () => lineage.look(), abort() {} }),
    // A dynamic image reads as zeroes where nothing is stored (V-30), unless another shows there.
    zeroInit: () => (image.isStatic ? file.zeroInit() : !image.isDifferencing || parent() === undefined),
    async close() {
      if (isDirty(image)) await flush(image);
    },
  };
}

/** The linked parent, where it is the one that the header names by its UUID. */
function linkedParent({ header, parent }: VdiImage, info: DriverInfo | undefined): BackingReference | undefined {
  const filename = parent()?.filename();
  if (filename === undefined || isZero(header.linkUuid)) return undefined;
  return uuidsOf(info)?.uuid === formatUuid(header.linkUuid) ? { filename, format: 'vdi' } : undefined;
}

/** Enough to tell of the image, without its map (V-4). */
function headerOnly(header: VdiHeader, readOnly: boolean, reference: BackingReference | undefined): DriverNode {
  return {
    readOnly,
    length: () => usableSize(header),
    async read() {
      throw new BlockError('EIO', 'The image was opened for information only');
    },
    info: () => info(header, undefined),
    backing: () => reference,
    zeroInit: () => header.type === ImageType.dynamic,
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
