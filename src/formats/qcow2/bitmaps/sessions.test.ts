/** Bitmaps from opening to closing (Q-BMP-4 to 8, Q-ORD-9, Q-INFO-1). */
import { describe, expect, test } from 'vitest';
import {
  areas,
  flags,
  KIB,
  keeping,
  made,
  onDisk,
  open,
  patched,
  report,
  SIZE,
} from '../../../../tests/support/kept-bitmaps.ts';
import { PATH } from '../../../../tests/support/sim-disks.ts';
import { type AddBitmapOptions, bitmapListOf, bitmaps } from '../../../bitmaps/bitmaps.ts';
import type { OpenOptions } from '../../../core/disk.ts';
import { BlockError } from '../../../core/errors.ts';
import { SimHost } from '../../../testing/index.ts';

describe('a session', () => {
  test('Q-BMP-4, Q-BMP-6: in use from the first write on, complete and clean after closing', async () => {
    const host = await keeping(['b0']);
    expect(flags(host)).toEqual(['-a']);
    const before = host.contents(PATH);
    const disk = await open(host);
    expect(bitmaps(disk).list()).toEqual([
      { name: 'b0', count: KIB, granularity: 512, recording: true, busy: false, persistent: true },
    ]);
    await disk.read(0, KIB);
    await disk.flush();
    expect(host.contents(PATH)).toEqual(before);
    await disk.write(5000, new Uint8Array(10));
    expect(flags(host)).toEqual(['ia']);
    await disk.close();
    expect(flags(host)).toEqual(['-a']);
    expect(onDisk(host).bitmaps[0]?.dirty).toEqual([0, 1, 9]);
    expect(await report(host)).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  test('an image that nobody changed is as it was, to the byte', async () => {
    const host = await keeping(['b0', 'b1']);
    const before = host.contents(PATH);
    await (await open(host)).close();
    expect(host.contents(PATH)).toEqual(before);
  });

  test.each(['write', 'writeZeroes', 'discard', 'truncate'] as const)('%s waits for the mark', async (kind) => {
    const host = await keeping(['b0']);
    await using disk = await open(host, { writable: true, discard: 'unmap' });
    if (kind === 'write') await disk.write(0, new Uint8Array(512));
    else if (kind === 'truncate') await disk.resize(SIZE * 2);
    else await disk[kind](0, KIB);
    expect(flags(host)).toEqual(['ia']);
  });

  test('Q-BMP-4: disabled is kept, and such a bitmap keeps its place in the file', async () => {
    const host = await keeping(['b0', 'b1']);
    {
      await using disk = await open(host);
      bitmaps(disk).disable('b1');
    }
    const before = onDisk(host).bitmaps;
    expect(before.map(({ auto }) => auto)).toEqual([false, true]);
    {
      await using disk = await open(host);
      await disk.write(8192, new Uint8Array(1));
    }
    const after = onDisk(host).bitmaps;
    expect(after.map(({ dirty }) => dirty)).toEqual([
      [0, 1],
      [0, 1, 16],
    ]);
    expect(after[0]?.tableAt).toBe(before[0]?.tableAt);
    expect(await report(host)).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  test('Q-BMP-2: what is clean or dirty as a whole takes no cluster', async () => {
    const host = await made({ cluster_size: 4096 }, 64 << 20);
    {
      await using disk = await open(host);
      await bitmaps(disk).add('b0', { persistent: true, granularity: 512 });
      await disk.writeZeroes(16 << 20, 16 << 20);
      await disk.write(0, new Uint8Array(512));
    }
    const [b0] = onDisk(host).bitmaps;
    const view = new DataView(host.contents(PATH).buffer);
    const word = (index: number) => view.getBigUint64((b0?.tableAt ?? 0) + index * 8);
    expect([word(0) > 1n, word(1), word(2)]).toEqual([true, 1n, 0n]);
    await using disk = await open(host);
    expect(areas(disk, 'b0')).toEqual([
      [0, 512],
      [16 << 20, 16 << 20],
    ]);
  });

  test('Q-BMP-5: an extension that lies in two sectors', async () => {
    const host = await keeping(['b0'], { cluster_size: 65536, data_file: `/${'d'.repeat(487)}` });
    const { extensionAt } = onDisk(host);
    expect([Math.floor(extensionAt / 512), Math.floor((extensionAt + 23) / 512)]).toEqual([1, 2]);
    {
      await using disk = await open(host);
      await disk.write(8192, new Uint8Array(1));
      expect(flags(host)).toEqual(['ia']);
    }
    expect(onDisk(host)).toMatchObject({ valid: true, bitmaps: [{ inUse: false, dirty: [0, 1, 16] }] });
  });

  test('Q-BMP-4: read-only, nothing is written, and bitmaps can only be looked at', async () => {
    const host = await keeping(['b0']);
    const before = host.contents(PATH);
    await using disk = await open(host, { writable: false });
    expect(areas(disk, 'b0')).toEqual([[0, KIB]]);
    expect(() => bitmaps(disk).clear('b0')).toThrow("Bitmap 'b0' is readonly and cannot be modified");
    await expect(bitmaps(disk).remove('b0')).rejects.toThrow("Bitmap 'b0' is readonly and cannot be modified");
    await expect(bitmaps(disk).add('b1', { persistent: true })).rejects.toThrow(/Block node is read-only$/);
    expect(host.contents(PATH)).toEqual(before);
  });

  test('Q-BMP-4: in use on opening means inconsistent, which only can be removed, and stays so', async () => {
    const host = await keeping(['b0', 'b1']);
    const crashed = new SimHost({ record: false });
    {
      await using disk = await open(host);
      await disk.write(0, new Uint8Array(1));
      crashed.put(PATH, host.contents(PATH));
    }
    {
      await using disk = await open(crashed);
      expect(bitmaps(disk).list()).toMatchObject([
        { name: 'b0', inconsistent: true, recording: false, persistent: true },
        { name: 'b1', inconsistent: true },
      ]);
      expect(() => bitmaps(disk).enable('b0')).toThrow("Bitmap 'b0' is inconsistent and cannot be used");
      await disk.write(0, new Uint8Array(1));
      await bitmaps(disk).remove('b0');
      expect(onDisk(crashed).bitmaps.map(({ name }) => name)).toEqual(['b1']);
    }
    expect(flags(crashed)).toEqual(['ia']);
    {
      await using disk = await open(crashed);
      await bitmaps(disk).remove('b1');
    }
    expect(onDisk(crashed)).toMatchObject({ valid: false, extensionAt: 0 });
    expect((await report(crashed, 'leaks')).corruptions).toBe(0);
    expect(await report(crashed)).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  test('Q-BMP-8: removing one that is not in the image yet; a failure leaves all as it was', async () => {
    const host = await keeping(['b0']);
    await using disk = await open(host);
    await bitmaps(disk).add('new', { persistent: true });
    await bitmaps(disk).remove('new');
    host.faults.inject({ operation: 'write', code: 'EIO', path: PATH });
    await expect(bitmaps(disk).remove('b0')).rejects.toThrow('Failed to update bitmap extension: Input/output error');
    host.faults.clear();
    expect(bitmaps(disk).list()).toMatchObject([{ name: 'b0', busy: false }]);
    await bitmaps(disk).remove('b0');
    expect(onDisk(host).bitmaps).toEqual([]);
  });

  test('a bitmap that a job has frozen is stored with what its successor recorded', async () => {
    const host = await keeping(['b0']);
    {
      await using disk = await open(host);
      const list = bitmapListOf(disk);
      list.createSuccessor(list.require('b0'));
      await disk.write(8192, new Uint8Array(1));
    }
    expect(onDisk(host).bitmaps).toMatchObject([{ name: 'b0', auto: true, dirty: [0, 1, 16] }]);
    {
      await using disk = await open(host);
      const list = bitmapListOf(disk);
      const parent = list.require('b0');
      list.createSuccessor(parent);
      await disk.write(SIZE - 1, new Uint8Array(1));
      list.abdicate(parent);
    }
    expect(onDisk(host).bitmaps).toMatchObject([{ name: 'b0', dirty: [SIZE / 512 - 1] }]);
    expect(await report(host)).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  test('Q-INFO-1: info tells of them, with their flags in the file', async () => {
    const host = await keeping(['b0', 'b1']);
    const told = async (options: OpenOptions) => {
      await using disk = await open(host, options);
      return disk.info()?.specific?.data.bitmaps;
    };
    const expected = ['b1', 'b0'].map((name) => ({ flags: ['auto'], name, granularity: 512 }));
    expect(await told({ noIO: true })).toEqual(expected);
    expect(await told({})).toEqual(expected);
    await using disk = await open(host);
    bitmaps(disk).disable('b0');
    await disk.write(0, new Uint8Array(1));
    expect(disk.info()?.specific?.data.bitmaps).toMatchObject([
      { flags: ['in-use', 'auto'] },
      { flags: ['in-use', 'auto'] },
    ]);
  });
});

describe('what may go wrong', () => {
  test('Q-BMP-4: a mark that cannot be set fails the write, not the image', async () => {
    const host = await keeping(['b0']);
    const disk = await open(host);
    host.faults.inject({ operation: 'write', code: 'ENOSPC', path: PATH });
    const text = "Can't update bitmap directory: No space left on device";
    await expect(disk.write(0, new Uint8Array(KIB))).rejects.toMatchObject({ code: 'ENOSPC', message: text });
    await expect(disk.discard(0, KIB)).rejects.toThrow(text);
    host.faults.clear();
    expect(flags(host)).toEqual(['-a']);
    await disk.write(0, new Uint8Array(KIB));
    expect(flags(host)).toEqual(['ia']);
    await disk.close();
    expect(flags(host)).toEqual(['-a']);
  });

  test.each([
    [1, "Failed to write bitmap 'b0' to file: No space left on device"],
    [3, 'Failed to update bitmap extension: No space left on device'],
  ])('Q-ORD-9, Q-BMP-6: bitmaps that are lost on closing are told of (write %i)', async (after, reason) => {
    const host = await keeping(['b0']);
    const disk = await open(host);
    await disk.write(9000, new Uint8Array(10));
    await disk.flush();
    host.faults.inject({ operation: 'write', code: 'ENOSPC', path: PATH, skip: after - 1 });
    const { nodeName } = disk;
    await expect(disk.close()).rejects.toMatchObject({
      code: 'ENOSPC',
      message: `Lost persistent bitmaps during inactivation of node '${nodeName}': ${reason}`,
    });
    host.faults.clear();
    expect(flags(host)).toEqual(['ia']);
    expect((await report(host)).corruptions).toBe(0);
    await using again = await open(host, { writable: false });
    expect(await again.read(9000, 10)).toEqual(new Uint8Array(10));
  });

  test.each([1, 2, 3])(
    'Q-BMP-6: what was taken for bitmaps that could not be stored is free again (write %i)',
    async (nth) => {
      const host = await keeping(['b0']);
      const disk = await open(host);
      await disk.write(9000, new Uint8Array(10));
      await disk.flush();
      host.faults.inject({ operation: 'write', code: 'EIO', path: PATH, skip: nth - 1, times: 1 });
      await expect(disk.close()).rejects.toThrow(/^Lost persistent bitmaps/);
      expect(flags(host)).toEqual(['ia']);
      expect(await report(host)).toMatchObject({ corruptions: 0, leaks: 0 });
    },
  );

  test('Q-CORR-2, Q-CORR-3: nothing is written over bitmaps', async () => {
    const host = await keeping(['b0']);
    const { bitmaps: found, directoryAt } = onDisk(host);
    for (const [at, what, flag] of [
      [found[0]?.tableAt ?? 0, 'bitmap data', 2],
      // With nothing to be marked, the directory stays where it is.
      [directoryAt, 'bitmap directory', 3],
    ] as const) {
      const content = patched(host, (found[0]?.recordAt ?? 0) + 15, [flag]).contents(PATH);
      const view = new DataView(content.buffer);
      const l2 = Number(view.getBigUint64(Number(view.getBigUint64(40))) & 0xfffffffffffe00n);
      view.setBigUint64(l2, (1n << 63n) | BigInt(at));
      const other = new SimHost({ record: false });
      other.put(PATH, content);
      const disk = await open(other);
      await expect(disk.write(0, new Uint8Array(512))).rejects.toThrow(
        `Preventing invalid write on metadata (overlaps with ${what})`,
      );
      await disk.close().catch(() => {});
    }
  });
});

describe('Q-BMP-8: new bitmaps', () => {
  const refused = async (host: SimHost, options: AddBitmapOptions = {}, name = 'b') => {
    await using disk = await open(host);
    try {
      await bitmaps(disk).add(name, { persistent: true, ...options });
      return '';
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      return error.message.replaceAll(disk.nodeName, 'NODE');
    }
  };
  const prefix = "Can't make bitmap 'b' persistent in 'NODE': ";

  test('what is refused', async () => {
    expect(await refused(await made({ compat: '0.10' }))).toBe(`${prefix}Cannot store dirty bitmaps in qcow2 v2 files`);
    const large = await made({ cluster_size: 65536 }, 2 ** 42);
    expect(await refused(large, { granularity: 512 })).toBe(
      `${prefix}Too much space will be occupied by the bitmap. Use larger granularity`,
    );
    expect(await refused(large, { granularity: 1024 })).toBe('');
    expect(await refused(large, { granularity: 2 ** 32 })).toBe('Granularity must be power of 2 and at least 512');
  });

  test('no more than 65535', async () => {
    const host = await made({}, 512);
    await using disk = await open(host, { writable: true, cache: 'unsafe' });
    const list = bitmapListOf(disk);
    Object.defineProperty(list, 'all', {
      value: Array.from({ length: 65535 }, (_, i) => ({
        name: `${i}`,
        persistent: true,
        granularity: 512,
        requireUnpinned() {},
      })),
      configurable: true,
    });
    await expect(list.store?.checkNew('b', 512)).rejects.toThrow(
      'Maximum number of persistent bitmaps is already reached',
    );
    Reflect.deleteProperty(list, 'all');
  });

  test('names of 1023 bytes, and such as are not ASCII', async () => {
    const names = ['ü'.repeat(511), 'n'.repeat(1023), 'ü', '\u{1f4be} 1'];
    const host = await keeping(names);
    await using disk = await open(host);
    expect(
      bitmaps(disk)
        .list()
        .map(({ name }) => name)
        .sort(),
    ).toEqual([...names].sort());
    for (const name of names) await bitmaps(disk).remove(name);
  });
});
