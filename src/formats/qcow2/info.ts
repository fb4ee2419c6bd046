/** What `info` tells of an image (Q-INFO-1). */
import type { DriverInfo, SpecificData } from '../../core/driver.ts';
import { BitmapFlag, type StoredBitmap } from './bitmaps/directory.ts';
import { encryptionInfo } from './encryption-info.ts';
import { Autoclear, Compatible, CompressionType, CryptMethod, Incompatible } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { l1EntriesFor, layoutOf } from './layout.ts';

export function info({ header, extensions, bitmaps, luks }: Qcow2Image): DriverInfo {
  const layout = layoutOf(header);
  const has = (feature: bigint) => (header.incompatible & feature) !== 0n;
  const isV3 = header.version >= 3;
  const raw = (header.autoclear & Autoclear.rawDataFile) !== 0n;
  const { dataFile } = extensions;
  const encrypted = header.cryptMethod !== CryptMethod.none;
  const data: SpecificData = {
    compat: isV3 ? '1.1' : '0.10',
    'compression-type': header.compressionType === CompressionType.zstd ? 'zstd' : 'zlib',
    ...(isV3 ? { 'lazy-refcounts': (header.compatible & Compatible.lazyRefcounts) !== 0n } : {}),
    ...(bitmaps.stored.length === 0 ? {} : { bitmaps: bitmaps.stored.map(bitmapInfo) }),
    'refcount-bits': layout.refcountBits,
    ...(dataFile === undefined ? {} : { 'data-file': dataFile }),
    ...(has(Incompatible.dataFile) && isV3 ? { 'data-file-raw': raw } : {}),
    ...(encrypted ? { encrypt: encryptionInfo(luks) } : {}),
    ...(isV3 ? { corrupt: has(Incompatible.corrupt), 'extended-l2': layout.extended } : {}),
  };
  return {
    clusterSize: layout.clusterSize,
    subclusterSize: layout.subclusterSize,
    vmStateOffset: l1EntriesFor(layout, Number(header.size)) * layout.l2Reach,
    dirty: has(Incompatible.dirty),
    ...(encrypted ? { encrypted } : {}),
    specific: { type: 'qcow2', data },
  };
}

function bitmapInfo({ name, granularity, flags }: StoredBitmap): SpecificData {
  const has = (flag: number) => (flags & flag) !== 0;
  return {
    flags: [...(has(BitmapFlag.inUse) ? ['in-use'] : []), ...(has(BitmapFlag.auto) ? ['auto'] : [])],
    name,
    granularity,
  };
}
