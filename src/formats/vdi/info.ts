/** What `info` tells of an image (V-31). */
import { formatUuid } from '../../bytes/uuid.ts';
import { isZero } from '../../bytes/zero.ts';
import type { DriverInfo, SpecificData } from '../../core/driver.ts';
import { type Geometry, ImageType, isOldLayout, type VdiHeader } from './header.ts';

const TYPE_NAMES: Readonly<Record<number, string>> = {
  [ImageType.dynamic]: 'dynamic',
  [ImageType.static]: 'static',
  [ImageType.undo]: 'undo',
  [ImageType.differencing]: 'differencing',
};

/** `leaked`: blocks of the file that no entry names, where the map was read. */
export function info(header: VdiHeader, leaked: number | undefined): DriverInfo {
  const { geometry, logicalGeometry } = header;
  const data: SpecificData = {
    version: `${header.version >>> 16}.${header.version & 0xffff}`,
    'image-type': TYPE_NAMES[header.type] ?? `unknown (${header.type})`,
    flags: header.flags,
    uuid: formatUuid(header.uuid),
    'modification-uuid': formatUuid(header.modificationUuid),
    ...(isZero(header.linkUuid) ? {} : parentData(header)),
    ...(header.description === '' ? {} : { description: header.description }),
    ...(hasGeometry(geometry) ? { geometry: geometryData(geometry) } : {}),
    ...(logicalGeometry && hasGeometry(logicalGeometry) ? { 'logical-geometry': geometryData(logicalGeometry) } : {}),
    ...(Number(header.diskSize) % 512 === 0 ? {} : { 'stored-disk-size': Number(header.diskSize) }),
    blocks: header.blocks,
    'allocated-blocks': header.allocated,
    ...(leaked === undefined ? {} : { 'leaked-blocks': leaked }),
    'block-map-offset': header.mapOffset,
    'data-offset': header.dataOffset,
  };
  return { clusterSize: header.blockSize, dirty: false, specific: { type: 'vdi', data } };
}

/** Version 0.2 does not tell the state of the parent. */
function parentData(header: VdiHeader): SpecificData {
  const link = { 'link-uuid': formatUuid(header.linkUuid) };
  return isOldLayout(header) ? link : { ...link, 'parent-modification-uuid': formatUuid(header.parentUuid) };
}

function hasGeometry(geometry: Geometry): boolean {
  return geometry.cylinders !== 0 || geometry.heads !== 0 || geometry.sectors !== 0;
}

function geometryData({ cylinders, heads, sectors, sectorSize }: Geometry): SpecificData {
  return { cylinders, heads, sectors, 'sector-size': sectorSize };
}
