/** Header extensions (Q-EXT): a list of typed records behind the header's fields. */

import { alignUp } from '../../bytes/align.ts';
import { getU64, setU64, viewOf } from '../../bytes/big-endian.ts';
import { BlockError } from '../../core/errors.ts';

const ExtensionType = {
  end: 0,
  backingFormat: 0xe2792aca,
  featureNames: 0x6803f857,
  encryption: 0x0537be77,
  bitmaps: 0x23852875,
  dataFile: 0x44415441,
} as const;

export interface EncryptionPointer {
  readonly offset: number | bigint;
  readonly length: number | bigint;
}

export interface BitmapsExtension {
  readonly count: number;
  readonly directorySize: number | bigint;
  readonly directoryOffset: number | bigint;
}

export interface FeatureName {
  /** 0 incompatible, 1 compatible, 2 autoclear. */
  readonly word: number;
  readonly bit: number;
  readonly name: string;
}

/** What the extensions say. Unknown ones are kept verbatim, in their order. */
export interface Extensions {
  backingFormat: string | undefined;
  dataFile: string | undefined;
  encryption: EncryptionPointer | undefined;
  bitmaps: BitmapsExtension | undefined;
  featureNames: readonly FeatureName[];
  readonly unknown: { readonly type: number; readonly data: Uint8Array }[];
}

/** Names that are written (Q-EXT-3). */
export const FEATURE_NAMES: readonly FeatureName[] = [
  { word: 0, bit: 0, name: 'dirty bit' },
  { word: 0, bit: 1, name: 'corrupt bit' },
  { word: 0, bit: 2, name: 'external data file' },
  { word: 0, bit: 3, name: 'compression type' },
  { word: 0, bit: 4, name: 'extended L2 entries' },
  { word: 1, bit: 0, name: 'lazy refcounts' },
  { word: 2, bit: 0, name: 'bitmaps' },
  { word: 2, bit: 1, name: 'raw external data' },
];

const FEATURE_NAME_BYTES = 48;
/** The type and length in front of each. */
const RECORD_HEADER = 8;
const BACKING_FORMAT_MAX = 16;

export function noExtensions(): Extensions {
  return {
    backingFormat: undefined,
    dataFile: undefined,
    encryption: undefined,
    bitmaps: undefined,
    featureNames: [],
    unknown: [],
  };
}

/**
 * Reads the records in `area`, which goes from the header's end to the backing name or the cluster's end. Throws
 * BlockError EINVAL: a record does not fit, a known one comes twice, or its data cannot be.
 */
export function decodeExtensions(area: Uint8Array): Extensions {
  const found = noExtensions();
  const seen = new Set<number>();
  const view = viewOf(area);
  for (let at = 0; at + RECORD_HEADER <= area.length; ) {
    const type = view.getUint32(at);
    if (type === ExtensionType.end) break;
    const length = view.getUint32(at + 4);
    at += RECORD_HEADER;
    if (length > area.length - at) throw new BlockError('EINVAL', 'Header extension too large');
    const data = area.slice(at, at + length);
    const decode = DECODERS[type];
    if (decode === undefined) found.unknown.push({ type, data });
    else {
      if (seen.has(type)) throw new BlockError('EINVAL', `Header extension 0x${type.toString(16)} is there twice`);
      seen.add(type);
      decode(data, found);
    }
    at += alignUp(length, 8);
  }
  return found;
}

const DECODERS: Readonly<Record<number, (data: Uint8Array, found: Extensions) => void>> = {
  [ExtensionType.backingFormat](data, found) {
    if (data.length >= BACKING_FORMAT_MAX) {
      throw new BlockError('EINVAL', `ERROR: ext_backing_format: len=${data.length} too large (>=16)`);
    }
    found.backingFormat = text(data);
  },
  [ExtensionType.dataFile](data, found) {
    found.dataFile = text(data);
  },
  [ExtensionType.featureNames](data, found) {
    found.featureNames = decodeFeatureNames(data);
  },
  [ExtensionType.encryption](data, found) {
    if (data.length !== 16) {
      throw new BlockError('EINVAL', `CRYPTO header extension size ${data.length}, but expected size 16`);
    }
    found.encryption = { offset: getU64(viewOf(data), 0), length: getU64(viewOf(data), 8) };
  },
  [ExtensionType.bitmaps](data, found) {
    if (data.length !== 24) throw new BlockError('EINVAL', 'bitmaps_ext: Invalid extension length');
    const view = viewOf(data);
    if (view.getUint32(4) !== 0) throw new BlockError('EINVAL', 'bitmaps_ext: Reserved field is not zero');
    const directorySize = getU64(view, 8);
    found.bitmaps = { count: view.getUint32(0), directorySize, directoryOffset: getU64(view, 16) };
  },
};

function text(data: Uint8Array): string {
  return new TextDecoder().decode(data);
}

function decodeFeatureNames(data: Uint8Array): FeatureName[] {
  const names: FeatureName[] = [];
  for (let at = 0; at + FEATURE_NAME_BYTES <= data.length; at += FEATURE_NAME_BYTES) {
    const name = data.subarray(at + 2, at + FEATURE_NAME_BYTES);
    const end = name.indexOf(0);
    const word = data[at] ?? 0;
    names.push({ word, bit: data[at + 1] ?? 0, name: text(end < 0 ? name : name.subarray(0, end)) });
  }
  return names;
}

/** Where the data of the record of bitmaps are in cluster 0; undefined: there is none. */
export function findBitmaps(
  { headerLength }: { readonly headerLength: number },
  cluster: Uint8Array,
): number | undefined {
  const view = viewOf(cluster);
  for (let at = headerLength; at + RECORD_HEADER <= cluster.length; ) {
    const type = view.getUint32(at);
    if (type === ExtensionType.end) return undefined;
    if (type === ExtensionType.bitmaps) return at + RECORD_HEADER;
    at += RECORD_HEADER + alignUp(view.getUint32(at + 4), 8);
  }
  return undefined;
}

/** All records and the end, in the order of Q-HDR-8. `withNames`: the table of feature names too. */
export function encodeExtensions(extensions: Extensions, withNames: boolean): Uint8Array {
  const records: { type: number; data: Uint8Array }[] = [];
  const add = (type: number, data: Uint8Array | undefined) => data !== undefined && records.push({ type, data });
  const encodeText = (value: string | undefined) => (value === undefined ? undefined : new TextEncoder().encode(value));
  add(ExtensionType.backingFormat, encodeText(extensions.backingFormat));
  add(ExtensionType.dataFile, encodeText(extensions.dataFile));
  add(ExtensionType.encryption, extensions.encryption && encodePointer(extensions.encryption));
  if (withNames) add(ExtensionType.featureNames, encodeFeatureNames());
  add(ExtensionType.bitmaps, extensions.bitmaps && encodeBitmaps(extensions.bitmaps));
  records.push(...extensions.unknown);
  const total = records.reduce((sum, { data }) => sum + RECORD_HEADER + alignUp(data.length, 8), RECORD_HEADER);
  const bytes = new Uint8Array(total);
  const view = viewOf(bytes);
  let at = 0;
  for (const { type, data } of records) {
    view.setUint32(at, type);
    view.setUint32(at + 4, data.length);
    bytes.set(data, at + RECORD_HEADER);
    at += RECORD_HEADER + alignUp(data.length, 8);
  }
  return bytes;
}

function encodePointer({ offset, length }: EncryptionPointer): Uint8Array {
  const bytes = new Uint8Array(16);
  setU64(viewOf(bytes), 0, offset);
  setU64(viewOf(bytes), 8, length);
  return bytes;
}

/** The data of that record. */
export function encodeBitmaps({ count, directorySize, directoryOffset }: BitmapsExtension): Uint8Array {
  const bytes = new Uint8Array(24);
  const view = viewOf(bytes);
  view.setUint32(0, count);
  setU64(view, 8, directorySize);
  setU64(view, 16, directoryOffset);
  return bytes;
}

function encodeFeatureNames(): Uint8Array {
  const bytes = new Uint8Array(FEATURE_NAMES.length * FEATURE_NAME_BYTES);
  for (const [index, { word, bit, name }] of FEATURE_NAMES.entries()) {
    bytes[index * FEATURE_NAME_BYTES] = word;
    bytes[index * FEATURE_NAME_BYTES + 1] = bit;
    bytes.set(new TextEncoder().encode(name), index * FEATURE_NAME_BYTES + 2);
  }
  return bytes;
}
