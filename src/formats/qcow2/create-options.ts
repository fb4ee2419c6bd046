/** Creation options (Q-CR-1), in the order of the `Formatting` line, and what they may be (Q-CR-2). */
import { isPowerOfTwo } from '../../bytes/align.ts';
import { BlockError } from '../../core/errors.ts';
import { type OptionSchema, option } from '../../core/options.ts';
import { type EncryptionOptions, type EncryptionPlan, planEncryption } from './encryption-new.ts';
import { L1_BYTES_MAX } from './layout.ts';

export interface Qcow2CreateOptions extends EncryptionOptions {
  readonly cluster_size: number;
  readonly extended_l2: boolean;
  readonly preallocation: string;
  readonly compression_type: string;
  readonly size: number;
  readonly compat: string;
  readonly backing_file: string | undefined;
  readonly backing_fmt: string | undefined;
  readonly data_file: string | undefined;
  readonly data_file_raw: boolean;
  readonly lazy_refcounts: boolean;
  readonly refcount_bits: number;
}

const unset = { fallback: undefined } as const;
const text = (help: string) => option.text<string | undefined>({ help, ...unset });

export const createOptions: OptionSchema<Qcow2CreateOptions> = {
  encryption: option.boolean<boolean | undefined>({
    help: "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
    ...unset,
  }),
  'encrypt.format': text("Encrypt the image, format choices: 'aes', 'luks'"),
  'encrypt.key-secret': text('ID of secret providing qcow AES key or LUKS passphrase'),
  'encrypt.cipher-alg': text('Name of encryption cipher algorithm'),
  'encrypt.cipher-mode': text('Name of encryption cipher mode'),
  'encrypt.ivgen-alg': text('Name of IV generator algorithm'),
  'encrypt.ivgen-hash-alg': text('Name of IV generator hash algorithm'),
  'encrypt.hash-alg': text('Name of encryption hash algorithm'),
  'encrypt.iter-time': option.number<number | undefined>({ help: 'Time to spend in PBKDF in milliseconds', ...unset }),
  cluster_size: option.size({ help: 'qcow2 cluster size', fallback: 65536, shown: true }),
  extended_l2: option.boolean({ help: 'Extended L2 tables', fallback: false, shown: true }),
  preallocation: option.text({
    help: 'Preallocation mode (allowed values: off, metadata, falloc, full)',
    fallback: 'off',
  }),
  compression_type: option.text({
    help: 'Compression method used for image cluster compression',
    fallback: 'zlib',
    shown: true,
  }),
  size: option.size({ help: 'Virtual disk size', fallback: 0, shown: true }),
  compat: option.text({ help: 'Compatibility level (v2 [0.10] or v3 [1.1])', fallback: '1.1' }),
  backing_file: text('File name of a base image'),
  backing_fmt: text('Image format of the base image'),
  data_file: text('File name of an external data file'),
  data_file_raw: option.boolean({ help: 'The external data file must stay valid as a raw image', fallback: false }),
  lazy_refcounts: option.boolean({ help: 'Postpone refcount updates', fallback: false, shown: true }),
  refcount_bits: option.number({ help: 'Width of a reference count entry in bits', fallback: 16, shown: true }),
};

const VERSIONS: Readonly<Record<string, 2 | 3>> = { '0.10': 2, v2: 2, '1.1': 3, v3: 3 };
const PREALLOCATIONS = ['off', 'metadata', 'falloc', 'full'] as const;
const COMPRESSIONS = ['zlib', 'zstd'] as const;
const V3_ONLY = 'with compatibility level 1.1 and above (use version=v3 or greater)';

/** Options that are known to go together. */
export interface CreationPlan {
  readonly version: 2 | 3;
  readonly clusterBits: number;
  readonly refcountOrder: number;
  readonly preallocation: (typeof PREALLOCATIONS)[number];
  readonly compression: (typeof COMPRESSIONS)[number];
  /** Bytes, a multiple of 512. */
  readonly size: number;
  /** Undefined: none. */
  readonly encryption: EncryptionPlan | undefined;
  readonly options: Qcow2CreateOptions;
}

function bad(message: string): BlockError {
  return new BlockError('EINVAL', message);
}

function oneOf<T extends string>(values: readonly T[], name: string, value: string): T {
  const found = values.find((each) => each === value);
  if (found === undefined) throw bad(`Parameter '${name}' does not accept value '${value}'`);
  return found;
}

/** Throws BlockError EINVAL, in the order of Q-CR-2; for a size past the safe integers ENOTSUP, or EFBIG as for one past the L1 table. */
export function planCreation(options: Qcow2CreateOptions): CreationPlan {
  const version = Object.hasOwn(VERSIONS, options.compat) ? VERSIONS[options.compat] : undefined;
  if (version === undefined) throw bad(`Parameter 'version' does not accept value '${options.compat}'`);
  const preallocation = oneOf(PREALLOCATIONS, 'preallocation', options.preallocation);
  const compression = oneOf(COMPRESSIONS, 'compression-type', options.compression_type);
  checkClusters(options, version);
  checkCombinations(options, version, preallocation);
  if (compression !== 'zlib' && version < 3) throw bad(`Non-zlib compression type is only supported ${V3_ONLY}`);
  const encryption = planEncryption(options);
  if (options.size > SIZE_MAX) throw tooLarge(options);
  return {
    version,
    clusterBits: Math.log2(options.cluster_size),
    refcountOrder: Math.log2(options.refcount_bits),
    preallocation: options.data_file_raw && preallocation === 'off' ? 'metadata' : preallocation,
    compression,
    size: Math.ceil(options.size / 512) * 512,
    encryption,
    options,
  };
}

/** Bytes: offsets are safe integers, and sizes whole sectors. */
const SIZE_MAX = 2 ** 53 - 512;

/** Only where other clusters would not help it is the program's limit that counts. */
function tooLarge(options: Qcow2CreateOptions): BlockError {
  if (l1BytesFor(options, options.size) > L1_BYTES_MAX) return new BlockError('EFBIG', 'File too large');
  const text = 'The image size is too large: sizes of 2^53 bytes (8 PiB) and more are not supported';
  return new BlockError('ENOTSUP', text);
}

/** Bytes of the L1 table that a disk of `size` bytes needs. */
export function l1BytesFor(options: Qcow2CreateOptions, size: number): number {
  const { cluster_size: clusterSize, extended_l2: extended } = options;
  return Math.ceil(size / ((clusterSize * clusterSize) / (extended ? 16 : 8))) * 8;
}

function checkClusters({ extended_l2: extended, cluster_size: clusterSize }: Qcow2CreateOptions, version: 2 | 3): void {
  if (extended && version < 3) throw bad(`Extended L2 entries are only supported ${V3_ONLY}`);
  if (!isPowerOfTwo(clusterSize) || clusterSize < 512 || clusterSize > 2 << 20) {
    throw bad('Cluster size must be a power of two between 512 and 2048k');
  }
  if (extended && clusterSize < 16384) {
    throw bad('Extended L2 entries are only supported with cluster sizes of at least 16384 bytes');
  }
}

function checkCombinations(options: Qcow2CreateOptions, version: 2 | 3, preallocation: string): void {
  const { backing_file: backing, refcount_bits: bits, data_file: dataFile, data_file_raw: raw } = options;
  if (backing !== undefined && preallocation !== 'off' && !options.extended_l2) {
    throw bad('Backing file and preallocation can only be used at the same time if extended_l2 is on');
  }
  if (backing === undefined && options.backing_fmt !== undefined) {
    throw bad('Backing format cannot be used without backing file');
  }
  if (options.lazy_refcounts && version < 3) throw bad(`Lazy refcounts only supported ${V3_ONLY}`);
  if (!isPowerOfTwo(bits) || bits > 64) throw bad('Refcount width must be a power of two and may not exceed 64 bits');
  if (bits !== 16 && version < 3) {
    throw bad(
      'Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)',
    );
  }
  if (raw && dataFile === undefined) throw bad('data-file-raw requires data-file');
  if (raw && backing !== undefined) throw bad('Backing file and data-file-raw cannot be used at the same time');
  if (dataFile !== undefined && version < 3) throw bad(`External data files are only supported ${V3_ONLY}`);
}
