import { describe, expect, test } from 'vitest';
import { chunkEnd, sparseRule, sparseRuns } from './zero-runs.ts';

const SECTOR = 512;

/** Data written for a disk of 4 MiB whose given sectors hold data, in pieces of 2 MiB, as `offset+length`. */
function written(sectors: readonly number[], sparseSize: number, requestAlign = 1): string[] {
  const disk = new Uint8Array(8192 * SECTOR);
  for (const sector of sectors) disk[sector * SECTOR + 5] = 1;
  const rule = sparseRule(sparseSize, requestAlign);
  const result: string[] = [];
  for (let offset = 0; offset < disk.length; offset += 2 << 20) {
    for (const run of sparseRuns(disk.subarray(offset, offset + (2 << 20)), offset, rule)) {
      if (!run.zero) result.push(`${offset + run.offset}+${run.length}`);
    }
  }
  return result;
}

describe('what is written of data with zeroes in it (T-CONV-4), as qemu-img 7.2 writes it', () => {
  test.each([
    { sectors: [1], size: 4096, writes: ['0+4096'] },
    { sectors: [1, 5, 17, 40], size: 4096, writes: ['0+4096', '8192+4096', '20480+4096'] },
    { sectors: [3, 20, 25, 4095, 4096], size: 4096, writes: ['0+4096', '8192+8192', '2093056+4096', '2097152+4096'] },
    { sectors: [3, 20, 40, 100, 300], size: 65536, writes: ['0+65536', '131072+65536'] },
    {
      sectors: [3, 20, 40, 100, 300],
      size: 512,
      writes: ['1536+512', '10240+512', '20480+512', '51200+512', '153600+512'],
    },
    // 6 KiB: granules of 4 KiB, and a run of one is too short.
    { sectors: [3, 20, 40, 100, 300], size: 6144, writes: ['0+12288', '20480+4096', '49152+4096', '151552+4096'] },
    // Runs longer than a piece: a piece counts when it is zero throughout.
    { sectors: [3, 20], size: 4 << 20, writes: ['0+2097152'] },
  ])('sectors $sectors, runs of $size', ({ sectors, size, writes }) => {
    expect(written(sectors, size)).toEqual(writes);
  });

  test('writes are aligned as the target needs', () => {
    expect(written([9], 512, 4096)).toEqual(['4096+4096']);
  });
});

describe('runs', () => {
  const rule = sparseRule(4096, 1);

  test('a buffer that is zero is one run, however short', () => {
    expect(sparseRuns(new Uint8Array(100), 0, rule)).toEqual([{ offset: 0, length: 100, zero: true }]);
  });

  test('granules are counted from the disk, not from the buffer', () => {
    const bytes = new Uint8Array(12288);
    bytes[4095] = 1;
    // The head up to byte 4096 of the disk is zero, but too short to leave out.
    expect(sparseRuns(bytes, 512, rule)).toEqual([
      { offset: 0, length: 7680, zero: false },
      { offset: 7680, length: 4608, zero: true },
    ]);
  });

  test('cover the buffer without gaps', () => {
    const bytes = new Uint8Array(70_000);
    for (const at of [5000, 20_000, 69_999]) bytes[at] = 1;
    let end = 0;
    for (const run of sparseRuns(bytes, 1536, rule)) {
      expect(run.offset).toBe(end);
      end += run.length;
    }
    expect(end).toBe(bytes.length);
  });
});

test('pieces end at multiples of their longest length', () => {
  expect(chunkEnd(0, 10_000, 4096)).toBe(4096);
  expect(chunkEnd(4000, 10_000, 4096)).toBe(4096);
  expect(chunkEnd(8192, 10_000, 4096)).toBe(10_000);
});
