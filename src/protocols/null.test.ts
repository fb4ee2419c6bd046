import { describe, expect, test } from 'vitest';
import { Graph } from '../core/graph.ts';
import type { NestedOptions } from '../core/options.ts';
import { raw } from '../formats/raw.ts';
import { driverContract, SimHost } from '../testing/index.ts';
import { nullAio, nullCo } from './null.ts';

const GIB = 2 ** 30;

function graph(host = new SimHost()): Graph {
  return new Graph({ host, drivers: [nullCo, nullAio, raw] });
}

describe('null-co and null-aio', () => {
  test.each(['null-co', 'null-aio'])('%s:// is 1 GiB that reads as zeroes and forgets', async (driver) => {
    await using disk = await graph().open(`${driver}://`, { format: 'raw', writable: true });
    expect(disk.length).toBe(GIB);
    expect(disk.filename).toBe(`${driver}://`);
    expect(disk.allocatedSize()).toBe(0);
    await disk.write(GIB - 4096, new Uint8Array(4096).fill(7));
    await disk.writeZeroes(0, 1 << 20);
    await disk.discard(0, 1 << 20);
    await disk.flush();
    const target = new Uint8Array(4096).fill(9);
    await disk.read(GIB - 4096, target);
    expect(target).toEqual(new Uint8Array(4096));
    expect(disk.tryReadNow(0, target)).toBe(true);
    expect(disk.tryWriteNow(0, target)).toBe(true);
  });

  test.each(['null-co:', 'null-co://x', 'null-co:json'])('no other file name: %s', async (name) => {
    await expect(graph().open(name)).rejects.toMatchObject({
      code: 'EINVAL',
      message: "The only allowed filename for this driver is 'null-co://'",
    });
  });

  test.each<[NestedOptions, string]>([
    [{ driver: 'null-co' }, 'null-co://'],
    [{ driver: 'null-co', 'latency-ns': 5 }, 'null-co://'],
    [{ driver: 'null-co', size: 1000 }, 'json:{"driver": "null-co", "size": 1000}'],
    [{ driver: 'null-co', 'read-zeroes': false }, 'json:{"read-zeroes": false, "driver": "null-co"}'],
  ])('the name of %j is %s (BL-REFRESH-6)', async (options, name) => {
    await using disk = await graph().open(options);
    expect(disk.filename).toBe(name);
  });

  test('read-zeroes shows in the status', async () => {
    await using zero = await graph().open({ driver: 'null-co', size: '1M', 'read-zeroes': 'on' });
    const place = { filename: zero.filename, offset: 4096 };
    expect(await zero.status(4096, 8192)).toMatchObject({ length: 8192, zero: true, data: false, at: place });
    await using unknown = await graph().open({ driver: 'null-co', size: '1M' });
    expect(await unknown.status(4096, 8192)).toMatchObject({ length: 8192, zero: false });
  });

  test('latency is waited for, and nothing is answered at once', async () => {
    const host = new SimHost();
    await using disk = await graph(host).open({ driver: 'null-co', 'latency-ns': 3_000_000 }, { writable: true });
    const start = host.clock.now();
    await disk.read(0, 512);
    await disk.write(0, new Uint8Array(512));
    expect(host.clock.now() - start).toBe(6);
    expect(disk.tryReadNow(0, new Uint8Array(512))).toBe(false);
    expect(disk.tryWriteNow(0, new Uint8Array(512))).toBe(false);
  });

  test('sizes no offset can reach are refused; resizing and other options are not there', async () => {
    await expect(graph().open({ driver: 'null-co', size: '9E' })).rejects.toMatchObject({ code: 'EFBIG' });
    await expect(graph().open({ driver: 'null-co', filename: 'x' })).rejects.toMatchObject({
      message: "Block protocol 'null-co' doesn't support the option 'filename'",
    });
    await expect(graph().open({ driver: 'null-co', 'latency-ns': -1 })).rejects.toMatchObject({ code: 'EINVAL' });
    await using disk = await graph().open('null-co://', { format: 'raw', writable: true });
    await expect(disk.resize(2 * GIB)).rejects.toMatchObject({
      code: 'ENOTSUP',
      message: 'Image format driver does not support resize',
    });
  });
});

describe('driver contract', () => {
  const subject = {
    name: 'null-co',
    forgetful: true,
    async make(size: number) {
      const made = graph();
      const open = (options = {}) => made.open({ driver: 'null-co', size }, options);
      return { open, openFiles: () => made.nodes().map((node) => node.name) };
    },
  };
  for (const { name, run } of driverContract(subject)) test(name, run);
});
