import { describe, expect, test } from 'vitest';
import { failure, MiB } from '../../tests/support/bitmaps.ts';
import type { Disk } from '../core/disk.ts';
import { BlockError } from '../core/errors.ts';
import { Graph } from '../core/graph.ts';
import * as request from '../core/request.ts';
import { raw } from '../formats/raw.ts';
import { file } from '../protocols/file.ts';
import { memory } from '../protocols/memory.ts';
import { SimHost } from '../testing/index.ts';
import { BitmapList, type BitmapStore } from './bitmap-list.ts';
import { bitmapListOf, bitmaps } from './bitmaps.ts';

function open(size = 10 * MiB): Promise<Disk> {
  return new Graph({ host: new SimHost(), drivers: [memory] }).open({ driver: 'memory', size }, { writable: true });
}

const dirty = (disk: Disk, name: string) =>
  [...bitmaps(disk).dirtyAreas(name)].map(({ offset, length }) => [offset, length]);

describe('bitmaps of a disk', () => {
  test('every kind of change is recorded, by immediate writes too (BL-BITMAP-7)', async () => {
    await using disk = await open();
    await bitmaps(disk).add('b0', { granularity: 4096 });
    await disk.write(5000, new Uint8Array(10));
    await disk.writeZeroes(MiB, 2 * MiB);
    await disk.discard(5 * MiB, 8192);
    expect(disk.tryWriteNow(9 * MiB, new Uint8Array(1))).toBe(true);
    await disk.read(7 * MiB, 4096);
    expect(dirty(disk, 'b0')).toEqual([
      [4096, 4096],
      [MiB, 2 * MiB],
      [5 * MiB, 8192],
      [9 * MiB, 4096],
    ]);
    const parts = [...bitmaps(disk).dirtyAreas('b0', { offset: MiB + 1, length: 2 * MiB, maxLength: MiB })];
    expect(parts).toEqual([
      { offset: MiB + 1, length: MiB },
      { offset: 2 * MiB + 1, length: MiB - 1 },
    ]);
    expect([bitmaps(disk).isDirty('b0', 8191), bitmaps(disk).isDirty('b0', 8192)]).toEqual([true, false]);
  });

  test('without such a bitmap all is clean (BL-BITMAP-8)', async () => {
    await using disk = await open();
    expect(bitmaps(disk).isDirty('b0', 0)).toBe(false);
    expect(bitmaps(disk).list()).toEqual([]);
  });

  test('disable, enable, clear, merge, remove', async () => {
    await using disk = await open();
    await using other = await open();
    const [ours, theirs] = [bitmaps(disk), bitmaps(other.node)];
    await ours.add('b0');
    await ours.add('b1', { disabled: true });
    await theirs.add('c0', { granularity: 4096 });
    await other.write(4 * MiB, new Uint8Array(1));
    await disk.write(0, new Uint8Array(1));
    ours.disable('b0');
    await disk.write(MiB, new Uint8Array(1));
    ours.enable('b0');
    await disk.write(2 * MiB, new Uint8Array(1));
    ours.merge('b1', ['b0', { of: other, name: 'c0' }]);
    expect(dirty(disk, 'b1')).toEqual([
      [0, 65536],
      [2 * MiB, 65536],
      [4 * MiB, 65536],
    ]);
    ours.clear('b0');
    expect(ours.list()).toEqual([
      { name: 'b1', count: 196608, granularity: 65536, recording: false, busy: false, persistent: false },
      { name: 'b0', count: 0, granularity: 65536, recording: true, busy: false, persistent: false },
    ]);
    await ours.remove('b1');
    expect(ours.list().map(({ name }) => name)).toEqual(['b0']);
  });

  test('the node has a tracker only while there are bitmaps', async () => {
    await using disk = await open();
    const trackers = disk.node.trackers;
    expect(bitmaps(disk).list()).toEqual([]);
    expect(disk.node.trackers).toBe(trackers);
    await bitmaps(disk).add('b0');
    await bitmaps(disk).add('b1');
    expect(disk.node.trackers).toEqual([bitmapListOf(disk)]);
    await bitmaps(disk).remove('b0');
    await bitmaps(disk).remove('b1');
    expect(disk.node.trackers).toEqual([]);
    await bitmaps(disk).add('b2');
    await disk.write(0, new Uint8Array(1));
    expect(dirty(disk, 'b2')).toEqual([[0, 65536]]);
  });

  test('a truncate takes the bitmaps along, or is refused (BL-BITMAP-11)', async () => {
    await using disk = await open(MiB);
    await bitmaps(disk).add('b0');
    await disk.write(MiB - 1, new Uint8Array(1));
    await disk.resize(3 * MiB);
    await disk.write(3 * MiB - 1, new Uint8Array(1));
    expect(dirty(disk, 'b0')).toEqual([
      [MiB - 65536, 65536],
      [3 * MiB - 65536, 65536],
    ]);
    for (const area of bitmaps(disk).dirtyAreas('b0')) {
      await expect(disk.resize(5 * MiB)).rejects.toMatchObject({
        code: 'EBUSY',
        message: "Bitmap 'b0' is currently in use by another operation and cannot be used",
      });
      await expect(bitmaps(disk).remove('b0')).rejects.toMatchObject({ code: 'EBUSY' });
      expect([disk.length, area.length]).toEqual([3 * MiB, 65536]);
      break;
    }
    await disk.resize(MiB / 2, { shrink: true });
    expect(dirty(disk, 'b0')).toEqual([]);
  });

  test('a file that writes make longer takes the bitmaps along', async () => {
    const host = new SimHost();
    host.put('a.img', 1000);
    const graph = new Graph({ host, drivers: [file, raw] });
    await using disk = await graph.open(
      { driver: 'raw', file: { driver: 'file', filename: 'a.img' } },
      { writable: true },
    );
    const below = disk.node.child('file')?.node;
    if (below === undefined) throw new TypeError('raw has no file');
    await bitmaps(below).add('b0', { granularity: 512 });
    await disk.resize(5000);
    await request.write(below, 6000, new Uint8Array(100), {});
    expect(bitmapListOf(below).require('b0').size).toBe(below.impl.length());
    expect([...bitmaps(below).dirtyAreas('b0')]).toEqual([{ offset: 5632, length: below.impl.length() - 5632 }]);
  });

  test('what each operation refuses (M-BITMAP-1, BL-BITMAP-13)', async () => {
    await using disk = await open();
    const ours = bitmaps(disk);
    const notFound = { code: 'ENOENT', message: "Dirty bitmap 'no' not found", node: disk.nodeName };
    await expect(ours.remove('no')).rejects.toMatchObject(notFound);
    await ours.add('b0');
    await ours.add('b1');
    for (const action of [
      () => ours.clear('no'),
      () => ours.enable('no'),
      () => ours.disable('no'),
      () => ours.dirtyAreas('no'),
      () => ours.merge('no', ['b0']),
      () => ours.merge('b0', ['b1', 'no']),
    ]) {
      expect(failure(action)).toMatchObject(notFound);
    }
    await expect(ours.add('b0')).rejects.toMatchObject({ message: 'Bitmap already exists: b0' });
    const bitmap = bitmapListOf(disk).require('b0');
    const uses = {
      clear: () => ours.clear('b0'),
      enable: () => ours.enable('b0'),
      disable: () => ours.disable('b0'),
      merge: () => ours.merge('b0', ['b1']),
      mergeFrom: () => ours.merge('b1', ['b0']),
      dirtyAreas: () => ours.dirtyAreas('b0'),
    };
    const refused = () =>
      Object.entries(uses).flatMap(([name, use]) => {
        try {
          use();
          return [];
        } catch (error) {
          return [`${name} ${(error as BlockError).code}`];
        }
      });
    bitmap.readOnly = true;
    expect(refused()).toEqual(['clear EPERM', 'merge EPERM']);
    await expect(ours.remove('b0')).rejects.toMatchObject({ code: 'EPERM' });
    bitmap.readOnly = false;
    bitmap.busy = true;
    expect(refused()).toEqual(['clear EBUSY', 'enable EBUSY', 'disable EBUSY', 'merge EBUSY', 'mergeFrom EBUSY']);
    await expect(ours.remove('b0')).rejects.toMatchObject({ code: 'EBUSY' });
    bitmap.busy = false;
    bitmap.markInconsistent();
    expect(refused()).toEqual(Object.keys(uses).map((name) => `${name} EINVAL`));
    await ours.remove('b0');
    expect(ours.list().length).toBe(1);
  });
});

describe('persistent bitmaps', () => {
  test('are refused where the format cannot keep them', async () => {
    await using disk = await open();
    await expect(bitmaps(disk).add('b0', { persistent: true })).rejects.toMatchObject({
      code: 'ENOTSUP',
      message: `Can't store persistent bitmaps to ${disk.nodeName}: Operation not supported`,
    });
    await expect(bitmaps(disk).add('', { persistent: true })).rejects.toMatchObject({
      message: 'Bitmap name cannot be empty',
    });
    expect(bitmaps(disk).list()).toEqual([]);
  });

  test("a driver's own list is used, and its store asked", async () => {
    await using disk = await open();
    const calls: string[] = [];
    const list = new BitmapList({ name: disk.nodeName, length: () => disk.length, clusterSize: () => 8192 });
    const store: BitmapStore = {
      available: () => true,
      async checkNew(name, granularity) {
        calls.push(`check ${name} ${granularity}`);
        if (name === 'bad') throw new BlockError('EINVAL', 'Granularity exceeds maximum (2147483648 bytes)');
      },
      async remove(name) {
        calls.push(`remove ${name}`);
        expect(list.require(name).busy).toBe(true);
        if (calls.length < 4) throw new BlockError('EIO', 'broken');
      },
    };
    list.store = store;
    Object.assign(disk.node.impl, { tracker: list });
    const ours = bitmaps(disk);
    await ours.add('b0', { persistent: true });
    await ours.add('b1');
    await expect(ours.add('bad', { persistent: true, granularity: 512 })).rejects.toMatchObject({ code: 'EINVAL' });
    expect(ours.list()).toMatchObject([{ name: 'b1' }, { name: 'b0', persistent: true, granularity: 8192 }]);
    await expect(ours.remove('b0')).rejects.toMatchObject({ message: 'broken' });
    expect(ours.list()).toMatchObject([{ name: 'b1' }, { name: 'b0', busy: false }]);
    await ours.remove('b0');
    await ours.remove('b1');
    expect(calls).toEqual(['check b0 8192', 'check bad 512', 'remove b0', 'remove b0']);
  });
});
