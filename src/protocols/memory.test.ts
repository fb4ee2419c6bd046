import { describe, expect, test } from 'vitest';
import { Graph } from '../core/graph.ts';
import type { NestedOptions } from '../core/options.ts';
import * as request from '../core/request.ts';
import { raw } from '../formats/raw.ts';
import { vdi } from '../formats/vdi/vdi.ts';
import { differsAt } from '../testing/compare-bytes.ts';
import { driverContract, SimHost } from '../testing/index.ts';
import { MEMORY_PAGE, memory } from './memory.ts';

const TIB = 2 ** 40;

function graph(): Graph {
  return new Graph({ host: new SimHost(), drivers: [memory, raw, vdi] });
}

function open(size: number | string) {
  return graph().open({ driver: 'memory', size }, { writable: true });
}

describe('memory', () => {
  test('a tebibyte costs what is written to it', async () => {
    await using disk = await open('1T');
    expect(disk.length).toBe(TIB);
    expect(disk.allocatedSize()).toBe(0);
    const data = new Uint8Array(100).fill(5);
    await disk.write(TIB - 100, data);
    await disk.write(MEMORY_PAGE - 50, data);
    expect(disk.allocatedSize()).toBe(3 * MEMORY_PAGE);
    expect(await disk.read(TIB - 100, 100)).toEqual(data);
    expect(await disk.read(MEMORY_PAGE - 50, 100)).toEqual(data);
    expect(await disk.read(MEMORY_PAGE - 51, 1)).toEqual(new Uint8Array(1));
  });

  test('status tells what was written, quickly also in a large disk', async () => {
    await using disk = await open('1T');
    await disk.write(TIB / 2, new Uint8Array(2 * MEMORY_PAGE));
    const at = (offset: number) => ({ filename: disk.filename, offset });
    expect(await disk.status(0, TIB)).toMatchObject({ length: TIB / 2, zero: true, data: false, at: at(0) });
    expect(disk.tryStatusNow(TIB / 2 + 10, TIB / 4)).toMatchObject({
      length: 2 * MEMORY_PAGE - 10,
      zero: false,
      data: true,
      at: at(TIB / 2 + 10),
    });
    expect(await disk.status(TIB / 2 + 2 * MEMORY_PAGE, 1000)).toMatchObject({ length: 1000, zero: true });
  });

  test('zeroes keep storage, unmapping zeroes and discards give it back', async () => {
    await using disk = await open(4 * MEMORY_PAGE);
    const ones = new Uint8Array(4 * MEMORY_PAGE).fill(1);
    await disk.write(0, ones);
    await disk.writeZeroes(0, 2 * MEMORY_PAGE);
    expect(disk.allocatedSize()).toBe(4 * MEMORY_PAGE);
    await disk.writeZeroes(10, 2 * MEMORY_PAGE, { unmap: true });
    expect(disk.allocatedSize()).toBe(3 * MEMORY_PAGE);
    await disk.discard(2 * MEMORY_PAGE, MEMORY_PAGE + 5);
    expect(disk.allocatedSize()).toBe(2 * MEMORY_PAGE);
    const content = await disk.read(0, 4 * MEMORY_PAGE);
    expect(content.indexOf(1)).toBe(3 * MEMORY_PAGE + 5);
    expect(differsAt(content.subarray(3 * MEMORY_PAGE + 5), ones.subarray(3 * MEMORY_PAGE + 5))).toBe(-1);
    await disk.discard(0, 4 * MEMORY_PAGE);
    expect(disk.allocatedSize()).toBe(0);
  });

  test('what was cut off does not come back', async () => {
    await using disk = await open(2 * MEMORY_PAGE);
    await disk.write(0, new Uint8Array(2 * MEMORY_PAGE).fill(1));
    await expect(disk.resize(100)).rejects.toMatchObject({ code: 'EINVAL' });
    await disk.resize(100, { shrink: true });
    expect(disk.allocatedSize()).toBe(MEMORY_PAGE);
    await disk.resize(200);
    const content = await disk.read(0, 200);
    expect(content.subarray(0, 100)).toEqual(new Uint8Array(100).fill(1));
    expect(content.subarray(100)).toEqual(new Uint8Array(100));
    await expect(disk.resize(300, { preallocation: 'full' })).rejects.toMatchObject({
      code: 'ENOTSUP',
      message: 'Unsupported preallocation mode: full',
    });
  });

  test.each<[string | NestedOptions, string]>([
    ['memory://', 'memory://'],
    [{ driver: 'memory' }, 'memory://'],
    [{ driver: 'memory', size: 512 }, 'json:{"driver": "memory", "size": 512}'],
  ])('the name of %j is %s', async (source, name) => {
    await using disk = await graph().open(source, { format: typeof source === 'string' ? 'raw' : undefined });
    expect(disk.filename).toBe(name);
  });

  test('bad names and sizes', async () => {
    await expect(graph().open('memory:x')).rejects.toMatchObject({
      message: "The only allowed filename for this driver is 'memory://'",
    });
    await expect(open('8E')).rejects.toMatchObject({ code: 'EFBIG' });
  });

  test('grows when written or zeroed past its end', async () => {
    await using disk = await open(0);
    await request.write(disk.node, MEMORY_PAGE, new Uint8Array(9).fill(1), {});
    expect(disk.length).toBe(MEMORY_PAGE + 9);
    await request.writeZeroes(disk.node, MEMORY_PAGE, 2 * MEMORY_PAGE, {});
    expect(disk.length).toBe(3 * MEMORY_PAGE);
    expect(await disk.read(MEMORY_PAGE, 9)).toEqual(new Uint8Array(9));
  });
});

describe('driver contract', () => {
  const subject = {
    name: 'memory',
    blockSize: MEMORY_PAGE,
    persistent: false,
    sequences: 8,
    async make(size: number) {
      const made = graph();
      const openDisk = (options = {}) => made.open({ driver: 'memory', size }, options);
      return { open: openDisk, openFiles: () => made.nodes().map((node) => node.name) };
    },
  };
  for (const { name, run } of driverContract(subject)) test(name, run);
});
