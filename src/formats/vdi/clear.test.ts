import { describe, expect, test } from 'vitest';
import { PATH } from '../../../tests/support/sim-disks.ts';
import { FREE, makeVdi, ZERO } from '../../../tests/support/vdi-bytes.ts';
import {
  BLOCK,
  block,
  blocks,
  expectSame,
  field,
  hostHolding,
  hostWith,
  newImage,
  stored,
  withDisk,
} from '../../../tests/support/vdi-on-sim.ts';

describe('discard (V-27)', () => {
  test('gives up whole blocks, and leaves none of their parts', async () => {
    const host = hostWith({ map: [0, 1, 2, 3, FREE] });
    await withDisk(host, async (disk) => {
      await disk.discard(BLOCK / 2, 2.5 * BLOCK);
      expectSame(await disk.read(BLOCK, 2 * BLOCK), blocks(0, 0));
      const first = await disk.read(0, BLOCK);
      expect(first.subarray(0, BLOCK / 2)).toEqual(block(1, BLOCK / 2));
      expect([0, 1]).toContain(first[BLOCK - 1]);
    });
    expect(stored(host).map).toEqual([0, ZERO, ZERO, 3, FREE]);
  });

  test('of what the disk has of its last block gives that up too', async () => {
    const host = hostWith({ map: [0, 1], diskSize: BLOCK + 1024 });
    await withDisk(host, (disk) => disk.discard(BLOCK, 1024));
    expect(stored(host).map).toEqual([0, ZERO]);
  });

  test('of what is not stored changes nothing', async () => {
    const host = hostWith({ map: [FREE, ZERO, FREE] });
    const before = host.contents(PATH);
    await withDisk(host, (disk) => disk.discard(0, 3 * BLOCK));
    expect(host.contents(PATH).subarray(512)).toEqual(before.subarray(512));
  });

  test('in a static image punches the file, and keeps the map', async () => {
    const host = hostWith({ map: [0, 1, 2], type: 2, dataOffset: BLOCK });
    const allocated = async () => (await host.files.stat(PATH)).allocated ?? 0;
    const before = await allocated();
    await withDisk(host, async (disk) => {
      await disk.discard(BLOCK, BLOCK);
      expectSame(await disk.read(BLOCK, BLOCK), block(0));
    });
    expect(stored(host).map).toEqual([0, 1, 2]);
    expect(before - (await allocated())).toBe(BLOCK);
  });
});

test('a discard of very many blocks takes time by their number only', async () => {
  const blockCount = 1 << 19;
  const bytes = makeVdi({ diskSize: blockCount * BLOCK, blockSize: BLOCK, slots: 0 });
  new Uint32Array(bytes.buffer, 0x200, blockCount).forEach((_, i, map) => {
    map[i] = i;
  });
  const host = hostHolding(bytes.length + blockCount * BLOCK, { record: false });
  const file = await host.files.open(PATH, { write: true });
  await file.write(0, bytes);
  await file.close();
  await withDisk(host, async (disk) => {
    // Were it their square, the time of the test would not do.
    await disk.discard(0, disk.length);
    await disk.flush();
    expect((await disk.status(0, disk.length)).length).toBe(disk.length);
  });
  expect(field(host, 'allocated')).toBe(0);
});

describe('zero writes (V-28)', () => {
  test('leave unallocated blocks unallocated', async () => {
    const host = hostWith({ map: [FREE, ZERO, 0] });
    await withDisk(host, async (disk) => {
      await disk.writeZeroes(0, 2 * BLOCK);
      await disk.writeZeroes(10, BLOCK, { unmap: true });
    });
    expect(stored(host).map).toEqual([FREE, ZERO, 0]);
  });

  test('that may unmap give up whole blocks, and zero parts in the file', async () => {
    const host = hostWith({ map: [0, 1, 2, 3] });
    await withDisk(host, (disk) => disk.writeZeroes(BLOCK - 100, 2 * BLOCK, { unmap: true }));
    expect(stored(host).map).toEqual([0, ZERO, 2, 3]);
    const expected = blocks(1, 0, 3, 4);
    expected.fill(0, BLOCK - 100, BLOCK).fill(0, 2 * BLOCK, 3 * BLOCK - 100);
    expectSame(stored(host).content(), expected);
  });

  test('that may not zero all of it in the file', async () => {
    const host = hostWith({ map: [0, 1, 2, 3] });
    await withDisk(host, (disk) => disk.writeZeroes(BLOCK - 100, 2 * BLOCK));
    expect(stored(host).map).toEqual([0, 1, 2, 3]);
    expectSame(
      stored(host)
        .content()
        .subarray(BLOCK, 2 * BLOCK),
      block(0),
    );
  });

  test('in a static image keep the map', async () => {
    const host = hostWith({ map: [0, 1], type: 2 });
    await withDisk(host, (disk) => disk.writeZeroes(0, BLOCK, { unmap: true }));
    expect(stored(host)).toMatchObject({ map: [0, 1] });
    expectSame(stored(host).content(), blocks(0, 2));
  });

  test('without a fallback are refused where the file has no other way, and done otherwise', async () => {
    const host = hostWith({ map: [0, FREE] }, {}, { missing: ['punchHole', 'zeroRange', 'allocate'] });
    await withDisk(host, async (disk) => {
      await expect(disk.writeZeroes(10, 20, { noFallback: true })).rejects.toMatchObject({ code: 'ENOTSUP' });
      await disk.writeZeroes(0, BLOCK, { noFallback: true, unmap: true });
      await disk.writeZeroes(BLOCK, BLOCK, { noFallback: true });
    });
    expect(stored(host).map).toEqual([ZERO, FREE]);
  });
});

describe('beside other requests', () => {
  test('writes and discards of one block end with either’s content, and never with another block’s', async () => {
    for (let seed = 0; seed < 30; seed++) {
      const host = await newImage(6, {}, { seed, latency: { min: 0, max: 15 } });
      await withDisk(host, async (disk) => {
        await disk.write(0, blocks(1, 2, 3, 4, 5, 6));
        await Promise.all([
          disk.discard(0, 3 * BLOCK),
          disk.write(BLOCK, block(7)),
          disk.flush(),
          disk.writeZeroes(2 * BLOCK, BLOCK, { unmap: true }),
          disk.write(0, block(8, 100)),
          disk.flush(),
        ]);
        const found = await disk.read(0, 6 * BLOCK);
        expectSame(found.subarray(3 * BLOCK), blocks(4, 5, 6));
        expect([0, 1, 8].includes(found[0] ?? 255) && [0, 1].includes(found[100] ?? 255)).toBe(true);
        expect([0, 7]).toContain(found[BLOCK]);
        expectSame(found.subarray(2 * BLOCK, 3 * BLOCK), block(0));
      });
      expect(stored(host).problems).toEqual([]);
    }
  });
});
