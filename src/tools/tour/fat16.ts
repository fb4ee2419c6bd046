/** Writes a small FAT16 file system: what the guided tour uses where no mkfs is installed. */

const SECTOR = 512;
const SECTORS_PER_CLUSTER = 4;
const CLUSTER = SECTOR * SECTORS_PER_CLUSTER;
const ROOT_ENTRIES = 512;
const ENTRY = 32;
const END_OF_CHAIN = 0xffff;
/** 1 January 2024, midnight, in FAT's coding. */
const DATE = ((2024 - 1980) << 9) | (1 << 5) | 1;

export interface FatFile {
  /** Upper case, at most eight characters, a dot and three. */
  readonly name: string;
  readonly content: Uint8Array;
}

const ascii = (text: string) => new TextEncoder().encode(text);

function writeBootSector(image: DataView, sectors: number, fatSectors: number): void {
  const bytes = new Uint8Array(image.buffer);
  bytes.set([0xeb, 0x3c, 0x90]);
  bytes.set(ascii('MSDOS5.0'), 3);
  image.setUint16(11, SECTOR, true);
  image.setUint8(13, SECTORS_PER_CLUSTER);
  image.setUint16(14, 1, true);
  image.setUint8(16, 2);
  image.setUint16(17, ROOT_ENTRIES, true);
  image.setUint16(19, sectors, true);
  image.setUint8(21, 0xf8);
  image.setUint16(22, fatSectors, true);
  image.setUint16(24, 63, true);
  image.setUint16(26, 16, true);
  image.setUint8(36, 0x80);
  image.setUint8(38, 0x29);
  image.setUint32(39, 0x64697363, true);
  bytes.set(ascii('NO NAME    FAT16   '), 43);
  image.setUint16(510, 0xaa55, true);
}

function shortName(name: string): Uint8Array {
  const [base = '', extension = ''] = name.split('.');
  return ascii(base.padEnd(8) + extension.padEnd(3));
}

/** An image of `size` bytes (at least 9 MiB, less than 32 MiB: the cluster count decides which FAT it is) with `files` in its root folder. */
export function fat16Image(size: number, files: readonly FatFile[]): Uint8Array {
  const sectors = size / SECTOR;
  const fatSectors = Math.ceil((sectors / SECTORS_PER_CLUSTER + 2) / (SECTOR / 2));
  const rootStart = (1 + 2 * fatSectors) * SECTOR;
  const dataStart = rootStart + ROOT_ENTRIES * ENTRY;

  const bytes = new Uint8Array(size);
  const image = new DataView(bytes.buffer);
  writeBootSector(image, sectors, fatSectors);

  const setFat = (cluster: number, value: number) => {
    for (const copy of [0, 1]) image.setUint16((1 + copy * fatSectors) * SECTOR + cluster * 2, value, true);
  };
  setFat(0, 0xfff8);
  setFat(1, END_OF_CHAIN);

  let cluster = 2;
  files.forEach(({ name, content }, index) => {
    const entry = rootStart + index * ENTRY;
    const count = Math.ceil(content.length / CLUSTER);
    bytes.set(shortName(name), entry);
    image.setUint8(entry + 11, 0x20);
    for (const place of [16, 18, 24]) image.setUint16(entry + place, DATE, true);
    image.setUint16(entry + 26, count === 0 ? 0 : cluster, true);
    image.setUint32(entry + 28, content.length, true);
    bytes.set(content, dataStart + (cluster - 2) * CLUSTER);
    for (let i = 0; i < count; i++) setFat(cluster + i, i === count - 1 ? END_OF_CHAIN : cluster + i + 1);
    cluster += count;
  });
  return bytes;
}
