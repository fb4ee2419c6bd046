/** Growing (V-29, V-67). */
import { describe, expect, test } from 'vitest';
import { PATH } from '../../../tests/support/sim-disks.ts';
import { FREE, ZERO } from '../../../tests/support/vdi-bytes.ts';
import {
  BLOCK,
  block,
  blocks,
  checked,
  field,
  hostWith,
  newImage,
  openOn,
  stored,
  withDisk,
} from '../../../tests/support/vdi-on-sim.ts';
import { differsAt } from '../../testing/compare-bytes.ts';

/** 128 blocks, all stored, the data right behind a map that fills its sector: as a full image of QEMU's is laid out. */
const FULL = Array.from({ length: 128 }, (_, block) => 127 - block);

function contentOf(map: readonly number[]): Uint8Array {
  return blocks(...map.map((slot) => (slot >= ZERO ? 0 : slot + 1)));
}

describe('a longer map', () => {
  test('that has room stays where it is', async () => {
    const host = hostWith({ map: [1, FREE, 0] });
    await withDisk(host, (disk) => disk.resize(100 * BLOCK));
    expect(stored(host)).toMatchObject({ diskSize: 100 * BLOCK, dataOffset: 0x400, allocated: 2, problems: [] });
    expect(stored(host).map.slice(0, 4)).toEqual([1, FREE, 0, FREE]);
  });

  test('V-67: without room comes where the first blocks were, which move to the end', async () => {
    const host = hostWith({ map: FULL });
    await withDisk(host, (disk) => disk.resize(300 * BLOCK));
    const image = stored(host);
    expect(image).toMatchObject({ diskSize: 300 * BLOCK, allocated: 128, problems: [] });
    // One block's place holds the new map; slots count from behind it, so all but the first are lower by one.
    expect(image.dataOffset).toBe(0x400 + BLOCK);
    expect([field(host, 'mapOffset'), field(host, 'blocks')]).toEqual([0x400, 300]);
    expect(image.map.slice(0, 129)).toEqual([...FULL.slice(0, 127).map((slot) => slot - 1), 127, FREE]);
    expect(differsAt(image.content().subarray(0, 128 * BLOCK), contentOf(FULL))).toBe(-1);
    await withDisk(host, async (disk) => expect((await checked(disk)).report.corruptions).toBe(0));
  });

  test('V-67: moves blocks into gaps behind the new map first', async () => {
    const map = Array.from({ length: 128 }, (_, i) => (i < 4 ? [0, 3, 1, 5][i] : FREE) ?? FREE);
    const host = hostWith({ map });
    await withDisk(host, (disk) => disk.resize(1500 * BLOCK));
    const image = stored(host);
    expect(image.dataOffset).toBe(0x400 + 2 * BLOCK);
    // Slots 0 and 1 went to 2 and 4; then all counts from two slots further on.
    expect(image.map.slice(0, 4)).toEqual([0, 1, 2, 3]);
    expect(image.content().subarray(0, 4 * BLOCK)).toEqual(blocks(1, 4, 2, 6));
    expect(image.problems).toEqual([]);
  });

  test('of an image without blocks moves the beginning of the data only', async () => {
    const host = await newImage(4);
    await withDisk(host, async (disk) => {
      await disk.resize(1000 * BLOCK);
      await disk.write(999 * BLOCK, block(7));
    });
    expect(stored(host)).toMatchObject({ allocated: 1, problems: [] });
    expect(stored(host).dataOffset % 512).toBe(0);
    expect(stored(host).content().subarray(-BLOCK)).toEqual(block(7));
  });

  test('V-61: leaves room for whole blocks with their extra bytes', async () => {
    const host = hostWith({ map: FULL, blockExtra: 512 });
    await withDisk(host, (disk) => disk.resize(2000 * BLOCK));
    expect(stored(host).problems).toEqual([]);
    expect((stored(host).dataOffset - 0x400) % (BLOCK + 512)).toBe(0);
    expect(
      stored(host)
        .content()
        .subarray(0, 128 * BLOCK),
    ).toEqual(contentOf(FULL));
  });
});

describe('what comes to light', () => {
  test('is zero, whatever the last block held past the end', async () => {
    const host = hostWith({ map: [0, 1], diskSize: BLOCK + 512 });
    await withDisk(host, async (disk) => {
      await disk.resize(4 * BLOCK);
      expect((await disk.read(BLOCK, 3 * BLOCK)).subarray(512).every((byte) => byte === 0)).toBe(true);
      expect(await disk.read(BLOCK, 512)).toEqual(block(2, 512));
    });
  });

  test('is zero, whatever blocks beyond the end held', async () => {
    const host = hostWith({ map: [0, 1, 2], diskSize: 3 * BLOCK }, { diskSizeLow: BLOCK });
    await withDisk(host, async (disk) => {
      await disk.resize(3 * BLOCK);
      expect(await disk.read(0, 3 * BLOCK)).toEqual(blocks(1, 0, 0));
    });
  });

  test('of a static image is stored too (V-29)', async () => {
    const host = await newImage(3, { static: 'on' });
    await withDisk(host, async (disk) => {
      await disk.write(0, block(5));
      await disk.resize(200 * BLOCK);
    });
    const image = stored(host);
    expect(field(host, 'type')).toBe(2);
    expect(image).toMatchObject({ allocated: 200, problems: [] });
    expect([...image.map].sort((a, b) => a - b)).toEqual(Array.from({ length: 200 }, (_, slot) => slot));
    expect(image.content().subarray(0, BLOCK)).toEqual(block(5));
    expect(
      image
        .content()
        .subarray(BLOCK)
        .every((byte) => byte === 0),
    ).toBe(true);
  });

  test('is stored in a dynamic image too, where that is asked for', async () => {
    const host = hostWith({ map: [0, FREE] });
    await withDisk(host, (disk) => disk.resize(5 * BLOCK, { preallocation: 'full' }));
    expect(stored(host)).toMatchObject({ map: [0, FREE, 1, 2, 3], allocated: 4, problems: [] });
    expect(stored(host).content()).toEqual(blocks(1, 0, 0, 0, 0));
  });
});

describe('growing beside other work', () => {
  test('requests for blocks that move wait, and find their data', async () => {
    const host = hostWith({ map: FULL }, {}, { seed: 3, latency: { min: 1, max: 9 } });
    const disk = await openOn(host);
    const growing = disk.resize(3000 * BLOCK);
    const expected = contentOf(FULL);
    const work: Promise<unknown>[] = [growing];
    for (let turn = 0; turn < 40; turn++) {
      const at = (turn * 37) % 128;
      work.push(disk.write(at * BLOCK + 10, block(turn + 1, 100)));
      expected.fill(turn + 1, at * BLOCK + 10, at * BLOCK + 110);
      work.push(disk.read(((turn * 11) % 128) * BLOCK, 512));
      if (turn % 7 === 0) work.push(disk.flush());
      await host.clock.sleep(5);
    }
    await Promise.all(work);
    expect(differsAt(await disk.read(0, 128 * BLOCK), expected)).toBe(-1);
    await disk.close();
    expect(stored(host).problems).toEqual([]);
    expect(
      stored(host)
        .content()
        .subarray(0, 128 * BLOCK),
    ).toEqual(expected);
  });

  test('that fails at any point loses nothing, and is repaired where anything is wrong', async () => {
    for (const operation of ['write', 'flush'] as const) {
      for (let skip = 0; skip < 12; skip++) {
        const host = hostWith({ map: FULL });
        const disk = await openOn(host);
        host.faults.inject({ operation, code: 'EIO', skip, times: 1 });
        await disk.resize(2000 * BLOCK).catch((error: unknown) => expect(error).toMatchObject({ code: 'EIO' }));
        host.faults.clear();
        await disk.close();
        const again = await openOn(host, { checkOnly: true });
        const { report } = await checked(again, 'all');
        expect(report.corruptions).toBe(0);
        expect(differsAt(await again.read(0, 128 * BLOCK), contentOf(FULL)), `${operation} ${skip}`).toBe(-1);
        await again.close();
        expect(stored(host).problems).toEqual([]);
      }
    }
  });

  test('nothing is written any more when it is not known which layout the file has', async () => {
    const host = hostWith({ map: FULL });
    const disk = await openOn(host);
    await disk.write(0, block(1, 1));
    await disk.flush();
    // Of the header's two writes, the first has the count of the moved blocks, the second the new layout.
    host.faults.inject({ operation: 'write', code: 'EIO', path: PATH, offset: 0, length: 1, skip: 1, times: 1 });
    await expect(disk.resize(2000 * BLOCK)).rejects.toMatchObject({ code: 'EIO' });
    host.faults.clear();
    await expect(disk.write(0, block(1))).rejects.toMatchObject({
      code: 'EIO',
      message: expect.stringContaining('open the image again'),
    });
    const before = host.contents(PATH);
    await disk.close();
    expect(differsAt(host.contents(PATH), before)).toBe(-1);
    const again = await openOn(host, { checkOnly: true });
    await checked(again, 'all');
    expect((await again.read(BLOCK, BLOCK))[0]).toBe(127);
    await again.close();
  });
});
