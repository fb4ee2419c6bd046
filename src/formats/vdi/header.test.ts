import { describe, expect, test } from 'vitest';
import { makeVdi, VDI_FIELDS } from '../../../tests/support/vdi-bytes.ts';
import { readU32, readU64, writeU32, writeU64 } from '../../bytes/endian.ts';
import {
  DESCRIPTION_MAX,
  decodeHeader,
  encodeHeader,
  HEADER_BYTES,
  headerEnd,
  isOldLayout,
  patchHeader,
  SIGNATURE,
  VERSION_0_2,
  VERSION_1_0,
} from './header.ts';

/** A header of version 0.2 as its layout has it: no offsets, all fields 4 bytes earlier. */
function oldHeader(blocks: number): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  writeU32(bytes, 0x40, SIGNATURE);
  writeU32(bytes, 0x44, VERSION_0_2);
  writeU32(bytes, 72, 1);
  writeU32(bytes, 76, 0);
  bytes.set(new TextEncoder().encode('an old one'), 80);
  for (const [i, value] of [7, 16, 63, 512].entries()) writeU32(bytes, 336 + i * 4, value);
  writeU64(bytes, 352, blocks * 1048576 - 512);
  writeU32(bytes, 360, 1048576);
  writeU32(bytes, 364, blocks);
  writeU32(bytes, 368, 2);
  for (let i = 0; i < 48; i++) bytes[372 + i] = i + 1;
  return bytes;
}

describe('a header of version 1.1 (V-1)', () => {
  const bytes = makeVdi({ diskSize: 5 << 20, map: [0, 1], blockExtra: 0 });

  test('has each field where the layout says', () => {
    const view = bytes.slice(0, HEADER_BYTES);
    writeU32(view, VDI_FIELDS.flags, 0x301);
    writeU32(view, VDI_FIELDS.blockExtra, 512);
    writeU32(view, VDI_FIELDS.cylinders, 10);
    writeU32(view, VDI_FIELDS.logicalHeads, 255);
    view.set(new TextEncoder().encode('höhe'), 0x54);
    const header = decodeHeader(view);
    expect(header).toMatchObject({
      signature: SIGNATURE,
      version: 0x10001,
      headerSize: 0x190,
      type: 1,
      flags: 0x301,
      description: 'höhe',
      mapOffset: 0x200,
      dataOffset: 0x400,
      geometry: { cylinders: 10, heads: 0, sectors: 0, sectorSize: 512 },
      logicalGeometry: { cylinders: 0, heads: 255, sectors: 0, sectorSize: 512 },
      diskSize: 5 << 20,
      blockSize: 1 << 20,
      blockExtra: 512,
      blocks: 5,
      allocated: 2,
    });
    expect([...header.uuid]).toEqual(Array.from({ length: 16 }, (_, i) => i + 1));
    expect([...header.modificationUuid]).toEqual(Array.from({ length: 16 }, (_, i) => 0x80 + i));
    expect(headerEnd(header)).toBe(472);
    expect(isOldLayout(header)).toBe(false);
  });

  test('of 384 bytes has no logical geometry, whatever lies there', () => {
    const view = bytes.slice(0, HEADER_BYTES);
    writeU32(view, VDI_FIELDS.headerSize, 0x180);
    const header = decodeHeader(view);
    expect(header.logicalGeometry).toBeUndefined();
    expect(headerEnd(header)).toBe(456);
  });

  test('of 400 bytes whose map begins at once behind 384 has none either', () => {
    const view = bytes.slice(0, HEADER_BYTES);
    writeU32(view, VDI_FIELDS.mapOffset, 456);
    expect(decodeHeader(view).logicalGeometry).toBeUndefined();
  });

  test('gives a disk size beyond the safe integers as it is', () => {
    const view = bytes.slice(0, HEADER_BYTES);
    writeU32(view, VDI_FIELDS.diskSizeLow, 0xffffffff);
    writeU32(view, VDI_FIELDS.diskSizeHigh, 0xffffffff);
    expect(decodeHeader(view).diskSize).toBe(0xffffffffffffffffn);
  });

  test('may have a description without a zero at its end, and one that is no UTF-8', () => {
    const view = bytes.slice(0, HEADER_BYTES).fill(0x61, 0x54, 0x154);
    expect(decodeHeader(view).description).toBe('a'.repeat(256));
    view[0x54] = 0xff;
    expect(decodeHeader(view).description).toHaveLength(256);
  });
});

describe('a header of version 0.2 (V-62)', () => {
  test('has its fields four bytes earlier, and its offsets follow from the number of blocks', () => {
    const header = decodeHeader(oldHeader(9));
    expect(header).toMatchObject({
      version: VERSION_0_2,
      headerSize: 348,
      type: 1,
      description: 'an old one',
      mapOffset: 420,
      dataOffset: 420 + 36,
      geometry: { cylinders: 7, heads: 16, sectors: 63, sectorSize: 512 },
      logicalGeometry: undefined,
      diskSize: 9 * 1048576 - 512,
      blockSize: 1048576,
      blockExtra: 0,
      blocks: 9,
      allocated: 2,
    });
    expect(header.uuid[0]).toBe(1);
    expect(header.modificationUuid[0]).toBe(17);
    expect(header.linkUuid[0]).toBe(33);
    expect(header.parentUuid.every((byte) => byte === 0)).toBe(true);
    expect(isOldLayout(header)).toBe(true);
    expect(headerEnd(header)).toBe(420);
  });

  test('is patched in its own layout, and only there', () => {
    const bytes = oldHeader(9);
    const before = bytes.slice();
    const header = decodeHeader(bytes);
    header.allocated = 5;
    header.diskSize = 1024;
    header.modificationUuid = new Uint8Array(16).fill(0xaa);
    patchHeader(bytes, header);
    expect(readU32(bytes, 368)).toBe(5);
    expect(readU64(bytes, 352)).toBe(1024);
    const changed = [...bytes.keys()].filter((at) => bytes[at] !== before[at]);
    expect(changed.every((at) => (at >= 352 && at < 372) || (at >= 388 && at < 404))).toBe(true);
  });
});

describe('version 1.0', () => {
  test('has the layout of 1.1', () => {
    const bytes = makeVdi({ diskSize: 1 << 20, headerSize: 0x180 }).slice(0, HEADER_BYTES);
    writeU32(bytes, 0x44, VERSION_1_0);
    expect(decodeHeader(bytes)).toMatchObject({ version: VERSION_1_0, mapOffset: 0x200, blocks: 1 });
  });
});

describe('patching', () => {
  test('keeps what no field covers: banner, flags, unknown bytes', () => {
    const bytes = makeVdi({ diskSize: 3 << 20, headerSize: 0x180 }).slice(0, HEADER_BYTES);
    bytes.fill(0x77, 0x1d8, 0x200);
    const before = bytes.slice();
    patchHeader(bytes, decodeHeader(bytes));
    expect(bytes).toEqual(before);
  });
});

describe('a new header', () => {
  test('is read as it was written, banner first', () => {
    const header = decodeHeader(makeVdi({ diskSize: 5 << 20, map: [0] }));
    header.description = 'd'.repeat(DESCRIPTION_MAX);
    const bytes = encodeHeader(header, '<<< some text >>>');
    expect(bytes).toHaveLength(HEADER_BYTES);
    expect(new TextDecoder().decode(bytes.subarray(0, 18))).toBe('<<< some text >>>\n');
    expect(decodeHeader(bytes)).toEqual(header);
  });
});
