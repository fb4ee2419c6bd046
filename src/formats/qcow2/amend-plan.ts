/** What is to be changed of an image, with everything that speaks against it found before anything is (Q-AM-1, Q-AM-2). */
import { isPowerOfTwo } from '../../bytes/align.ts';
import type { AmendOptions } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { checkSize as checkSizeOf } from '../../core/resize-checks.ts';
import { namesKeySlots, type Qcow2AmendOptions } from './amend-options.ts';
import { checkDowngrade } from './downgrade.ts';
import { Autoclear, CryptMethod } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { prepareKeySlots } from './key-slots.ts';
import { checkRefcountOrder } from './refcount-order.ts';
import { checkResize } from './resize.ts';
import { requireHeaderRoom } from './write-header.ts';

/** Undefined, or false: stays as it is. */
export interface AmendPlan {
  readonly upgrade: boolean;
  /** Writes the key slots (Q-AM-5). */
  readonly keySlots: (() => Promise<void>) | undefined;
  readonly refcountOrder: number | undefined;
  readonly rawDataFile: boolean | undefined;
  /** Empty: the image names none. */
  readonly dataFile: string | undefined;
  readonly lazyRefcounts: boolean | undefined;
  /** Bytes. */
  readonly size: number | undefined;
  readonly downgrade: boolean;
}

const VERSIONS: Readonly<Record<string, 2 | 3>> = { '0.10': 2, v2: 2, '1.1': 3, v3: 3 };

function bad(text: string, hint?: string): BlockError {
  return new BlockError('EINVAL', text, { hint });
}

/** Throws BlockError in the order of qemu-img. Nothing is written. */
export async function planAmendment(
  image: Qcow2Image,
  options: Qcow2AmendOptions,
  how: AmendOptions,
): Promise<AmendPlan> {
  const { header } = image;
  checkEncryption(image, options);
  const version = versionOf(image, options);
  checkDataFile(image, options);
  const order = refcountOrder(options);
  const upgrade = version > header.version;
  if (upgrade) requireHeaderRoom(image, { version });
  const keySlots = namesKeySlots(options) ? await prepareKeySlots(image, options, how) : undefined;
  const changesOrder = order !== undefined && order !== header.refcountOrder;
  if (changesOrder) {
    if (version < 3) {
      const text = `Refcount widths other than 16 bits require compatibility level 1.1 or above ${USE_V3}`;
      if (order !== SIXTEEN_BITS) throw bad(text);
    }
    await checkRefcountOrder(image, order);
  }
  checkBacking(image, options);
  const lazy = options.lazy_refcounts;
  if (lazy === true && version < 3) {
    throw bad(`Lazy refcounts only supported with compatibility level 1.1 and above ${USE_V3}`);
  }
  // As with qemu-img, 0 is no size: nothing is cut off for it.
  const size = options.size === 0 ? undefined : options.size;
  if (size !== undefined) checkSize(image, size, Math.max(version, header.version));
  if (options.data_file !== undefined) requireHeaderRoom(image, {}, { dataFile: options.data_file || undefined });
  const downgrade = version < header.version;
  if (downgrade) {
    await checkDowngrade(image, { size: size ?? image.length, order: order ?? header.refcountOrder });
  }
  return {
    upgrade,
    keySlots,
    refcountOrder: changesOrder ? order : undefined,
    rawDataFile: options.data_file_raw,
    dataFile: options.data_file,
    lazyRefcounts: lazy,
    size,
    downgrade,
  };
}

const USE_V3 = '(use compat=1.1 or greater)';
const SIXTEEN_BITS = 4;

function checkEncryption({ header }: Qcow2Image, options: Qcow2AmendOptions): void {
  if (!namesKeySlots(options) || header.cryptMethod === CryptMethod.luks) return;
  if (header.cryptMethod === CryptMethod.none) {
    throw bad("Can't amend encryption options - encryption not present");
  }
  throw new BlockError('ENOTSUP', 'Only LUKS encryption options can be amended');
}

function versionOf({ header }: Qcow2Image, { compat }: Qcow2AmendOptions): number {
  if (compat === undefined) return header.version;
  const version = Object.hasOwn(VERSIONS, compat) ? VERSIONS[compat] : undefined;
  if (version === undefined) throw bad(`Unknown compatibility level ${compat}`);
  return version;
}

function checkDataFile({ header, layout }: Qcow2Image, options: Qcow2AmendOptions): void {
  if (options.data_file !== undefined && !layout.hasDataFile) {
    throw bad('data-file can only be set for images that use an external data file');
  }
  const isRaw = (header.autoclear & Autoclear.rawDataFile) !== 0n;
  if (options.data_file_raw === true && !isRaw) throw bad('data-file-raw cannot be set on existing images');
}

function refcountOrder({ refcount_bits: bits }: Qcow2AmendOptions): number | undefined {
  if (bits === undefined) return undefined;
  if (!isPowerOfTwo(bits) || bits > 64) throw bad('Refcount width must be a power of two and may not exceed 64 bits');
  return Math.log2(bits);
}

/** Both are given and are what is stored, or neither is given. */
function checkBacking({ backingName, extensions }: Qcow2Image, options: Qcow2AmendOptions): void {
  const { backing_file: file, backing_fmt: format } = options;
  if (file === undefined && format === undefined) return;
  const isStored = backingName !== undefined && file === backingName && format === extensions.backingFormat;
  if (!isStored) throw bad('Cannot amend the backing file', "You can use 'qemu-img rebase' instead.");
}

function checkSize(image: Qcow2Image, size: number, version: number): void {
  checkSizeOf(size, image.node);
  checkResize(image, size, { version });
}
