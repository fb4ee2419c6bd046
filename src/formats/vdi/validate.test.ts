import { describe, expect, test } from 'vitest';
import { makeVdi, VDI_FIELDS, type VdiField } from '../../../tests/support/vdi-bytes.ts';
import { writeU32 } from '../../bytes/endian.ts';
import { BlockError } from '../../core/errors.ts';
import { decodeHeader, HEADER_BYTES, type VdiHeader } from './header.ts';
import {
  checkHeader,
  checkMapFits,
  isBlockSize,
  MAX_BLOCKS,
  MAX_DISK_SIZE,
  maxDiskSize,
  usableSize,
} from './validate.ts';

const MIB = 1 << 20;

function header(fields: Partial<Record<VdiField, number>>): VdiHeader {
  const bytes = makeVdi({ diskSize: 4 * MIB }).slice(0, HEADER_BYTES);
  for (const [field, value] of Object.entries(fields)) writeU32(bytes, VDI_FIELDS[field as VdiField], value);
  return decodeHeader(bytes);
}

function refusal(fields: Partial<Record<VdiField, number>>): string {
  try {
    checkHeader(header(fields));
  } catch (error) {
    if (error instanceof BlockError) return `${error.code} ${error.message}`;
    throw error;
  }
  return 'none';
}

/** One bad field after the other, in the order of V-11, with what is said of it. */
const REFUSALS: readonly (readonly [Partial<Record<VdiField, number>>, string])[] = [
  [
    { diskSizeHigh: 0x20000 },
    'ENOTSUP Unsupported VDI image size (size is 0x2000000400000, max supported is 0x1fffff8000000)',
  ],
  [{ signature: 0xabc }, 'EINVAL Image not in VDI format (bad signature 00000abc)'],
  [{ version: 0x00020003 }, 'ENOTSUP unsupported VDI image (version 2.3)'],
  [{ sectorSize: 4096 }, 'ENOTSUP unsupported VDI image (sector size 4096 is not 512)'],
  [{ blockSize: 1000000 }, 'ENOTSUP unsupported VDI image (block size 1000000 is not 1048576)'],
  [{ blocks: 3 }, 'ENOTSUP unsupported VDI image (disk size 4194304, image bitmap has room for 3145728)'],
  [{ linkUuid: 1 }, 'ENOTSUP unsupported VDI image (non-NULL link UUID)'],
  [{ parentUuid: 1 }, 'ENOTSUP unsupported VDI image (non-NULL parent UUID)'],
  [{ blocks: 0x1fffff81 }, 'ENOTSUP unsupported VDI image (too many blocks 536870785, max is 536870784)'],
];

describe('what is refused (V-11)', () => {
  test.each(REFUSALS)('%j', (fields, message) => {
    expect(refusal(fields)).toBe(message);
  });

  test('in the order of the rule, when several things are wrong', () => {
    for (let first = 0; first < REFUSALS.length; first++) {
      const all = REFUSALS.slice(first)
        .map(([fields]) => fields)
        .reverse();
      // A map too short and one too long are told by one field: the earlier check decides which is there.
      const merged = Object.assign({}, ...all, first <= 5 ? { blocks: 3 } : {});
      expect(refusal(merged)).toContain(REFUSALS[first]?.[1].slice(0, 40));
    }
  });

  test.each<[Partial<Record<VdiField, number>>, string]>([
    [{ type: 0 }, 'image type 0'],
    [{ type: 5 }, 'image type 5'],
    [{ type: 3 }, 'image type 3, an undo image of early VirtualBox: what its blocks mean is not known'],
    [{ type: 2, linkUuid: 1 }, 'non-NULL link UUID'],
    [{ mapOffset: 455 }, 'block map offset 0x1c7 is inside the header'],
    [{ dataOffset: 0x20f }, 'data offset 0x20f is inside the block map'],
    [{ blockExtra: 3 }, 'block extra size 3'],
  ])('also what no writer makes: %j', (fields, what) => {
    expect(refusal(fields)).toBe(`ENOTSUP unsupported VDI image (${what})`);
  });

  test.each<Partial<Record<VdiField, number>>>([
    {},
    { version: 0x00010000 },
    { mapOffset: 0x1f3 },
    { dataOffset: 0x411 },
    { blockExtra: 512 },
    { blockSize: 256 * MIB },
    { type: 2 },
    { type: 4 },
    { type: 4, linkUuid: 1, parentUuid: 1 },
    { uuid: 0, modificationUuid: 0 },
    { flags: 0xffffffff },
    { allocated: 77 },
    { headerSize: 0 },
  ])('what opens (V-62, V-61): %j', (fields) => {
    expect(refusal(fields)).toBe('none');
  });
});

describe('block sizes', () => {
  test('are powers of two from 4 KiB to 256 MiB', () => {
    const good = Array.from({ length: 33 }, (_, power) => 2 ** power).filter(isBlockSize);
    expect(good).toEqual(Array.from({ length: 17 }, (_, i) => 4096 * 2 ** i));
    expect([0, 4095, 4097, 3 * MIB].some(isBlockSize)).toBe(false);
  });

  test('V-12: limit the disk by what a map can hold, and never beyond what can be opened', () => {
    expect(MAX_DISK_SIZE).toBe(0x1fffff8000000);
    expect(maxDiskSize(MIB)).toBe(MAX_DISK_SIZE);
    expect(maxDiskSize(4096)).toBe(MAX_BLOCKS * 4096);
    expect(maxDiskSize(256 * MIB)).toBe(MAX_DISK_SIZE);
  });
});

test('V-13: a disk size between sectors is used up to the next', () => {
  expect(usableSize(header({ diskSizeLow: 4 * MIB - 511 }))).toBe(4 * MIB);
  expect(usableSize(header({ diskSizeLow: 4 * MIB - 512 }))).toBe(4 * MIB - 512);
  expect(refusal({ diskSizeLow: 4 * MIB + 1 })).toBe(
    'ENOTSUP unsupported VDI image (disk size 4194816, image bitmap has room for 4194304)',
  );
});

describe('a map that the file cannot hold (V-14)', () => {
  test('is refused with the bytes that are missing', () => {
    expect(() => checkMapFits(header({}), 0x20f)).toThrow('its block map ends 1 bytes behind the end of the file');
    expect(() => checkMapFits(header({}), 0x210)).not.toThrow();
  });

  test('an empty disk needs none (V-43)', () => {
    expect(() => checkMapFits(header({ blocks: 0, diskSizeLow: 0 }), 512)).not.toThrow();
  });
});
