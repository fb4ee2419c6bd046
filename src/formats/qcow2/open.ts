/** Opening an image: everything in the order of Q-HDR-5. */
import type { Child, OpenContext } from '../../core/driver.ts';
import { BlockError, codeOf, withErrno } from '../../core/errors.ts';
import { openDirectory } from './bitmaps/directory-io.ts';
import { startCleaning } from './cache-cleaning.ts';
import { checkEncryption, openEncryption } from './encryption.ts';
import { noExtensions } from './extensions.ts';
import { Autoclear, type Qcow2Header } from './header.ts';
import { Qcow2Image } from './image.ts';
import { L1_ENTRY_BYTES, L1Table } from './l1-table.ts';
import { layoutOf } from './layout.ts';
import { type Qcow2Options, settingsFor } from './options.ts';
import { readBackingName, readExtensions, readHeader } from './read-header.ts';
import { readSnapshotTable } from './snapshot-table.ts';
import { becomeWritable } from './writability.ts';
import { attachWriteBack } from './write-back.ts';

/** Bytes of a table that are read at a time. */
const PIECE = 1 << 20;

/** `writable`: as it is to be opened now. Throws BlockError. */
export async function openImage(context: OpenContext<Qcow2Options>, writable: boolean): Promise<Qcow2Image> {
  const { file, host, node, noIO, checkOnly } = context;
  const read = await readHeader(file, { checkOnly, writable });
  const { header } = read;
  const l1 = noIO ? undefined : await readL1(file, header);
  const image = new Qcow2Image({
    file,
    host,
    node,
    header,
    settings: settingsFor(context.options, context.discard, header, layoutOf(header)),
    writable,
    extensions: noExtensions(),
    backingName: undefined,
    child: (name) => context.child(name),
    event: (name) => context.event(name),
  });
  attachWriteBack(image);
  if (l1 !== undefined) image.l1 = l1;
  checkEncryption(context, header);
  if (!noIO) await loadRefcounts(image, { checkOnly, writable, eventsHeard: context.eventsHeard() });
  image.extensions = readExtensions(read);
  await openDataFile(context, image);
  await openEncryption(context, image);
  image.backingName = readBackingName(read);
  // A check reads them itself, since it can do with less.
  if (!checkOnly) image.snapshots = await readSnapshotTable(file, header, header.snapshotCount);
  await openDirectory(image, checkOnly || !writable);
  if (writable && !noIO) await becomeWritable(image, { checkOnly });
  if (!noIO) startCleaning(image);
  return image;
}

/** The active L1 table, as far as the file has it: the last cluster may be cut short, and is zero behind that. */
async function readL1(file: Child, header: Qcow2Header): Promise<L1Table> {
  const length = header.l1Entries * L1_ENTRY_BYTES;
  const offset = Number(header.l1Offset);
  const clusterSize = 2 ** header.clusterBits;
  const held = Math.ceil(file.length() / clusterSize) * clusterSize;
  try {
    if (length > 0 && offset + length > held) throw new BlockError('EIO', 'The table is past the end of the file');
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length; done += PIECE) {
      const piece = bytes.subarray(done, done + PIECE);
      if (!file.tryReadNow(offset + done, piece)) await file.read(offset + done, piece);
    }
    return new L1Table(offset, bytes);
  } catch (error) {
    throw withErrno(codeOf(error), 'Could not read L1 table', { cause: error });
  }
}

async function loadRefcounts(
  image: Qcow2Image,
  {
    checkOnly,
    writable,
    eventsHeard,
  }: { readonly checkOnly: boolean; readonly writable: boolean; readonly eventsHeard: boolean },
): Promise<void> {
  try {
    // Who only reads has no need of counts, and may open many images; a fault at the event is to hit this and no other read.
    await image.refcounts.load(!writable && !checkOnly && !eventsHeard);
  } catch (error) {
    // A check says what is wrong, and can build them anew.
    if (checkOnly) return;
    throw withErrno(codeOf(error), 'Could not initialize refcount handling', { cause: error });
  }
}

/** Q-DATA-2, Q-FEAT-7. */
async function openDataFile(context: OpenContext<Qcow2Options>, image: Qcow2Image): Promise<void> {
  const given = context.child('data-file') !== undefined;
  const { extensions, layout, header } = image;
  if (!layout.hasDataFile) {
    if (given) {
      throw new BlockError('EINVAL', "'data-file' can only be set for images with an external data file");
    }
    // What keeps the data file a raw image would be done to the image itself, whose tables are there.
    if (!context.noIO && (header.autoclear & Autoclear.rawDataFile) !== 0n) {
      throw new BlockError('EINVAL', 'data-file-raw requires a data file');
    }
    return;
  }
  if (given || context.noIO) return;
  if (extensions.dataFile === undefined) throw new BlockError('EINVAL', "'data-file' is required for this image");
  await context.openNamed('data-file', 'data', extensions.dataFile);
}
