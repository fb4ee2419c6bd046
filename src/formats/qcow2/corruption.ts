/** What is done when metadata turn out to be wrong while the image is in use (Q-CORR-1). */
import { setU64, viewOf } from '../../bytes/big-endian.ts';
import { BlockError } from '../../core/errors.ts';
import { FIELD_AT, Incompatible } from './header.ts';
import type { Qcow2Image } from './image.ts';

export interface Corruption {
  /** Going on would make it worse. Counts on writable nodes only. */
  readonly fatal: boolean;
  readonly text: string;
  readonly offset?: number;
  readonly length?: number;
}

/**
 * Tells of it, once, and marks the image if it is fatal: nothing can be done with it then. Resolves with the error for
 * the request that found it, EIO.
 */
export async function corruption(image: Qcow2Image, found: Corruption): Promise<BlockError> {
  const fatal = found.fatal && image.writable;
  const { text } = found;
  const what = fatal
    ? `qcow2: Marking image as corrupt: ${text}; further corruption events will be suppressed`
    : `qcow2: Image is corrupt: ${text}; further non-fatal corruption events will be suppressed`;
  const error = new BlockError('EIO', `The image is corrupt: ${text}`, { node: image.node });
  if (image.broken !== undefined || (image.toldCorruption && !fatal)) return error;
  image.toldCorruption = true;
  image.host.warn(what);
  const { node, host } = image;
  if (host.watched(CORRUPTED)) {
    const { offset, length: size } = found;
    const place = { ...(offset === undefined ? {} : { offset }), ...(size === undefined ? {} : { size }) };
    host.publish(CORRUPTED, { device: '', 'node-name': node, msg: text, ...place, fatal });
  }
  if (fatal) await breakImage(image, error);
  return error;
}

const CORRUPTED = 'diskwright:image-corrupted';

/** No request is served any more, and no program opens the image for writing before it is repaired. */
async function breakImage(image: Qcow2Image, error: BlockError): Promise<void> {
  // As for a drive whose disk was taken out.
  image.broken = new BlockError('ENOMEDIUM', error.message, { node: image.node, cause: error });
  const { header, file } = image;
  if (header.version < 3) return;
  header.incompatible |= Incompatible.corrupt;
  await writeFeatures(image).catch(() => {});
  await file.flush().catch(() => {});
}

/** The word of incompatible features as it is in memory; not durable. Not checked for overlaps: it ends a failure. */
export async function writeFeatures(image: Qcow2Image): Promise<void> {
  const bytes = new Uint8Array(8);
  setU64(viewOf(bytes), 0, image.header.incompatible);
  await image.file.write(FIELD_AT.incompatible, bytes);
}
