/** VDI files as plain bytes, made and read without the driver: a second opinion on what it does (V-1 to V-3). */

export const FREE = 0xffffffff;
export const ZERO = 0xfffffffe;

export type VdiField =
  | 'signature'
  | 'version'
  | 'headerSize'
  | 'type'
  | 'flags'
  | 'mapOffset'
  | 'dataOffset'
  | 'cylinders'
  | 'heads'
  | 'sectors'
  | 'sectorSize'
  | 'unused'
  | 'diskSizeLow'
  | 'diskSizeHigh'
  | 'blockSize'
  | 'blockExtra'
  | 'blocks'
  | 'allocated'
  | 'uuid'
  | 'modificationUuid'
  | 'linkUuid'
  | 'parentUuid'
  | 'logicalCylinders'
  | 'logicalHeads'
  | 'logicalSectors'
  | 'logicalSectorSize';

/** Byte offsets of the 32-bit fields of version 1.1; of UUIDs, of their first word. */
export const VDI_FIELDS: Readonly<Record<VdiField, number>> = {
  signature: 0x40,
  version: 0x44,
  headerSize: 0x48,
  type: 0x4c,
  flags: 0x50,
  mapOffset: 0x154,
  dataOffset: 0x158,
  cylinders: 0x15c,
  heads: 0x160,
  sectors: 0x164,
  sectorSize: 0x168,
  unused: 0x16c,
  diskSizeLow: 0x170,
  diskSizeHigh: 0x174,
  blockSize: 0x178,
  blockExtra: 0x17c,
  blocks: 0x180,
  allocated: 0x184,
  uuid: 0x188,
  modificationUuid: 0x198,
  linkUuid: 0x1a8,
  parentUuid: 0x1b8,
  logicalCylinders: 0x1c8,
  logicalHeads: 0x1cc,
  logicalSectors: 0x1d0,
  logicalSectorSize: 0x1d4,
};

export interface VdiPlan {
  readonly diskSize: number;
  readonly blockSize?: number;
  /** Entries of the map; the rest is free. */
  readonly map?: readonly number[];
  readonly mapOffset?: number;
  readonly dataOffset?: number;
  readonly blockExtra?: number;
  readonly headerSize?: number;
  readonly type?: number;
  /** Slots whose bytes are in the file; default: all up to the highest in the map. Slot n is filled with n+1. */
  readonly slots?: number;
}

export function makeVdi(plan: VdiPlan): Uint8Array {
  const { diskSize, blockSize = 1 << 20, map = [], blockExtra = 0, headerSize = 0x190, type = 1 } = plan;
  const blocks = Math.ceil(diskSize / blockSize);
  const mapOffset = plan.mapOffset ?? 0x200;
  const dataOffset = plan.dataOffset ?? mapOffset + Math.ceil((blocks * 4) / 512) * 512;
  const used = map.filter((entry) => entry < ZERO);
  const slots = plan.slots ?? Math.max(0, ...used.map((entry) => entry + 1));
  const bytes = new Uint8Array(dataOffset + slots * (blockSize + blockExtra));
  const view = new DataView(bytes.buffer);
  const set = (field: VdiField, value: number) => view.setUint32(VDI_FIELDS[field], value, true);
  bytes.set(new TextEncoder().encode('<<< Oracle VM VirtualBox Disk Image >>>\n'));
  set('signature', 0xbeda107f);
  set('version', 0x00010001);
  set('headerSize', headerSize);
  set('type', type);
  set('mapOffset', mapOffset);
  set('dataOffset', dataOffset);
  set('sectorSize', 512);
  set('diskSizeLow', diskSize % 2 ** 32);
  set('diskSizeHigh', Math.floor(diskSize / 2 ** 32));
  set('blockSize', blockSize);
  set('blockExtra', blockExtra);
  set('blocks', blocks);
  set('allocated', used.length);
  for (let i = 0; i < 16; i++) {
    bytes[VDI_FIELDS.uuid + i] = i + 1;
    bytes[VDI_FIELDS.modificationUuid + i] = 0x80 + i;
  }
  if (headerSize >= 0x190 && mapOffset >= 472) set('logicalSectorSize', 512);
  for (let block = 0; block < blocks; block++) view.setUint32(mapOffset + block * 4, map[block] ?? FREE, true);
  for (let slot = 0; slot < slots; slot++) {
    const start = dataOffset + slot * (blockSize + blockExtra) + blockExtra;
    bytes.fill(slot + 1, start, start + blockSize);
  }
  return bytes;
}

export interface VdiView {
  readonly diskSize: number;
  readonly blockSize: number;
  readonly dataOffset: number;
  readonly allocated: number;
  readonly map: readonly number[];
  /** What is wrong with it: entries past the blocks or the file's end, or used twice. */
  readonly problems: readonly string[];
  /** What the guest sees; blocks that are wrong are zeroes. */
  content(): Uint8Array;
}

/** Reads a version 1.1 image as the format's description says. Throws when it is none. */
export function readVdi(bytes: Uint8Array): VdiView {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const get = (field: VdiField) => view.getUint32(VDI_FIELDS[field], true);
  if (bytes.length < 512 || get('signature') !== 0xbeda107f || get('version') !== 0x00010001) {
    throw new Error('this is no VDI of version 1.1');
  }
  const diskSize = get('diskSizeLow') + get('diskSizeHigh') * 2 ** 32;
  const blockSize = get('blockSize');
  const blocks = get('blocks');
  const dataOffset = get('dataOffset');
  const extra = get('blockExtra');
  const problems: string[] = [];
  if (get('mapOffset') + blocks * 4 > bytes.length) throw new Error('the map is not all there');
  if (get('mapOffset') + blocks * 4 > dataOffset) problems.push('the map reaches into the data');
  if (blocks * blockSize < diskSize) problems.push('the map is too short for the disk');
  const map = Array.from({ length: blocks }, (_, block) => view.getUint32(get('mapOffset') + block * 4, true));
  const start = (slot: number) => dataOffset + slot * (blockSize + extra) + extra;
  const users = new Map<number, number>();
  const good = map.map((slot, block) => {
    if (slot >= ZERO) return false;
    const other = users.get(slot);
    users.set(slot, block);
    const length = bytes.length;
    if (slot >= blocks) problems.push(`block ${block} is in slot ${slot} of ${blocks}`);
    else if (other !== undefined) problems.push(`blocks ${other} and ${block} share slot ${slot}`);
    else if (start(slot) + blockSize > length) problems.push(`block ${block} ends past the file's end, ${length}`);
    else return true;
    return false;
  });
  return {
    diskSize,
    blockSize,
    dataOffset,
    allocated: get('allocated'),
    map,
    problems,
    content() {
      const content = new Uint8Array(blocks * blockSize);
      map.forEach((slot, block) => {
        if (good[block]) content.set(bytes.subarray(start(slot), start(slot) + blockSize), block * blockSize);
      });
      return content.slice(0, diskSize);
    },
  };
}
