import { describe, expect, test } from 'vitest';
import { bytesWith, makeImage, same, withDisk, world } from '../../tests/support/job-disks.ts';
import { parseSizeChange, type ResizeOptions, resizeDisk, SHRINK_REFUSAL } from './resize.ts';

const MIB = 1 << 20;
const PATH = '/disk';

async function resized(format: string, change: string, options: ResizeOptions = {}): Promise<number> {
  const { graph } = world();
  await makeImage(graph, PATH, format, bytesWith(4 * MIB, [[0, 4 * MIB]]));
  await withDisk(graph, PATH, { format, writable: true }, (disk) => resizeDisk(disk, parseSizeChange(change), options));
  return withDisk(graph, PATH, { format }, async (disk) => {
    const kept = Math.min(disk.length, 4 * MIB);
    expect(same(await disk.read(0, kept), bytesWith(4 * MIB, [[0, 4 * MIB]]).subarray(0, kept))).toBe(true);
    return disk.length;
  });
}

describe.each(['raw', 'vdi'])('a %s disk of 4 MiB (T-RESIZE-1)', (format) => {
  test.each([
    ['8M', 8 * MIB],
    ['+1M', 5 * MIB],
    ['+0', 4 * MIB],
    ['4194304', 4 * MIB],
    ['+512', 4 * MIB + 512],
    ['4.5M', 4.5 * MIB],
  ])('resized %s', async (change, size) => {
    expect(await resized(format, change)).toBe(size);
  });

  test('becomes smaller only when told to', async () => {
    await expect(resized(format, '-1M')).rejects.toThrow(SHRINK_REFUSAL);
    await expect(resized(format, '3M')).rejects.toThrow(SHRINK_REFUSAL);
    expect(await resized(format, '-1M', { shrink: true })).toBe(3 * MIB);
    expect(await resized(format, '1536k', { shrink: true })).toBe(1.5 * MIB);
  });

  test.each(['0', '-4M', '-1T'])('has no size of %s', async (change) => {
    await expect(resized(format, change, { shrink: true })).rejects.toThrow('New image size must be positive');
  });

  test('gets storage beforehand only for what is added', async () => {
    for (const change of ['4M', '+0', '3M']) {
      await expect(resized(format, change, { shrink: true, preallocation: 'full' })).rejects.toThrow(
        'Preallocation can only be used for growing images',
      );
    }
  });
});

test('a size that is no multiple of 512 is for the format to take, to round or to refuse (Q-SIZE-1)', async () => {
  expect(await resized('vdi', '5000000')).toBe(5000192);
  await expect(resized('qcow2', '5000000')).rejects.toThrow('The new size must be a multiple of 512');
  await expect(resized('qcow2', '+1')).rejects.toThrow('The new size must be a multiple of 512');
});

test('a raw file is as long as was asked for; a change counts from the size that is shown', async () => {
  const { graph, host } = world();
  await makeImage(graph, PATH, 'raw', new Uint8Array(1000));
  const lengths: number[] = [];
  for (const change of ['+100', '5000', '+1']) {
    await withDisk(graph, PATH, { format: 'raw', writable: true }, (disk) => resizeDisk(disk, parseSizeChange(change)));
    lengths.push(host.contents(PATH).length);
  }
  expect(lengths).toEqual([1124, 5000, 5121]);
});

test.each([
  ['20P', 'EFBIG'],
  ['8E', 'EINVAL'],
])('%s is too large for offsets: %s', async (change, code) => {
  await expect(resized('raw', change)).rejects.toMatchObject({ code });
});

test.each(['', '+', '-', '1x', '+-1k', '1kb'])('%j is no size (T-SIZE-1, T-OPT-4)', (text) => {
  expect(() => parseSizeChange(text)).toThrow("Parameter 'size' expects a non-negative number below 2^64");
});

test('a second sign is a number that is too small', () => {
  expect(() => parseSizeChange('+-1')).toThrow("Value '-1' is out of range for parameter 'size'");
});
