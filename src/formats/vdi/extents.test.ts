import { describe, expect, test } from 'vitest';
import { FREE, ZERO } from '../../../tests/support/vdi-bytes.ts';
import { BLOCK, block, hostWith, withDisk } from '../../../tests/support/vdi-on-sim.ts';
import type { Disk } from '../../core/disk.ts';

const DATA = 0x400;
const readOnly = { writable: false };

/** A line for each run of a disk: blocks, whether zero, place in the data area in blocks. */
async function runs(disk: Disk): Promise<string[]> {
  const lines: string[] = [];
  for (let at = 0; at < disk.length; ) {
    const { length, zero, data, at: place } = await disk.status(at, disk.length - at);
    const where = place === undefined ? '' : ` at ${(place.offset - DATA) / BLOCK}`;
    lines.push(`${length / BLOCK} ${zero ? 'zero' : ''}${data ? 'data' : ''}${where}`);
    at += length;
  }
  return lines;
}

describe('status (V-21)', () => {
  test('gives runs of like blocks whole: zero, or side by side in the file', async () => {
    const host = hostWith({ map: [FREE, ZERO, FREE, 2, 3, 4, 0, FREE, 1] });
    await withDisk(
      host,
      async (disk) => {
        expect(await runs(disk)).toEqual(['3 zero', '3 data at 2', '1 data at 0', '1 zero', '1 data at 1']);
      },
      readOnly,
    );
  });

  test('begins and ends where it is asked to', async () => {
    const host = hostWith({ map: [1, 2, FREE], slots: 3 });
    await withDisk(
      host,
      async (disk) => {
        expect(await disk.status(100, 200)).toMatchObject({ length: 200, at: { offset: DATA + BLOCK + 100 } });
        expect(await disk.status(BLOCK + 100, 2 * BLOCK - 100)).toMatchObject({ length: BLOCK - 100, data: true });
        expect(await disk.status(2 * BLOCK + 1, 5)).toMatchObject({ length: 5, zero: true, data: false });
        expect(disk.tryStatusNow(0, 10)).toMatchObject({ length: 10, data: true });
      },
      readOnly,
    );
  });

  test('keeps blocks apart that extra bytes lie between', async () => {
    const host = hostWith({ map: [0, 1, 2], blockExtra: 512 });
    await withDisk(
      host,
      async (disk) => {
        const first = await disk.status(0, 3 * BLOCK);
        expect(first).toMatchObject({ length: BLOCK, at: { offset: DATA + 512 } });
        expect(await disk.status(BLOCK, BLOCK)).toMatchObject({ at: { offset: DATA + 1024 + BLOCK } });
      },
      readOnly,
    );
  });

  test('of a static image tells the holes of the file below', async () => {
    const host = hostWith({ map: [0, 1, 2, 3], type: 2, dataOffset: BLOCK });
    await withDisk(host, async (disk) => {
      await disk.discard(BLOCK, 2 * BLOCK);
      const holes = [];
      for (let at = 0; at < disk.length; at += BLOCK) holes.push((await disk.status(at, BLOCK)).zero);
      expect(holes).toEqual([false, true, true, false]);
    });
  });

  test('of a terabyte takes no longer than its runs', async () => {
    const map = Array.from({ length: 1 << 16 }, (_, i) => (i === 40_000 ? 0 : FREE));
    await withDisk(
      hostWith({ map, blockSize: 16 << 20, diskSize: 2 ** 40, slots: 0 }),
      async (disk) => {
        expect((await disk.status(0, disk.length)).length).toBe(40_000 * (16 << 20));
      },
      readOnly,
    );
  });

  test('sees what was written since', async () => {
    const host = hostWith({ map: [FREE, FREE, FREE] });
    await withDisk(host, async (disk) => {
      await disk.write(BLOCK, block(1, 5));
      expect(await runs(disk)).toEqual(['1 zero', '1 data at 0', '1 zero']);
      await disk.discard(BLOCK, BLOCK);
      expect(await runs(disk)).toEqual(['3 zero']);
    });
  });
});
