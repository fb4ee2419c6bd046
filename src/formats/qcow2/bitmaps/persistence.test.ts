/** Bitmaps from opening to closing, and what images say that cannot be (Q-BMP, Q-EXT-5, Q-FEAT-7, Q-SIZE-1). */
import { describe, expect, test } from 'vitest';
import { readBitmaps } from '../../../../tests/support/qcow2-bitmaps.ts';
import { graphOn, PATH } from '../../../../tests/support/sim-disks.ts';
import { type AddBitmapOptions, bitmapListOf, bitmaps } from '../../../bitmaps/bitmaps.ts';
import { activate, inactivate } from '../../../core/activation.ts';
import { createImage } from '../../../core/create.ts';
import type { Disk, OpenOptions } from '../../../core/disk.ts';
import { BlockError } from '../../../core/errors.ts';
import type { OptionTree } from '../../../core/options.ts';
import { setReadOnly } from '../../../core/reopen.ts';
import { SimHost } from '../../../testing/index.ts';

const KIB = 1024;
const SIZE = 256 * KIB;

async function made(options: OptionTree = {}, size = SIZE): Promise<SimHost> {
  const host = new SimHost({ record: false });
  const all = { cluster_size: 512, ...options };
  await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size, options: all });
  return host;
}

const open = (host: SimHost, options: OpenOptions = { writable: true }) =>
  graphOn(host).open(PATH, { format: 'qcow2', ...options });

/** An image that keeps bitmaps of these names, in which the first KiB is dirty. */
async function keeping(names: readonly string[], options: OptionTree = {}, add: AddBitmapOptions = {}) {
  const host = await made(options);
  await using disk = await open(host);
  for (const name of names) await bitmaps(disk).add(name, { persistent: true, granularity: 512, ...add });
  await disk.write(0, new Uint8Array(KIB).fill(1));
  return host;
}

const onDisk = (host: SimHost) => readBitmaps(host.contents(PATH));
const flags = (host: SimHost) =>
  onDisk(host).bitmaps.map(({ inUse, auto }) => `${inUse ? 'i' : '-'}${auto ? 'a' : '-'}`);
const areas = (disk: Disk, name: string) =>
  [...bitmaps(disk).dirtyAreas(name)].map(({ offset, length }) => [offset, length]);

function patched(host: SimHost, at: number, bytes: readonly number[]): SimHost {
  const before = host.contents(PATH);
  const content = new Uint8Array(Math.max(before.length, at + bytes.length));
  content.set(before);
  content.set(bytes, at);
  const other = new SimHost({ record: false });
  other.put(PATH, content);
  return other;
}

const bytesOf = (value: bigint, length: number) =>
  Array.from({ length }, (_, i) => Number((value >> BigInt(8 * (length - 1 - i))) & 0xffn));

/** What opening says. */
async function refusal(host: SimHost, options?: OpenOptions): Promise<string> {
  try {
    await using _ = await open(host, options);
    return '';
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return error.message;
  }
}

async function report(host: SimHost, repair: 'none' | 'leaks' | 'all' = 'none') {
  const lines: string[] = [];
  await using disk = await open(host, { checkOnly: true, writable: repair !== 'none' });
  const result = await disk.check({ repair, finding: (line) => void lines.push(line) });
  return { ...result, lines };
}

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
    else if (kind === 'truncate') await disk.truncate(SIZE * 2);
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

describe('Q-SIZE-1: resizing', () => {
  test('bitmaps follow', async () => {
    const host = await keeping(['b0']);
    {
      await using disk = await open(host);
      await disk.truncate(SIZE * 40);
      await disk.write(SIZE * 40 - 512, new Uint8Array(512));
    }
    expect(onDisk(host).bitmaps[0]?.dirty).toEqual([0, 1, (SIZE * 40) / 512 - 1]);
    {
      await using disk = await open(host);
      await disk.truncate(KIB, { shrink: true });
    }
    expect(onDisk(host).bitmaps[0]).toMatchObject({ tableEntries: 1, dirty: [0, 1] });
    expect(await report(host)).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  test('not where one is inconsistent, was not loaded, or would be too large', async () => {
    const host = await keeping(['b0', 'b1']);
    const [first] = onDisk(host).bitmaps;
    const crashed = patched(host, (first?.recordAt ?? 0) + 15, [3]);
    {
      await using disk = await open(crashed);
      await expect(disk.truncate(SIZE * 2)).rejects.toThrow("Bitmap 'b1' is inconsistent and cannot be used");
    }
    {
      await using disk = await open(host, { writable: true, checkOnly: true });
      await expect(disk.truncate(SIZE * 2)).rejects.toThrow(
        'Cannot resize qcow2 with persistent bitmaps that were not loaded into memory',
      );
    }
    const wide = await made({ cluster_size: 65536 });
    await using disk = await open(wide);
    await bitmaps(disk).add('b0', { persistent: true, granularity: 512 });
    await expect(disk.truncate(2 ** 42)).rejects.toThrow(
      "Bitmap 'b0' doesn't satisfy the constraints: Too much space will be occupied by the bitmap. Use larger granularity",
    );
    await disk.truncate(2 ** 41);
  });
});

describe('other work on the image', () => {
  test('Q-BEY-1: compacting moves bitmaps too', async () => {
    const host = await made();
    {
      await using disk = await open(host, { writable: true, discard: 'unmap' });
      await disk.write(0, new Uint8Array(SIZE).fill(1));
      await bitmaps(disk).add('b0', { persistent: true, granularity: 512 });
      await disk.write(1024, new Uint8Array(512).fill(2));
    }
    const before = host.contents(PATH).length;
    {
      await using disk = await open(host, { writable: true, discard: 'unmap' });
      await disk.discard(0, SIZE - 512);
      await disk.compact();
      expect(onDisk(host).bitmaps).toMatchObject([{ inUse: false }]);
      await disk.write(SIZE - 512, new Uint8Array(1).fill(9));
      expect(flags(host)).toEqual(['ia']);
    }
    expect(before - host.contents(PATH).length).toBeGreaterThan(SIZE * 0.9);
    expect(onDisk(host).bitmaps[0]?.dirty).toHaveLength(SIZE / 512);
    expect(await report(host)).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  test('Q-AM-3: an image made one of version 2 has none, and no clusters of them', async () => {
    const host = await keeping(['b0']);
    {
      await using disk = await open(host);
      await disk.write(8192, new Uint8Array(1));
      await disk.amend({ compat: '0.10' });
      await disk.write(8192, new Uint8Array(1));
    }
    expect(host.warnings).toHaveLength(1);
    expect(await report(host)).toMatchObject({ corruptions: 0, leaks: 0 });
    await using disk = await open(host);
    expect(bitmaps(disk).list()).toEqual([]);
  });

  test('Q-AM-4: other counts', async () => {
    const host = await keeping(['b0']);
    {
      await using disk = await open(host);
      await disk.amend({ refcount_bits: 64 });
      await disk.write(8192, new Uint8Array(1));
    }
    expect(await report(host)).toMatchObject({ corruptions: 0, leaks: 0 });
    expect(onDisk(host).bitmaps[0]?.dirty).toEqual([0, 1, 16]);
  });

  test('Q-DISC-6: an image that is emptied keeps its bitmaps', async () => {
    const host = await keeping(['b0']);
    {
      await using disk = await open(host);
      await disk.node.impl.makeEmpty?.();
    }
    expect(onDisk(host).bitmaps).toMatchObject([{ name: 'b0', inUse: false }]);
    expect(await report(host)).toMatchObject({ corruptions: 0, leaks: 0 });
  });
});

describe('Q-OPT-6, Q-BMP-7: reopening', () => {
  test('read-only: stored and complete; writable again: in use with the first write', async () => {
    const host = await keeping(['b0']);
    const graph = graphOn(host);
    const node = await graph.add({ driver: 'qcow2', 'node-name': 'n', file: { driver: 'file', filename: PATH } });
    const list = bitmapListOf(node);
    list.require('b0').set(8192, 1);
    await setReadOnly(graph, node, true);
    expect(onDisk(host).bitmaps).toMatchObject([{ inUse: false, dirty: [0, 1, 16] }]);
    expect(list.require('b0').readOnly).toBe(true);
    await setReadOnly(graph, node, false);
    expect(list.require('b0').readOnly).toBe(false);
    await using writer = await graph.openReference('n', { writable: true });
    host.faults.inject({ operation: 'write', code: 'EIO', path: PATH });
    await expect(writer.write(0, new Uint8Array(1))).rejects.toThrow(
      "Failed to make dirty bitmaps writable: Can't update bitmap directory: Input/output error",
    );
    host.faults.clear();
    await writer.write(0, new Uint8Array(1));
    expect(flags(host)).toEqual(['ia']);
  });

  test('Q-ORD-9, Q-ORD-10: given up to another program, stored; taken back, read anew', async () => {
    const host = await keeping(['b0', 'b1']);
    const graph = graphOn(host);
    const device = graph.devices.add('hd');
    await device.insert(
      { driver: 'qcow2', 'node-name': 'n', file: { driver: 'file', filename: PATH } },
      { writable: true },
    );
    const node = graph.lookUp({ node: 'n' });
    await device.write(8192, new Uint8Array(1));
    const list = bitmapListOf(node);
    list.require('b0').busy = true;
    await expect(inactivate(graph)).rejects.toThrow("Bitmap 'b0' is currently in use by another operation");
    list.require('b0').busy = false;
    await inactivate(graph);
    expect(bitmaps(node).list()).toEqual([]);
    expect(onDisk(host).bitmaps).toMatchObject([
      { inUse: false, dirty: [0, 1, 16] },
      { inUse: false, dirty: [0, 1, 16] },
    ]);
    {
      // Another program.
      const other = new SimHost({ record: false });
      other.put(PATH, host.contents(PATH));
      await using disk = await open(other);
      await bitmaps(disk).remove('b1');
      bitmaps(disk).clear('b0');
      await disk.flush();
      await disk.close();
      const file = await host.files.open(PATH, { write: true });
      await file.truncate(0);
      await file.write(0, other.contents(PATH));
      await file.close();
    }
    await activate(graph);
    expect(bitmaps(node).list()).toMatchObject([{ name: 'b0', count: 0 }]);
    await device.write(0, new Uint8Array(1));
    expect(flags(host)).toEqual(['ia']);
    await device.eject();
    expect(onDisk(host).bitmaps).toMatchObject([{ name: 'b0', inUse: false, dirty: [0] }]);
  });
});

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
      const before = bad.contents(PATH);
      await report(bad, 'leaks').catch(() => {});
      if (found.checkErrors > 0) expect(bad.contents(PATH)).toEqual(before);
      await report(bad, 'all');
      expect({ place, at, bytes, ...(await report(bad)) }).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
      await using disk = await open(bad);
      await disk.write(0, new Uint8Array(1));
    }
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
