import { describe, expect, test } from 'vitest';
import { graphOn, PATH } from '../../tests/support/sim-disks.ts';
import { createImage } from '../core/create.ts';
import type { Disk, OpenOptions } from '../core/disk.ts';
import type { OptionTree } from '../core/options.ts';
import { SimHost } from '../testing/index.ts';
import { raw } from './raw.ts';

/** A file whose byte n is n mod 251. */
function hostWith(length: number): SimHost {
  const host = new SimHost();
  host.put(
    PATH,
    Uint8Array.from({ length }, (_, i) => i % 251),
  );
  return host;
}

function open(host: SimHost, own: OptionTree, options: OpenOptions = {}): Promise<Disk> {
  return graphOn(host).open({ driver: 'raw', ...own, file: { driver: 'file', filename: PATH } }, options);
}

describe('the whole file', () => {
  test('is the disk, its odd tail completed with zeroes (BL-SIZE-1)', async () => {
    const host = hostWith(1000);
    const disk = await open(host, {});
    expect(disk.length).toBe(1024);
    const tail = await disk.read(990, 34);
    expect([...tail]).toEqual([...Array.from({ length: 10 }, (_, i) => (990 + i) % 251), ...new Array(24).fill(0)]);
    await disk.close();
  });

  test('is written, resized and told of as the file is', async () => {
    const host = hostWith(4096);
    const disk = await open(host, {}, { writable: true });
    expect(disk.tryWriteNow(100, new Uint8Array([1, 2, 3]))).toBe(true);
    expect(disk.tryStatusNow(0, 4096)).toMatchObject({
      allocated: true,
      data: true,
      at: { filename: PATH, offset: 0 },
    });
    await disk.resize(8192);
    expect(await disk.status(4096, 4096)).toMatchObject({ zero: true, data: false, at: { offset: 4096 } });
    await disk.writeZeroes(0, 512);
    await disk.close();
    expect(host.contents(PATH).length).toBe(8192);
    expect(host.contents(PATH)[101]).toBe(0);
  });

  test('is any file', () => {
    expect(raw.probe?.(new Uint8Array(512), 'x')).toBe(1);
  });
});

describe('a window', () => {
  test('begins at an offset of any alignment and ends with the file', async () => {
    const host = hostWith(10_000);
    for (const [offset, length] of [
      [512, 9728],
      [100, 10_240],
      [10_000, 512],
      [10_240, 0],
    ] as const) {
      const disk = await open(host, { offset });
      expect(disk.length).toBe(length);
      if (offset < 10_000) expect((await disk.read(7, 1))[0]).toBe((offset + 7) % 251);
      await disk.close();
    }
  });

  test('of a given size is not left: bytes around it stay', async () => {
    const host = hostWith(4096);
    const disk = await open(host, { offset: 512, size: 1024 }, { writable: true });
    expect(disk.length).toBe(1024);
    expect(await disk.status(0, 1024)).toMatchObject({ length: 1024, at: { offset: 512 } });
    await disk.write(1000, new Uint8Array(24).fill(0xee));
    await expect(disk.write(1000, new Uint8Array(25))).rejects.toMatchObject({ code: 'EIO' });
    await disk.writeZeroes(0, 10);
    await disk.close();
    const found = host.contents(PATH);
    expect([found[511], found[512], found[522], found[1511], found[1535], found[1536]]).toEqual([
      511 % 251,
      0,
      522 % 251,
      1511 % 251,
      0xee,
      1536 % 251,
    ]);
  });

  test('of a given size cannot be resized, one that ends with the file can', async () => {
    const host = hostWith(4096);
    const fixed = await open(host, { size: 1024 }, { writable: true });
    await expect(fixed.resize(2048)).rejects.toMatchObject({
      code: 'ENOTSUP',
      message: 'Cannot resize fixed-size raw disks',
    });
    await fixed.close();
    const disk = await open(host, { offset: 512 }, { writable: true });
    await disk.resize(1024, { shrink: true });
    await disk.close();
    expect(host.contents(PATH).length).toBe(1536);
  });

  test('is shown with its options (BL-REFRESH-6)', async () => {
    const disk = await open(hostWith(4096), { offset: 512 });
    expect(disk.filename).toBe(
      `json:{"offset": 512, "driver": "raw", "file": {"driver": "file", "filename": "${PATH}"}}`,
    );
    await disk.close();
  });

  test.each([
    [{ offset: '20000', size: '1000' }, 'Offset (20000) cannot be greater than size of the containing file (10240)'],
    [
      { offset: '0x7fffffffffffffff' },
      'Offset (9223372036854775808) cannot be greater than size of the containing file (10240)',
    ],
    [
      { offset: '512', size: '20000' },
      'The sum of offset (512) and size (20000) has to be smaller or equal to the  actual size of the containing file (10240)',
    ],
    [{ size: '1000' }, 'Specified size is not multiple of 512'],
  ])('with options %j is refused', async (own, message) => {
    const host = hostWith(10_000);
    await expect(open(host, own)).rejects.toMatchObject({ code: 'EINVAL', message });
    expect(host.openFiles).toEqual([]);
  });
});

describe('making and measuring', () => {
  test('making is making the file, with its options', async () => {
    const host = new SimHost();
    const lines: string[] = [];
    const request = { filename: PATH, format: 'raw', options: { size: '1000', preallocation: 'full' } };
    await createImage(graphOn(host), { ...request, report: (line) => void lines.push(line) });
    expect(lines).toEqual([`Formatting '${PATH}', fmt=raw size=1000 preallocation=full`]);
    expect(host.contents(PATH)).toEqual(new Uint8Array(1024));
  });

  test('it takes as many bytes as the disk has, in whole sectors', async () => {
    const measured = await raw.measure?.({ options: { size: undefined }, size: 1000, extents: undefined });
    expect(measured).toEqual({ required: 1024, fullyAllocated: 1024 });
  });
});
