/** An open image as a node. */
import type { DriverNode, OpenContext } from '../../core/driver.ts';
import { BlockError, errorText } from '../../core/errors.ts';
import { amend } from './amend.ts';
import { keepBitmaps, type PlainNode } from './bitmaps/keep.ts';
import { BitmapSession } from './bitmaps/session.ts';
import { discard, writeZeroes } from './clear.ts';
import { compact } from './compact.ts';
import { snapshotsOf, vmStateOf } from './driver-snapshots.ts';
import { CryptMethod } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { info } from './info.ts';
import { newStorage } from './new-storage.ts';
import { openImage } from './open.ts';
import type { Qcow2Options } from './options.ts';
import { read, tryReadNow } from './read.ts';
import { changeBacking, makeEmpty } from './rebase.ts';
import { finishSession, prepareReopen } from './reopen.ts';
import { check } from './repair.ts';
import { resize } from './resize.ts';
import { showAgain } from './snapshots.ts';
import { place, status, tryStatusNow } from './status.ts';
import { tryWriteNow, write } from './write.ts';
import { flush } from './write-back.ts';
import { writeCompressed } from './write-compressed.ts';

export async function openQcow2(context: OpenContext<Qcow2Options>): Promise<DriverNode> {
  const image = await openImage(context, context.writable && !context.inactive);
  return context.noIO ? headerOnly(image) : qcow2Node(image, context);
}

async function qcow2Node(opened: Qcow2Image, context: OpenContext<Qcow2Options>): Promise<DriverNode> {
  let image = opened;
  let writable = context.writable;
  const node: PlainNode = {
    length: () => image.length,
    read: (offset, target) => read(image, offset, target),
    tryReadNow: (offset, target) => tryReadNow(image, offset, target),
    write: (offset, source) => write(image, offset, source),
    tryWriteNow: (offset, source) => tryWriteNow(image, offset, source),
    writeCompressed: (offset, source) => writeCompressed(image, offset, source),
    writeZeroes: (offset, length, flags) => writeZeroes(image, offset, length, flags),
    discard: (offset, length) => discard(image, offset, length),
    // Both the tables and the data file change.
    clearsAlone: image.layout.hasDataFile,
    // Of an image that cannot be used any more, nothing is written back.
    flush: () => (image.broken === undefined ? flush(image) : image.file.flush()),
    status: (offset, length) => status(image, offset, length),
    tryStatusNow: (offset, length) => tryStatusNow(image, offset, length),
    place: (offset, length) => place(image, offset, length),
    newStorage: () => newStorage(image),
    limits: () => limits(image),
    truncate: (length, options) => resize(image, length, options),
    info: () => info(image),
    check: (options) => check(image, options),
    rehearse: (files) => openQcow2(files.context(context)),
    compact: (options) => compact(image, options),
    zeroInit: () => zeroInit(image),
    backing: () => backingOf(image),
    changeBacking: (reference) => changeBacking(image, reference),
    makeEmpty: () => makeEmpty(image),
    amend: (options, how) => amend(image, options, how),
    snapshots: snapshotsOf(() => image),
    vmState: vmStateOf(() => image),
    async prepareReopen(next) {
      const step = await prepareReopen(image, next);
      return {
        ...step,
        commit() {
          step.commit();
          writable = next.writable;
        },
      };
    },
    async inactivate() {
      await finishSession(image);
    },
    async activate() {
      try {
        const { shown } = image;
        // What has aborted the opening since is over.
        image = await openImage({ ...context, signal: undefined }, writable);
        if (shown !== undefined) await showAgain(image, shown);
      } catch (error) {
        if (!(error instanceof BlockError)) throw error;
        const text = `Could not reopen qcow2 layer: ${error.message}`;
        throw new BlockError(error.code, text, { node: context.node, cause: error });
      }
    },
    close: () => finishSession(image),
  };
  const session = new BitmapSession(context, () => image);
  if (!context.inactive) await session.load();
  return keepBitmaps(node, session, () => image);
}

function limits({ layout, header }: Qcow2Image) {
  return {
    zeroAlign: layout.subclusterSize,
    zeroWidens: true,
    discardAlign: layout.clusterSize,
    preferred: layout.clusterSize,
    compressUnit: layout.clusterSize,
    ...(header.cryptMethod === CryptMethod.none ? {} : { requestAlign: 512 }),
  };
}

function backingOf({ backingName, extensions }: Qcow2Image) {
  return backingName === undefined ? undefined : { filename: backingName, format: extensions.backingFormat ?? '' };
}

/** Q-READ-5. */
function zeroInit({ l1, header, data }: Qcow2Image): boolean {
  if (l1.entries === 0 || l1.l2Offset(0) === 0) return true;
  return header.cryptMethod === CryptMethod.none && data.zeroInit();
}

/** Enough to tell of the image, without its tables. */
function headerOnly(image: Qcow2Image): DriverNode {
  return {
    length: () => image.length,
    async read() {
      throw new BlockError('EIO', errorText('EIO'));
    },
    info: () => info(image),
    snapshots: snapshotsOf(() => image),
    backing: () => backingOf(image),
    zeroInit: () => false,
  };
}
