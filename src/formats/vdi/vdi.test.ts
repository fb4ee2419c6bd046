/** Opening: probe, what is read, what is said, what a session leaves of an image's layout. */
import { describe, expect, test } from 'vitest';
import { graphOn, PATH } from '../../../tests/support/sim-disks.ts';
import { FREE, makeVdi, VDI_FIELDS } from '../../../tests/support/vdi-bytes.ts';
import {
  BLOCK,
  block,
  blocks,
  checked,
  expectSame,
  field,
  hostHolding,
  hostWith,
  newImage,
  openOn,
  stored,
  withDisk,
} from '../../../tests/support/vdi-on-sim.ts';
import { readU32, writeU32, writeU64 } from '../../bytes/endian.ts';
import type { SimHost } from '../../testing/index.ts';
import { vdi } from './vdi.ts';

/** An image of version 0.2: map at byte 420, data at once behind it. Slot n is filled with n+1. */
function oldImage(map: readonly number[], diskSize = map.length * BLOCK): Uint8Array {
  const slots = map.filter((entry) => entry !== FREE).length;
  const dataOffset = 420 + 4 * map.length;
  const bytes = new Uint8Array(dataOffset + slots * BLOCK);
  bytes.set(new TextEncoder().encode('<<< InnoTek VirtualBox Disk Image >>>\n'));
  writeU32(bytes, 0x40, 0xbeda107f);
  writeU32(bytes, 0x44, 2);
  writeU32(bytes, 72, 1);
  writeU32(bytes, 348, 512);
  writeU64(bytes, 352, diskSize);
  writeU32(bytes, 360, BLOCK);
  writeU32(bytes, 364, map.length);
  writeU32(bytes, 368, slots);
  bytes.fill(0x11, 372, 404);
  for (const [i, entry] of map.entries()) writeU32(bytes, 420 + 4 * i, entry);
  for (let slot = 0; slot < slots; slot++)
    bytes.fill(slot + 1, dataOffset + slot * BLOCK, dataOffset + (slot + 1) * BLOCK);
  return bytes;
}

describe('probe (V-10)', () => {
  const head = makeVdi({ diskSize: BLOCK, blockSize: BLOCK }).slice(0, 512);

  test('knows 512 bytes with the signature, whatever the banner', () => {
    expect(vdi.probe?.(head, 'a')).toBe(100);
    expect(vdi.probe?.(head.slice().fill(0, 0, 64), 'a')).toBe(100);
  });

  test('knows nothing shorter, and no other signature', () => {
    expect(vdi.probe?.(head.subarray(0, 511), 'a')).toBe(0);
    expect(vdi.probe?.(head.slice().fill(0, 64, 65), 'a.vdi')).toBe(0);
  });
});

describe('opening', () => {
  test('V-4: for information reads the header only', async () => {
    const host = hostWith({ map: [0, 1, FREE], diskSize: 3 * BLOCK });
    const before = host.counters.bytesRead;
    await withDisk(host, async (disk) => expect(disk.info().specific?.data).toMatchObject({ blocks: 3 }), {
      writable: false,
      noIO: true,
    });
    expect(host.counters.bytesRead - before).toBeLessThanOrEqual(1024);
  });

  test('V-14: names the bytes that are missing of a map cut short', async () => {
    const bytes = makeVdi({ diskSize: 100 * BLOCK, blockSize: BLOCK });
    await expect(openOn(hostHolding(bytes.slice(0, 0x200 + 300)))).rejects.toMatchObject({
      code: 'EINVAL',
      message: expect.stringContaining('its block map ends 100 bytes behind the end of the file'),
    });
  });

  test('V-43: an image without blocks opens, is empty, and can grow', async () => {
    const host = await newImage(0);
    await withDisk(host, async (disk) => {
      expect(disk.length).toBe(0);
      expect((await checked(disk)).report).toMatchObject({ corruptions: 0, leaks: 0 });
      await disk.resize(3 * BLOCK);
      await disk.write(BLOCK, block(7));
    });
    await withDisk(host, async (disk) => expectSame(await disk.read(0, 3 * BLOCK), blocks(0, 7, 0)));
    expect(stored(host).problems).toEqual([]);
  });

  test('V-62: a null UUID is noticed', async () => {
    const host = hostWith({ map: [FREE] }, { uuid: 0 });
    const bytes = host.contents(PATH).fill(0, VDI_FIELDS.uuid, VDI_FIELDS.uuid + 16);
    const nullUuid = hostHolding(bytes);
    await withDisk(nullUuid, async () => {});
    expect(nullUuid.notices.join()).toContain('null UUID');
    await withDisk(host, async () => {});
    expect(host.notices).toEqual([]);
  });

  test('V-61, BL-OPEN-22: unknown flags are refused for writing, not for reading', async () => {
    const host = hostWith({ map: [0] }, { flags: 0x10 });
    await expect(openOn(host)).rejects.toMatchObject({
      code: 'EACCES',
      message: expect.stringContaining('unknown flags 0x10'),
    });
    await withDisk(host, async (disk) => expectSame(await disk.read(0, BLOCK), block(1)), { writable: false });
    await withDisk(hostWith({ map: [0] }, { flags: 0x301 }), (disk) => disk.write(0, block(9)));
  });

  test('V-13, V-60: a size between sectors is usable up to the next, and told', async () => {
    const host = hostWith({ map: [0, 1], diskSize: BLOCK + 700 });
    await withDisk(host, async (disk) => {
      expect(disk.length).toBe(BLOCK + 1024);
      expectSame(await disk.read(BLOCK, 1024), block(2, 1024));
      expect(disk.info().specific?.data).toMatchObject({ 'stored-disk-size': BLOCK + 700 });
      const { report, findings } = await checked(disk);
      expect(report.corruptions).toBe(0);
      expect(findings.join()).toContain(`${BLOCK + 700}`);
      await disk.write(BLOCK + 1000, block(5, 24));
    });
    await withDisk(host, async (disk) => expectSame(await disk.read(BLOCK + 1000, 24), block(5, 24)));
  });
});

describe('a session of writing', () => {
  const uuid = (host: SimHost) => [
    ...host.contents(PATH).subarray(VDI_FIELDS.modificationUuid, VDI_FIELDS.modificationUuid + 16),
  ];

  test('V-64: changes the modification UUID at the first write only, and not the header’s size', async () => {
    const host = hostWith({ map: [0, FREE], headerSize: 0x180 });
    const first = uuid(host);
    await withDisk(host, async (disk) => {
      await disk.read(0, BLOCK);
      await disk.flush();
      expect(uuid(host)).toEqual(first);
      await disk.write(0, block(3));
      await disk.flush();
      const second = uuid(host);
      expect(second).not.toEqual(first);
      await disk.write(0, block(4));
      await disk.flush();
      expect(uuid(host)).toEqual(second);
    });
    expect(field(host, 'headerSize')).toBe(0x180);
  });

  test('V-64: opening for writing alone changes nothing', async () => {
    const host = hostWith({ map: [0, FREE], headerSize: 0x180 });
    const before = host.contents(PATH);
    await withDisk(host, async (disk) => {
      await disk.read(0, 2 * BLOCK);
    });
    expect(host.contents(PATH)).toEqual(before);
  });

  test('V-64: upgrades the header when asked', async () => {
    const host = hostWith({ map: [0, FREE], headerSize: 0x180 });
    const graph = { driver: 'vdi', upgrade: true, file: { driver: 'file', filename: PATH } };
    const disk = await graphOn(host).open(graph, { writable: true });
    await disk.close();
    expect(field(host, 'headerSize')).toBe(0x190);
    expect(field(host, 'logicalSectorSize')).toBe(512);
    await withDisk(host, async (again) => expectSame(await again.read(0, BLOCK), block(1)));
  });

  test('V-62: keeps the layout of version 0.2, whose map begins inside the first sector', async () => {
    const host = hostHolding(oldImage([0, FREE, FREE, 1]));
    await withDisk(host, async (disk) => {
      expectSame(await disk.read(0, 4 * BLOCK), blocks(1, 0, 0, 2));
      await disk.write(BLOCK, block(9));
      await disk.write(3 * BLOCK, block(8));
      await disk.discard(0, BLOCK);
      await disk.flush();
      await disk.write(2 * BLOCK, block(7));
    });
    const bytes = host.contents(PATH);
    expect([readU32(bytes, 0x44), readU32(bytes, 364)]).toEqual([2, 4]);
    expect([420, 424, 428, 432].map((at) => readU32(bytes, at) < 4)).toEqual([false, true, true, true]);
    await withDisk(host, async (disk) => {
      expectSame(await disk.read(0, 4 * BLOCK), blocks(0, 9, 7, 8));
      expect((await checked(disk)).report.corruptions).toBe(0);
    });
  });

  test('version 0.2 shrinks without moving its data, grows within its map, and not beyond', async () => {
    const host = hostHolding(oldImage([0, 1, 2, FREE]));
    await withDisk(host, async (disk) => {
      await expect(disk.resize(5 * BLOCK)).rejects.toMatchObject({ code: 'ENOTSUP' });
      await disk.resize(2 * BLOCK, { shrink: true });
      expectSame(await disk.read(0, 2 * BLOCK), blocks(1, 2));
    });
    await withDisk(host, async (disk) => {
      expect(disk.length).toBe(2 * BLOCK);
      await disk.resize(4 * BLOCK);
      expectSame(await disk.read(0, 4 * BLOCK), blocks(1, 2, 0, 0));
      expect((await checked(disk)).report).toMatchObject({ corruptions: 0, leaks: 0 });
    });
  });

  test('V-62: version 1.0 and offsets between sectors stay as they are', async () => {
    const host = hostWith({ map: [0, FREE, FREE], mapOffset: 457, dataOffset: 1001 }, { version: 0x10000 });
    await withDisk(host, async (disk) => {
      await disk.write(BLOCK + 5, block(6, 100));
      await disk.write(2 * BLOCK, block(7));
    });
    expect([field(host, 'version'), field(host, 'mapOffset'), field(host, 'dataOffset')]).toEqual([0x10000, 457, 1001]);
    await withDisk(host, async (disk) => {
      expectSame(await disk.read(0, BLOCK), block(1));
      expectSame(await disk.read(BLOCK + 5, 100), block(6, 100));
      expectSame(await disk.read(BLOCK + 105, BLOCK - 105), block(0, BLOCK - 105));
      expectSame(await disk.read(2 * BLOCK, BLOCK), block(7));
    });
  });

  test('V-61: extra bytes before each block are stepped over and kept', async () => {
    const bytes = makeVdi({ diskSize: 3 * BLOCK, blockSize: BLOCK, map: [1, 0, FREE], blockExtra: 512 });
    bytes.fill(0xee, 0x400, 0x600);
    const marked = hostHolding(bytes);
    await withDisk(marked, async (disk) => {
      expectSame(await disk.read(0, 3 * BLOCK), blocks(2, 1, 0));
      await disk.write(0, blocks(5, 6, 7));
      expectSame(await disk.read(0, 3 * BLOCK), blocks(5, 6, 7));
    });
    expect(marked.contents(PATH).subarray(0x400, 0x600)).toEqual(block(0xee, 512));
    expectSame(stored(marked).content(), blocks(5, 6, 7));
  });
});
