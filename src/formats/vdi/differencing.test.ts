/** V-50: differencing images. */
import { describe, expect, test } from 'vitest';
import { FREE, ZERO } from '../../../tests/support/vdi-bytes.ts';
import { BLOCK, block, blocks, checked, concat, expectSame } from '../../../tests/support/vdi-on-sim.ts';
import {
  BASE,
  CHILD,
  contentOf,
  hostWithFiles,
  pair,
  refusal,
  storedIn,
  vdiImage,
  withChild,
} from '../../../tests/support/vdi-parents.ts';

const MIB = 1 << 20;

describe('reading', () => {
  test('takes what was never allocated from the parent, and hides it under zeroes', async () => {
    const host = pair([FREE, ZERO, 0, FREE]);
    expectSame(await contentOf(host), blocks(1, 0, 1, 4));
  });

  test('finds zeroes behind a shorter parent', async () => {
    const base = vdiImage({ diskSize: BLOCK + 512, map: [0, 1] }, { uuid: 1 });
    const host = hostWithFiles({ [BASE]: base, [CHILD]: vdiImage({ map: [FREE, FREE, FREE] }, { uuid: 2, link: 1 }) });
    expectSame(await contentOf(host), concat(block(1), block(2, 512), new Uint8Array(2 * BLOCK - 512)));
    await withChild(host, async (disk) => {
      const target = block(0xee, 2 * BLOCK);
      expect(disk.tryReadNow(BLOCK, target)).toBe(true);
      expectSame(target, concat(block(2, 512), new Uint8Array(2 * BLOCK - 512)));
    });
  });

  test('is answered at once where the parent can, and not where it cannot', async () => {
    for (const refuseNow of [0, 1]) {
      const host = pair([FREE, FREE, FREE, FREE], { refuseNow });
      await withChild(host, async (disk) => {
        const target = new Uint8Array(100);
        expect(disk.tryReadNow(BLOCK - 50, target)).toBe(refuseNow === 0);
        if (refuseNow === 0) expectSame(target, concat(block(1, 50), block(2, 50)));
        expectSame(await disk.read(BLOCK - 50, 100), concat(block(1, 50), block(2, 50)));
      });
    }
  });

  test('tells the parent apart from zeroes in the status, in whole runs (V-21)', async () => {
    const host = pair([FREE, FREE, ZERO, ZERO]);
    await withChild(host, async (disk) => {
      const parents = { length: 2 * BLOCK, allocated: true, data: true, zero: false, depth: 1 };
      expect(await disk.status(0, disk.length)).toMatchObject({ ...parents, at: { filename: BASE } });
      expect(disk.tryStatusNow(0, disk.length)).toEqual(await disk.status(0, disk.length));
      const zeroes = { length: 2 * BLOCK, allocated: true, data: false, zero: true, depth: 0 };
      expect(await disk.status(2 * BLOCK, 2 * BLOCK)).toEqual(zeroes);
    });
  });
});

describe('writing', () => {
  test('a part of a block copies the rest up, in one write of what is not zero (V-23)', async () => {
    const host = pair([FREE, FREE, FREE, FREE], { refuseNow: 1 });
    await withChild(host, async (disk) => {
      const before = host.counters.operations.write ?? 0;
      await disk.write(BLOCK + 100, block(9, 50));
      expect((host.counters.operations.write ?? 0) - before).toBe(1);
    });
    expect(storedIn(host).map).toEqual([FREE, 0, FREE, FREE]);
    const expected = blocks(1, 2, 3, 4);
    expected.fill(9, BLOCK + 100, BLOCK + 150);
    expectSame(await contentOf(host), expected);
    expectSame(await contentOf(host, BASE), blocks(1, 2, 3, 4));
  });

  test('over several blocks copies at both ends only', async () => {
    const host = pair([FREE, FREE, FREE, FREE]);
    await withChild(host, (disk) => disk.write(BLOCK - 10, block(9, 2 * BLOCK)));
    expect(storedIn(host).map).toEqual([0, 1, 2, FREE]);
    const expected = blocks(1, 2, 3, 4);
    expected.fill(9, BLOCK - 10, 3 * BLOCK - 10);
    expectSame(await contentOf(host), expected);
  });

  test('over a block known to be zero copies nothing', async () => {
    const host = pair([ZERO, FREE, FREE, FREE]);
    await withChild(host, (disk) => disk.write(10, block(9, 10)));
    const expected = blocks(0, 2, 3, 4);
    expected.fill(9, 10, 20);
    expectSame(await contentOf(host), expected);
  });

  test('leaves holes where the parent is zero', async () => {
    const big = { diskSize: 2 * MIB, blockSize: MIB };
    const host = hostWithFiles({
      [BASE]: vdiImage({ ...big, map: [FREE, FREE] }, { uuid: 1 }),
      [CHILD]: vdiImage({ ...big, map: [FREE, FREE] }, { uuid: 2, link: 1 }),
    });
    const before = host.counters.bytesWritten;
    await withChild(host, (disk) => disk.write(MIB + 5 * 4096, block(9, 4096)));
    expect(host.counters.bytesWritten - before).toBeLessThan(16384);
    const expected = new Uint8Array(2 * MIB);
    expected.fill(9, MIB + 5 * 4096, MIB + 6 * 4096);
    expectSame(await contentOf(host), expected);
  });

  test('copies blocks larger than memory is given for piece by piece', async () => {
    const size = 8 << 20;
    const base = vdiImage({ diskSize: size, blockSize: size, map: [0] }, { uuid: 1 });
    // Zeroes in the middle, which stay a hole.
    base.fill(0, base.length - (4 << 20), base.length - (2 << 20));
    const host = hostWithFiles({
      [BASE]: base,
      [CHILD]: vdiImage({ diskSize: size, blockSize: size, map: [FREE] }, { uuid: 2, link: 1 }),
    });
    await withChild(host, (disk) => disk.write((3 << 20) + 7, block(9, 100)));
    const expected = await contentOf(host, BASE);
    expected.fill(9, (3 << 20) + 7, (3 << 20) + 107);
    expectSame(await contentOf(host), expected);
  });

  test('a used place of the file again shows none of its old bytes', async () => {
    const base = vdiImage({ diskSize: BLOCK + 512, map: [0, 1] }, { uuid: 1 });
    const child = vdiImage({ diskSize: 2 * BLOCK - 1024, map: [FREE, FREE], slots: 2 }, { uuid: 2, link: 1 });
    const host = hostWithFiles({ [BASE]: base, [CHILD]: child });
    await withChild(host, (disk) => disk.write(BLOCK + 100, block(9, 10)));
    const expected = concat(block(1), block(2, 512), new Uint8Array(BLOCK - 512 - 1024));
    expected.fill(9, BLOCK + 100, BLOCK + 110);
    expectSame(await contentOf(host), expected);
    // Also behind the end of the disk.
    const [, slot = 0] = storedIn(host).map;
    const { dataOffset } = storedIn(host);
    const file = host.contents(CHILD).subarray(dataOffset + slot * BLOCK, dataOffset + (slot + 1) * BLOCK);
    expectSame(file.subarray(512), new Uint8Array(BLOCK - 512));
  });

  test('two parts of one block at a time are both there (V-23)', async () => {
    const host = pair([FREE, FREE, FREE, FREE], { latency: { min: 1, max: 9 }, refuseNow: 1 });
    await withChild(host, async (disk) => {
      await Promise.all([disk.write(10, block(8, 10)), disk.write(100, block(9, 10)), disk.write(BLOCK, block(7))]);
    });
    const expected = blocks(1, 7, 3, 4);
    expected.fill(8, 10, 20).fill(9, 100, 110);
    expectSame(await contentOf(host), expected);
    expect(storedIn(host).allocated).toBe(2);
  });

  test('fails where the parent cannot be read, and leaves all as it was (V-26)', async () => {
    const host = pair([FREE, FREE, FREE, FREE], { refuseNow: 1 });
    await withChild(host, async (disk) => {
      host.faults.inject({ operation: 'read', path: BASE, code: 'EIO', times: 1 });
      expect(await refusal(disk.write(10, block(9, 10)))).toMatch(/^EIO /);
      expectSame(await disk.read(0, disk.length), blocks(1, 2, 3, 4));
      await disk.write(BLOCK, block(8));
      expectSame(await disk.read(0, disk.length), blocks(1, 8, 3, 4));
    });
    expect(storedIn(host).map).toEqual([FREE, 0, FREE, FREE]);
  });
});

describe('zeroes', () => {
  test('written over whole blocks of the parent hide it without a place (V-66)', async () => {
    const host = pair([FREE, FREE, FREE, FREE]);
    await withChild(host, async (disk) => {
      await disk.write(0, new Uint8Array(BLOCK));
      await disk.writeZeroes(BLOCK, BLOCK);
      await disk.writeZeroes(2 * BLOCK, BLOCK, { unmap: true });
    });
    expect(storedIn(host)).toMatchObject({ map: [ZERO, ZERO, ZERO, FREE], allocated: 0 });
    expectSame(await contentOf(host), blocks(0, 0, 0, 4));
  });

  test('discarded blocks are zero, stored or not, and never show the parent (V-27)', async () => {
    const host = pair([0, FREE, FREE, FREE]);
    await withChild(host, async (disk) => {
      await disk.discard(0, 2 * BLOCK);
      // Parts are left as they are.
      await disk.discard(2 * BLOCK + 512, BLOCK);
    });
    expect(storedIn(host).map).toEqual([ZERO, ZERO, FREE, FREE]);
    expectSame(await contentOf(host), blocks(0, 0, 3, 4));
  });

  test('written over parts of blocks are written over a copy', async () => {
    const host = pair([FREE, FREE, FREE, FREE]);
    await withChild(host, (disk) => disk.writeZeroes(BLOCK - 512, 2 * BLOCK));
    const expected = blocks(1, 2, 3, 4);
    expected.fill(0, BLOCK - 512, 3 * BLOCK - 512);
    expectSame(await contentOf(host), expected);
    expect(storedIn(host).map).toEqual([0, ZERO, 1, FREE]);
  });

  test('need no copy where the parent is zero there, and no place where all of the block is', async () => {
    const base = vdiImage({ map: [0, FREE, 1] }, { uuid: 1 });
    base.fill(0, base.length - BLOCK, base.length - BLOCK + 512);
    base.fill(0, base.length - 2 * BLOCK + 512, base.length - BLOCK);
    const host = hostWithFiles({ [BASE]: base, [CHILD]: vdiImage({ map: [FREE, FREE, FREE] }, { uuid: 2, link: 1 }) });
    await withChild(host, async (disk) => {
      await disk.writeZeroes(BLOCK + 512, 1024);
      await disk.writeZeroes(2 * BLOCK, 512);
      // With this the block is all zeroes.
      await disk.writeZeroes(0, 512);
    });
    expect(storedIn(host)).toMatchObject({ map: [ZERO, FREE, FREE], allocated: 0 });
    const expected = blocks(0, 0, 2);
    expected.fill(0, 2 * BLOCK, 2 * BLOCK + 512);
    expectSame(await contentOf(host), expected);
    expect(host.contents(CHILD).length).toBe(storedIn(host).dataOffset);
  });

  test('without fallback are refused where they need a copy, and then change nothing', async () => {
    const host = pair([FREE, FREE, FREE, FREE]);
    await withChild(host, async (disk) => {
      const some = disk.writeZeroes(512, BLOCK, { noFallback: true });
      expect(await refusal(some)).toBe('ENOTSUP Zeroes in a part of a block need a copy of the rest');
      await disk.writeZeroes(BLOCK, BLOCK, { noFallback: true });
      expectSame(await disk.read(0, disk.length), blocks(1, 0, 3, 4));
    });
  });

  test('in the last block hide it when they cover what the disk has of it', async () => {
    const base = vdiImage({ map: [0, 1] }, { uuid: 1 });
    const child = vdiImage({ diskSize: BLOCK + 512, map: [FREE, FREE] }, { uuid: 2, link: 1 });
    const host = hostWithFiles({ [BASE]: base, [CHILD]: child });
    await withChild(host, (disk) => disk.writeZeroes(BLOCK, 512));
    expect(storedIn(host).map).toEqual([FREE, ZERO]);
  });
});

describe('changing the size (V-29)', () => {
  test('never shows what a longer parent has behind the end (BL-SIZE-4)', async () => {
    const child = vdiImage({ diskSize: BLOCK + 512, map: [FREE, FREE] }, { uuid: 2, link: 1 });
    const host = hostWithFiles({ [BASE]: vdiImage({ map: [0, 1, 2, 3] }, { uuid: 1 }), [CHILD]: child });
    const expected = concat(block(1), block(2, 512), new Uint8Array(2 * BLOCK - 512));
    await withChild(host, async (disk) => {
      await disk.resize(3 * BLOCK);
      expectSame(await disk.read(0, disk.length), expected);
    });
    expectSame(await contentOf(host), expected);
    expect(storedIn(host).map).toEqual([FREE, 0, ZERO]);
  });

  test('needs no copy where the parent ends, or is zero', async () => {
    const shorter = vdiImage({ diskSize: BLOCK + 512, map: [0, 1] }, { uuid: 1 });
    const zeroes = vdiImage({ map: [0, FREE] }, { uuid: 1 });
    for (const base of [shorter, zeroes]) {
      const child = vdiImage({ diskSize: BLOCK + 512, map: [FREE, FREE] }, { uuid: 2, link: 1 });
      const host = hostWithFiles({ [BASE]: base, [CHILD]: child });
      await withChild(host, (disk) => disk.resize(3 * BLOCK));
      expect(storedIn(host).map).toEqual([FREE, FREE, ZERO]);
    }
  });

  test('smaller and larger again gives zeroes', async () => {
    const host = pair([FREE, 0, FREE, FREE]);
    await withChild(host, async (disk) => {
      await disk.resize(BLOCK + 1024, { shrink: true });
      expectSame(await disk.read(0, disk.length), concat(block(1), block(1, 1024)));
      await disk.resize(4 * BLOCK);
      expectSame(await disk.read(0, disk.length), concat(block(1), block(1, 1024), new Uint8Array(3 * BLOCK - 1024)));
    });
  });

  test('grows into entries that the map has beyond the disk', async () => {
    const child = vdiImage({ diskSize: BLOCK, map: [FREE] }, { uuid: 2, link: 1 });
    const bytes = vdiImage({ map: [FREE, FREE, FREE] }, { uuid: 2, link: 1 });
    // A map of three blocks for a disk of one.
    bytes.set(child.subarray(0x170, 0x178), 0x170);
    const host = hostWithFiles({ [BASE]: vdiImage({ map: [0, 1, 2] }, { uuid: 1 }), [CHILD]: bytes });
    await withChild(host, (disk) => disk.resize(3 * BLOCK));
    expectSame(await contentOf(host), blocks(1, 0, 0));
  });

  test('moves blocks out of the way of a longer map and keeps what shows through (V-67)', async () => {
    const host = pair([FREE, 0, ZERO, 1]);
    await withChild(host, (disk) => disk.resize(300 * BLOCK));
    expectSame((await contentOf(host)).subarray(0, 4 * BLOCK), blocks(1, 1, 0, 2));
    expect(
      storedIn(host)
        .map.slice(4)
        .every((entry) => entry === ZERO),
    ).toBe(true);
  });
});

describe('maintenance', () => {
  test('a check takes both kinds of empty entries as they are (V-45)', async () => {
    const host = pair([FREE, ZERO, 0, FREE]);
    const { report } = await withChild(host, (disk) => checked(disk, 'all'));
    expect(report).toMatchObject({ corruptions: 0, leaks: 0, allocatedClusters: 1 });
    expect(storedIn(host).map).toEqual([FREE, ZERO, 0, FREE]);
  });

  test('a check needs no parent, and then reads none of its data', async () => {
    const plan = { diskSize: 2 * BLOCK + 512, map: [FREE, 0, FREE] };
    const host = hostWithFiles({ [CHILD]: vdiImage(plan, { uuid: 2, link: 1 }) });
    await withChild(
      host,
      async (disk) => {
        expect((await checked(disk)).report.corruptions).toBe(0);
        expectSame(await disk.read(BLOCK, BLOCK), block(1));
        expect(disk.tryReadNow(0, new Uint8Array(10))).toBe(false);
        expect(await refusal(disk.read(0, 10))).toMatch(/^EIO No parent of '\/child.vdi' is in its folder/);
        expect(await refusal(disk.write(0, block(1, 10)))).toMatch(/^EIO No parent/);
        expect(await refusal(disk.resize(4 * BLOCK))).toMatch(/^EIO No parent/);
      },
      { checkOnly: true },
    );
    expect(storedIn(host).map).toEqual([FREE, 0, FREE]);
  });

  test('a repair lets the parent show where an entry is dropped, as VirtualBox does', async () => {
    const host = pair([FREE, 3, FREE, FREE]);
    host.put(CHILD, host.contents(CHILD).slice(0, storedIn(host).dataOffset));
    const { report, findings } = await withChild(host, (disk) => checked(disk, 'all'), { checkOnly: true });
    expect(report.corruptionsFixed).toBeGreaterThan(0);
    expect(findings).toContain(
      'Repairing block 1: its place 3 is not in the file, so it shows what the parent has now',
    );
    expectSame(await contentOf(host), blocks(1, 2, 3, 4));
  });

  test("compaction hides blocks of zeroes, and lets go of blocks like the parent's (V-51)", async () => {
    const host = pair([FREE, FREE, FREE, FREE]);
    await withChild(host, async (disk) => {
      await disk.write(0, block(7));
      await disk.write(BLOCK, block(9));
      await disk.write(2 * BLOCK, block(3));
      await disk.write(0, new Uint8Array(BLOCK));
      await disk.flush();
      await disk.compact();
    });
    expect(storedIn(host).map).toEqual([ZERO, 0, FREE, FREE]);
    expectSame(await contentOf(host), blocks(0, 9, 3, 4));
    expect(host.contents(CHILD).length).toBe(storedIn(host).dataOffset + BLOCK);
  });

  test('compaction trusts no parent that was changed', async () => {
    for (const [state, map] of [
      [0x41, [FREE, FREE]],
      [0x77, [FREE, 0]],
    ] as const) {
      const host = hostWithFiles({
        [BASE]: vdiImage({ map: [1, 0] }, { uuid: 1, state }),
        [CHILD]: vdiImage({ map: [FREE, 0] }, { uuid: 2, link: 1 }),
      });
      await withChild(host, (disk) => disk.compact());
      expect(storedIn(host).map).toEqual(map);
    }
  });

  test('info tells the UUIDs of the parent (V-31)', async () => {
    const host = pair([FREE]);
    const data = await withChild(host, async (disk) => disk.info().specific?.data, { writable: false });
    expect(data).toMatchObject({
      'image-type': 'differencing',
      'link-uuid': '01010101-0101-0101-0101-010101010101',
      'parent-modification-uuid': '41414141-4141-4141-4141-414141414141',
    });
  });

  test('reads as zeroes where it was not written only when nothing shows there (V-30)', async () => {
    const host = pair([FREE]);
    await withChild(host, async (disk) => expect(disk.zeroInit()).toBe(false), { writable: false });
    await withChild(host, async (disk) => expect(disk.zeroInit()).toBe(true), { writable: false, noBacking: true });
  });
});
