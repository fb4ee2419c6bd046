/** The header's bytes, all versions (V-1, V-2). Reading and writing only; what is acceptable is in validate.ts. */
import { readU32, readU64, writeU32, writeU64 } from '../../bytes/endian.ts';
import type { Child } from '../../core/driver.ts';

export const SIGNATURE = 0xbeda107f;
/** Bytes that are read to know an image; every header lies inside. */
export const HEADER_BYTES = 512;

/** Version words: major in the high half. */
export const VERSION_0_2 = 0x00000002;
export const VERSION_1_0 = 0x00010000;
export const VERSION_1_1 = 0x00010001;

/** Values of the header size field: it counts from behind the first 72 bytes. */
const HEADER_SIZE_PLAIN = 0x180;
export const HEADER_SIZE_LOGICAL = 0x190;
const PRE_HEADER = 72;

export const ImageType = { dynamic: 1, static: 2, undo: 3, differencing: 4 } as const;

export interface Geometry {
  readonly cylinders: number;
  readonly heads: number;
  readonly sectors: number;
  readonly sectorSize: number;
}

export interface VdiHeader {
  signature: number;
  version: number;
  /** As stored; 348 in version 0.2, which does not store it. */
  headerSize: number;
  type: number;
  flags: number;
  description: string;
  mapOffset: number;
  dataOffset: number;
  geometry: Geometry;
  /** Only in a header of 400 bytes. */
  logicalGeometry: Geometry | undefined;
  /** As stored; a bigint only when it is no safe integer. */
  diskSize: number | bigint;
  blockSize: number;
  /** Bytes in front of each block. */
  blockExtra: number;
  blocks: number;
  /** How many slots of the data area are in use, by the header's word. */
  allocated: number;
  uuid: Uint8Array;
  modificationUuid: Uint8Array;
  /** Image UUID of the parent; null in an image that is based on none. */
  linkUuid: Uint8Array;
  /** Modification UUID of the parent when this image was made over it. Version 0.2 does not store it. */
  parentUuid: Uint8Array;
}

/** Byte offsets of the fields. */
interface Layout {
  readonly type: number;
  readonly flags: number;
  readonly description: number;
  readonly geometry: number;
  readonly diskSize: number;
  readonly blockSize: number;
  readonly blocks: number;
  readonly allocated: number;
  readonly uuid: number;
  readonly modificationUuid: number;
  readonly linkUuid: number;
}

const LAYOUT_1: Layout = {
  type: 0x4c,
  flags: 0x50,
  description: 0x54,
  geometry: 0x15c,
  diskSize: 0x170,
  blockSize: 0x178,
  blocks: 0x180,
  allocated: 0x184,
  uuid: 0x188,
  modificationUuid: 0x198,
  linkUuid: 0x1a8,
};

const LAYOUT_0: Layout = {
  type: 72,
  flags: 76,
  description: 80,
  geometry: 336,
  diskSize: 352,
  blockSize: 360,
  blocks: 364,
  allocated: 368,
  uuid: 372,
  modificationUuid: 388,
  linkUuid: 404,
};

/** Fields that only 1.x has. */
const HEADER_SIZE_AT = 0x48;
const MAP_OFFSET_AT = 0x154;
const DATA_OFFSET_AT = 0x158;
const BLOCK_EXTRA_AT = 0x17c;
const PARENT_UUID_AT = 0x1b8;
const LOGICAL_GEOMETRY_AT = 0x1c8;

const DESCRIPTION_BYTES = 256;
/** In version 0.2 the map follows the header, and the data follow the map. */
const MAP_OFFSET_0 = 420;
const HEADER_SIZE_0 = 348;
const MAP_ENTRY_BYTES = 4;

/** The bytes of a file's header; zeroes where the file is shorter. */
export async function readHeaderBytes(file: Child): Promise<Uint8Array> {
  const bytes = new Uint8Array(HEADER_BYTES);
  if (!file.tryReadNow(0, bytes)) await file.read(0, bytes);
  return bytes;
}

/** Fields by layout; `bytes` holds {@link HEADER_BYTES} or more. Any content gives some header. */
export function decodeHeader(bytes: Uint8Array): VdiHeader {
  const version = readU32(bytes, 0x44);
  const old = version >>> 16 === 0;
  const at = old ? LAYOUT_0 : LAYOUT_1;
  const blocks = readU32(bytes, at.blocks);
  const headerSize = old ? HEADER_SIZE_0 : readU32(bytes, HEADER_SIZE_AT);
  const mapOffset = old ? MAP_OFFSET_0 : readU32(bytes, MAP_OFFSET_AT);
  // A map that begins inside the larger header leaves no room for it.
  const hasLogical = !old && headerSize >= HEADER_SIZE_LOGICAL && mapOffset >= PRE_HEADER + HEADER_SIZE_LOGICAL;
  return {
    signature: readU32(bytes, 0x40),
    version,
    headerSize,
    type: readU32(bytes, at.type),
    flags: readU32(bytes, at.flags),
    description: decodeText(bytes.subarray(at.description, at.description + DESCRIPTION_BYTES)),
    mapOffset,
    dataOffset: old ? MAP_OFFSET_0 + MAP_ENTRY_BYTES * blocks : readU32(bytes, DATA_OFFSET_AT),
    geometry: decodeGeometry(bytes, at.geometry),
    logicalGeometry: hasLogical ? decodeGeometry(bytes, LOGICAL_GEOMETRY_AT) : undefined,
    diskSize: readU64(bytes, at.diskSize),
    blockSize: readU32(bytes, at.blockSize),
    blockExtra: old ? 0 : readU32(bytes, BLOCK_EXTRA_AT),
    blocks,
    allocated: readU32(bytes, at.allocated),
    uuid: bytes.slice(at.uuid, at.uuid + 16),
    modificationUuid: bytes.slice(at.modificationUuid, at.modificationUuid + 16),
    linkUuid: bytes.slice(at.linkUuid, at.linkUuid + 16),
    parentUuid: old ? new Uint8Array(16) : bytes.slice(PARENT_UUID_AT, PARENT_UUID_AT + 16),
  };
}

/** Whether the version is of the layout without stored offsets. */
export function isOldLayout(header: VdiHeader): boolean {
  return header.version >>> 16 === 0;
}

/** Bytes from the file's start that are the header's own. */
export function headerEnd(header: VdiHeader): number {
  if (isOldLayout(header)) return MAP_OFFSET_0;
  return PRE_HEADER + (header.logicalGeometry === undefined ? HEADER_SIZE_PLAIN : HEADER_SIZE_LOGICAL);
}

/**
 * Puts the fields that change in an image's life into `bytes`, which hold the header as it was read: whatever else
 * is there stays. `diskSize` is a safe integer by then.
 */
export function patchHeader(bytes: Uint8Array, header: VdiHeader): void {
  const old = isOldLayout(header);
  const at = old ? LAYOUT_0 : LAYOUT_1;
  writeU64(bytes, at.diskSize, Number(header.diskSize));
  writeU32(bytes, at.blocks, header.blocks);
  writeU32(bytes, at.allocated, header.allocated);
  writeU32(bytes, at.type, header.type);
  bytes.set(header.modificationUuid, at.modificationUuid);
  bytes.set(header.linkUuid, at.linkUuid);
  if (old) return;
  bytes.set(header.parentUuid, PARENT_UUID_AT);
  writeU32(bytes, HEADER_SIZE_AT, header.headerSize);
  writeU32(bytes, MAP_OFFSET_AT, header.mapOffset);
  writeU32(bytes, DATA_OFFSET_AT, header.dataOffset);
  if (header.logicalGeometry !== undefined) encodeGeometry(bytes, LOGICAL_GEOMETRY_AT, header.logicalGeometry);
}

/** A whole header of version 1.x as {@link HEADER_BYTES} bytes, with `text` as the line for the eye. */
export function encodeHeader(header: VdiHeader, text: string): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  bytes.set(new TextEncoder().encode(`${text}\n`).subarray(0, 0x40));
  writeU32(bytes, 0x40, header.signature);
  writeU32(bytes, 0x44, header.version);
  writeU32(bytes, LAYOUT_1.flags, header.flags);
  bytes.set(new TextEncoder().encode(header.description), LAYOUT_1.description);
  encodeGeometry(bytes, LAYOUT_1.geometry, header.geometry);
  writeU32(bytes, LAYOUT_1.blockSize, header.blockSize);
  writeU32(bytes, BLOCK_EXTRA_AT, header.blockExtra);
  bytes.set(header.uuid, LAYOUT_1.uuid);
  patchHeader(bytes, header);
  return bytes;
}

/** Longest description, bytes of UTF-8: one is left for the zero at its end. */
export const DESCRIPTION_MAX = DESCRIPTION_BYTES - 1;

function decodeText(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}

function decodeGeometry(bytes: Uint8Array, at: number): Geometry {
  return {
    cylinders: readU32(bytes, at),
    heads: readU32(bytes, at + 4),
    sectors: readU32(bytes, at + 8),
    sectorSize: readU32(bytes, at + 12),
  };
}

function encodeGeometry(bytes: Uint8Array, at: number, geometry: Geometry): void {
  writeU32(bytes, at, geometry.cylinders);
  writeU32(bytes, at + 4, geometry.heads);
  writeU32(bytes, at + 8, geometry.sectors);
  writeU32(bytes, at + 12, geometry.sectorSize);
}
