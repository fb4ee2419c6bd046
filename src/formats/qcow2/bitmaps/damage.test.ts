/** What images say of bitmaps and cannot be (Q-EXT-5, Q-BMP-3, Q-CHK-3, Q-FEAT-7). */
import { describe, expect, test } from 'vitest';
import {
  areas,
  bytesOf,
  flags,
  KIB,
  keeping,
  onDisk,
  open,
  patched,
  refusal,
  report,
} from '../../../../tests/support/kept-bitmaps.ts';
import { readBitmaps } from '../../../../tests/support/qcow2-bitmaps.ts';
import { PATH } from '../../../../tests/support/sim-disks.ts';
import { bitmapListOf, bitmaps } from '../../../bitmaps/bitmaps.ts';
import type { SimHost } from '../../../testing/index.ts';

describe('Q-EXT-5, Q-BMP-3: what cannot be', () => {
  /** Where things are in an image with the bitmaps b1 and b0, in this order. */
  const places = (host: SimHost) => {
    const { extensionAt, directoryAt, bitmaps: found } = onDisk(host);
    return { ext: extensionAt, dir: directoryAt, table: found[0]?.tableAt ?? 0 };
  };
  type Place = keyof ReturnType<typeof places>;

  const REFUSED: readonly (readonly [string, Place, number, readonly number[], string])[] = [
    [
      'count 70000',
      'ext',
      0,
      bytesOf(70000n, 4),
      'bitmaps_ext: Image has 70000 bitmaps, exceeding the QEMU supported maximum of 65535',
    ],
    ['count 0', 'ext', 0, bytesOf(0n, 4), 'found bitmaps extension with zero bitmaps'],
    ['reserved field', 'ext', 4, bytesOf(1n, 4), 'bitmaps_ext: Reserved field is not zero'],
    ['length', 'ext', -4, bytesOf(16n, 4), 'bitmaps_ext: Invalid extension length'],
    [
      'size',
      'ext',
      8,
      bytesOf(67107841n, 8),
      'bitmaps_ext: bitmap directory size (67107841) exceeds the maximum supported size (67107840)',
    ],
    ['unaligned', 'ext', 16, bytesOf(0x201n, 8), 'bitmaps_ext: invalid bitmap directory offset'],
    ['huge offset', 'ext', 16, bytesOf(1n << 63n, 8), 'bitmaps_ext: invalid bitmap directory offset'],
  ];
  test.each(REFUSED)('the extension: %s', async (_, place, at, bytes, text) => {
    const host = await keeping(['b0', 'b1']);
    const bad = patched(host, places(host)[place] + at, bytes);
    expect(await refusal(bad)).toBe(text);
    expect(await refusal(bad, { noIO: true })).toBe(text);
  });

  const BROKEN: typeof REFUSED = [
    ['more bitmaps', 'ext', 0, bytesOf(1n, 4), 'More bitmaps found than specified in header extension'],
    ['fewer', 'ext', 0, bytesOf(3n, 4), 'Less bitmaps found than specified in header extension'],
    ['size 0', 'ext', 8, bytesOf(0n, 8), 'Requested bitmap directory size is zero'],
    ['a cut record', 'ext', 8, bytesOf(48n, 8), 'Broken bitmap directory'],
    ['a record cut by a byte', 'ext', 8, bytesOf(63n, 8), 'Broken bitmap directory'],
    ['past the end', 'ext', 16, bytesOf(1n << 40n, 8), 'Failed to read bitmap directory: Input/output error'],
    ['no table', 'dir', 0, bytesOf(0n, 8), "Bitmap 'b1' doesn't satisfy the constraints"],
    ['an unaligned table', 'dir', 0, bytesOf(0x801n, 8), "Bitmap 'b1' doesn't satisfy the constraints"],
    ['no entries', 'dir', 8, bytesOf(0n, 4), "Bitmap 'b1' doesn't satisfy the constraints"],
    ['too many entries', 'dir', 8, bytesOf(BigInt(2 ** 27 + 1), 4), "Bitmap 'b1' doesn't satisfy the constraints"],
    [
      'more data than 512 MiB',
      'dir',
      8,
      bytesOf(BigInt(2 ** 20 + 1), 4),
      "Bitmap 'b1' doesn't satisfy the constraints",
    ],
    ['an unknown flag', 'dir', 12, bytesOf(10n, 4), "Bitmap 'b1' doesn't satisfy the constraints"],
    ['type 0', 'dir', 16, [0], "Bitmap 'b1' doesn't satisfy the constraints"],
    ['type 2', 'dir', 16, [2], "Bitmap 'b1' doesn't satisfy the constraints"],
    ['granularity 2^8', 'dir', 17, [8], "Bitmap 'b1' doesn't satisfy the constraints"],
    ['granularity 2^32', 'dir', 17, [32], "Bitmap 'b1' doesn't satisfy the constraints"],
    ['no name', 'dir', 18, [0, 0], "Bitmap '' doesn't satisfy the constraints"],
    ['a long name', 'dir', 18, [4, 0], 'Broken bitmap directory'],
    [
      'a NUL in the name',
      'dir',
      24,
      [0],
      "Bitmap '\x001' doesn't satisfy the constraints".replace('\\0001', '\0' + '1'),
    ],
    ['extra data past the end', 'dir', 20, bytesOf(1000n, 4), 'Bitmap extra data is not supported'],
    ['a name twice', 'dir', 32 + 25, [0x31], 'Bitmap already exists: b1'],
    [
      'a table past the end',
      'dir',
      0,
      bytesOf(1n << 40n, 8),
      "Could not read bitmap_table table from image for bitmap 'b1': Input/output error",
    ],
    ['a table too long', 'dir', 8, bytesOf(2n, 4), "Could not read bitmap 'b1' from image: Invalid argument"],
    [
      'a reserved bit',
      'table',
      7,
      [2],
      "Could not read bitmap_table table from image for bitmap 'b1': Invalid argument",
    ],
    [
      'a reserved high bit',
      'table',
      0,
      [1],
      "Could not read bitmap_table table from image for bitmap 'b1': Invalid argument",
    ],
    [
      'ones and an offset',
      'table',
      7,
      [1],
      "Could not read bitmap_table table from image for bitmap 'b1': Invalid argument",
    ],
    ['data past the end', 'table', 3, [9], "Could not read bitmap 'b1' from image: Input/output error"],
  ];
  test.each(BROKEN)('the directory: %s', async (_, place, at, bytes, text) => {
    const host = await keeping(['b0', 'b1']);
    const bad = patched(host, places(host)[place] + at, bytes);
    expect(await refusal(bad)).toBe(text);
    // (better) Reading goes on without them.
    await using disk = await open(bad, { writable: false });
    expect(bitmaps(disk).list()).toEqual([]);
    expect((await disk.read(0, 2))[0]).toBe(1);
    expect(() => bitmapListOf(disk).store?.available()).toThrow(text);
    expect(await refusal(bad, { noIO: true })).toBe('');
  });

  test('Q-CHK-3: a check tells of them, frees nothing by mistake, and repairs so that the image can be written', async () => {
    for (const [, place, at, bytes] of BROKEN) {
      const host = await keeping(['b0', 'b1']);
      const bad = patched(host, places(host)[place] + at, bytes);
      const found = await report(bad);
      if (found.corruptions + found.checkErrors === 0) throw new Error(`nothing found: ${place} ${at} ${bytes}`);
      // What a directory that cannot be read names is not known.
      if (place === 'ext') expect(found.checkErrors).toBe(1);
      const before = bad.contents(PATH);
      await report(bad, 'leaks').catch(() => {});
      if (found.checkErrors > 0) expect(bad.contents(PATH)).toEqual(before);
      await report(bad, 'all');
      expect({ place, at, bytes, ...(await report(bad)) }).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
      await using disk = await open(bad);
      await disk.write(0, new Uint8Array(1));
    }
  });

  test('a repair changes nothing about bitmaps that are sound, clean and dirty as a whole too', async () => {
    const host = await keeping(['b0', 'b1']);
    {
      await using disk = await open(host);
      bitmaps(disk).clear('b0');
      await bitmaps(disk).add('full', { persistent: true, granularity: 64 * KIB });
      await disk.write(0, new Uint8Array(disk.length).fill(1));
      bitmaps(disk).clear('b0');
    }
    const before = host.contents(PATH);
    expect(await report(host, 'all')).toMatchObject({ corruptionsFixed: 0, lines: [] });
    expect(host.contents(PATH)).toEqual(before);
  });

  test('what other metadata use too is not freed with a bitmap', async () => {
    const host = await keeping(['b0']);
    const { dir, table } = places(host);
    // The refcount table, by a bitmap that is in use, and so is not read.
    const bad = patched(patched(host, dir + 15, [3]), table, bytesOf(512n, 8));
    {
      await using disk = await open(bad);
      await bitmaps(disk).remove('b0');
      await disk.write(0, new Uint8Array(64 * KIB).fill(1));
    }
    expect(await report(bad)).toMatchObject({ corruptions: 0 });
  });

  test('memory is bounded: bitmaps cannot share what they take up', async () => {
    const host = await keeping(['b0', 'b1']);
    const { ext, dir } = places(host);
    const content = host.contents(PATH);
    const record = [...content.subarray(dir, dir + 32)];
    const at = Math.ceil(content.length / 512) * 512;
    const records = Array.from({ length: 1000 }, (_, i) => [
      ...record.slice(0, 19),
      ...[4, 0, 0, 0, 0],
      ...new TextEncoder().encode(`${i + 1000}`),
      ...[0, 0, 0, 0],
    ]);
    const extension = [...bytesOf(1000n, 4), 0, 0, 0, 0, ...bytesOf(32000n, 8), ...bytesOf(BigInt(at), 8)];
    const bad = patched(patched(host, at, records.flat()), ext, extension);
    expect(await refusal(bad)).toMatch(/^Could not read bitmap '10\d\d' from image: Invalid argument$/);
    await report(bad, 'all');
    expect(await report(bad)).toMatchObject({ corruptions: 0, leaks: 0 });
    expect(await refusal(bad)).toBe('');
  });

  test('extra data: kept, and what is not known forbids use unless it says otherwise', async () => {
    const host = await keeping(['b0']);
    const { ext, dir } = places(host);
    const extra = [1, 2, 3, 4, 5, 6, 7, 8];
    const withExtra = (flags: number) => {
      const record = [...host.contents(PATH).subarray(dir, dir + 32)];
      record[15] = flags;
      record.splice(20, 4, ...bytesOf(8n, 4));
      record.splice(24, 0, ...extra);
      return patched(patched(host, dir, record), ext + 8, bytesOf(40n, 8));
    };
    const compatible = withExtra(4 | 2);
    {
      await using disk = await open(compatible);
      expect(areas(disk, 'b0')).toEqual([[0, KIB]]);
      await disk.write(8192, new Uint8Array(1));
      bitmaps(disk).disable('b0');
    }
    const { directoryAt } = onDisk(compatible);
    expect([...compatible.contents(PATH).subarray(directoryAt + 12, directoryAt + 32)]).toEqual([
      ...[0, 0, 0, 4, 1, 9, 0, 2, 0, 0, 0, 8],
      ...extra,
    ]);
    const unknown = withExtra(2);
    {
      await using disk = await open(unknown);
      expect(bitmaps(disk).list()).toMatchObject([{ name: 'b0', inconsistent: true }]);
      await disk.write(8192, new Uint8Array(1));
    }
    // It claimed to record what is written.
    expect(flags(unknown)).toEqual(['ia']);
    {
      await using disk = await open(unknown);
      await bitmaps(disk).remove('b0');
    }
    expect(onDisk(unknown).bitmaps).toEqual([]);
  });

  test('names that are no UTF-8 are kept as they are', async () => {
    const host = await keeping(['b0']);
    const odd = patched(host, places(host).dir + 24, [0xff, 0xfe]);
    {
      await using disk = await open(odd);
      await disk.write(8192, new Uint8Array(1));
    }
    const { directoryAt, bitmaps: found } = onDisk(odd);
    expect([...odd.contents(PATH).subarray(directoryAt + 24, directoryAt + 26)]).toEqual([0xff, 0xfe]);
    expect(found).toMatchObject([{ inUse: false, dirty: [0, 1, 16] }]);
  });
});

describe('Q-FEAT-7: a program without support for bitmaps was there', () => {
  const warning =
    'warning: a program lacking bitmap support modified this file, so all bitmaps are now considered inconsistent\n' +
    "Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix.";

  test('they are none any more; a writable open drops them, and a repair their clusters', async () => {
    const stale = patched(await keeping(['b0']), 95, [0]);
    const before = stale.contents(PATH);
    {
      await using disk = await open(stale, { writable: false });
      expect(bitmaps(disk).list()).toEqual([]);
      expect(disk.info()?.specific?.data.bitmaps).toBeUndefined();
    }
    expect(stale.warnings).toEqual([warning]);
    expect(stale.contents(PATH)).toEqual(before);
    expect(await report(stale)).toMatchObject({ corruptions: 0, leaks: 3 });
    {
      await using disk = await open(stale);
      await bitmaps(disk).add('b0', { persistent: true });
    }
    expect(onDisk(stale)).toMatchObject({ valid: true, bitmaps: [{ name: 'b0', dirty: [] }] });
    await report(stale, 'leaks');
    expect(await report(stale)).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  test('in version 2', async () => {
    const host = patched(await keeping(['b0']), 4, bytesOf(2n, 4));
    // Where extensions of version 2 begin.
    const content = host.contents(PATH);
    const { extensionAt } = readBitmaps((await keeping(['b0'])).contents(PATH));
    content.copyWithin(72, extensionAt - 8, extensionAt + 24);
    content.fill(0, 104, 512);
    host.put(PATH, content);
    await (await open(host, { writable: false })).close();
    expect(host.warnings).toEqual([
      'warning: This qcow2 v2 image contains bitmaps, but they may have been modified by a program without persistent ' +
        `bitmap support; so now they must all be considered inconsistent\n${warning.split('\n')[1]}`,
    ]);
  });
});
