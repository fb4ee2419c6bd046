/** Making images (Q-CR). */
import { setU64, viewOf } from '../../bytes/big-endian.ts';
import type { Child, CreationCheckContext, FormatCreateContext } from '../../core/driver.ts';
import { addContext, BlockError } from '../../core/errors.ts';
import { NOW_MAX } from '../../core/turns.ts';
import { passphraseOf } from '../../crypto/secrets.ts';
import { type CreationPlan, planCreation, type Qcow2CreateOptions } from './create-options.ts';
import { addEncryption } from './encryption-new.ts';
import { type Extensions, noExtensions } from './extensions.ts';
import {
  Autoclear,
  Compatible,
  CompressionType,
  CryptMethod,
  HEADER_BYTES,
  Incompatible,
  type Qcow2Header,
} from './header.ts';
import { Qcow2Image } from './image.ts';
import { L1_ENTRY_BYTES } from './l1-table.ts';
import { L1_BYTES_MAX, l1EntriesFor, layoutOf } from './layout.ts';
import { markClean } from './lazy.ts';
import { defaultSettings } from './options.ts';
import { zeroPreallocated } from './preallocate.ts';
import { changeBacking } from './rebase.ts';
import { refcountWidth } from './refcount-width.ts';
import { resize } from './resize.ts';
import { attachWriteBack, flushAll } from './write-back.ts';
import { encodeHeaderCluster } from './write-header.ts';

/** Clusters of an image without a disk: header, refcount table, one refcount block. */
const FRESH_CLUSTERS = 3;

/** Throws BlockError: EINVAL for options that do not go together or a passphrase that is not there, EFBIG. */
export function checkCreation({ options, host }: CreationCheckContext<Qcow2CreateOptions>): void {
  const plan = planCreation(options);
  if (plan.encryption !== undefined) passphraseOf(host, plan.encryption.keySecret);
  const l1Bytes = l1EntriesFor(layoutOf(newHeader(plan)), plan.size) * L1_ENTRY_BYTES;
  if (l1Bytes > L1_BYTES_MAX) throw new BlockError('EFBIG', 'File too large');
}

export async function create(context: FormatCreateContext<Qcow2CreateOptions>): Promise<void> {
  const plan = planCreation(context.options);
  const { data_file: dataFile } = context.options;
  if (dataFile === undefined) return write(context, plan, undefined);
  await context.withNewFile(dataFile, (data) => write(context, plan, data));
}

async function write(
  { file, host, signal }: FormatCreateContext<Qcow2CreateOptions>,
  plan: CreationPlan,
  data: Child | undefined,
): Promise<void> {
  const header = newHeader(plan);
  const extensions: Extensions = { ...noExtensions(), dataFile: plan.options.data_file };
  const fresh = freshImage(header, extensions);
  let written = 0;
  while (written < fresh.length && file.tryWriteNow(written, fresh.subarray(written, written + NOW_MAX))) {
    written += NOW_MAX;
  }
  if (written < fresh.length) await file.write(written, fresh.subarray(written));
  await file.flush();
  const image = new Qcow2Image({
    file,
    host,
    node: '',
    header,
    extensions,
    backingName: undefined,
    settings: defaultSettings(header, layoutOf(header)),
    writable: true,
    child: (name) => (name === 'data-file' ? data : undefined),
    event: () => undefined,
  });
  attachWriteBack(image);
  await image.refcounts.load();
  image.indexMetadata();
  try {
    await resize(image, plan.size, { preallocation: plan.preallocation });
  } catch (error) {
    if (error instanceof BlockError && error.code === 'EFBIG') throw error;
    throw addContext('Could not resize image', error);
  }
  const { backing_file: filename, backing_fmt: format = '' } = plan.options;
  if (filename !== undefined) await changeBacking(image, { filename, format });
  if (plan.encryption !== undefined) {
    await addEncryption(image, plan.encryption, signal);
    await zeroPreallocated(image, 0, plan.size, plan.preallocation);
  }
  await markClean(image);
  await flushAll(image);
}

export function newHeader({
  version,
  clusterBits,
  refcountOrder,
  compression,
  encryption,
  options,
}: CreationPlan): Qcow2Header {
  let incompatible = 0n;
  if (options.data_file !== undefined) incompatible |= Incompatible.dataFile;
  if (compression !== 'zlib') incompatible |= Incompatible.compression;
  if (options.extended_l2) incompatible |= Incompatible.extendedL2;
  return {
    version,
    backingOffset: 0,
    backingLength: 0,
    clusterBits,
    size: 0,
    cryptMethod: encryption === undefined ? CryptMethod.none : CryptMethod.luks,
    l1Entries: 0,
    l1Offset: 0,
    refcountTableOffset: 2 ** clusterBits,
    refcountTableClusters: 1,
    snapshotCount: 0,
    snapshotTableOffset: 0,
    incompatible,
    compatible: options.lazy_refcounts ? Compatible.lazyRefcounts : 0n,
    autoclear: options.data_file_raw ? Autoclear.rawDataFile : 0n,
    refcountOrder,
    headerLength: HEADER_BYTES,
    compressionType: CompressionType[compression],
    unknown: new Uint8Array(0),
  };
}

/** The first clusters, of a disk without a byte (Q-CR-3). */
function freshImage(header: Qcow2Header, extensions: Extensions): Uint8Array {
  const clusterSize = 2 ** header.clusterBits;
  const bytes = new Uint8Array(FRESH_CLUSTERS * clusterSize);
  bytes.set(encodeHeaderCluster({ header, extensions, backingName: undefined }));
  setU64(viewOf(bytes), clusterSize, 2 * clusterSize);
  const block = viewOf(bytes.subarray(2 * clusterSize));
  const width = refcountWidth(header.refcountOrder);
  for (let cluster = 0; cluster < FRESH_CLUSTERS; cluster++) width.set(block, cluster, 1);
  return bytes;
}
