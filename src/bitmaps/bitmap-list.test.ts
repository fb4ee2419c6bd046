import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { areas, busyText, failure, listOf, MiB } from '../../tests/support/bitmaps.ts';
import { BlockError } from '../core/errors.ts';
import { BitmapList, type NewBitmap } from './bitmap-list.ts';
import type { DirtyBitmap } from './dirty-bitmap.ts';

describe('creation (BL-BITMAP-3)', () => {
  test.each([
    [{ name: '' }, 'EINVAL', 'Bitmap name cannot be empty'],
    [{ name: '', granularity: 1000 }, 'EINVAL', 'Bitmap name cannot be empty'],
    [{ name: 'b', granularity: 1000 }, 'EINVAL', 'Granularity must be power of 2 and at least 512'],
    [{ name: 'b', granularity: 256 }, 'EINVAL', 'Granularity must be power of 2 and at least 512'],
    [{ name: 'b', granularity: 0 }, 'EINVAL', 'Granularity must be power of 2 and at least 512'],
    [{ name: 'b', granularity: 2 ** 32 }, 'EINVAL', 'Granularity must be power of 2 and at least 512'],
    [{ name: 'taken', granularity: 1000 }, 'EINVAL', 'Granularity must be power of 2 and at least 512'],
    [{ name: 'taken' }, 'EEXIST', 'Bitmap already exists: taken'],
    [{ name: 'é'.repeat(512) }, 'ENAMETOOLONG', `Bitmap name too long: ${'é'.repeat(512)}`],
  ] as const)('%j is refused', (wanted: NewBitmap, code, message) => {
    const list = listOf(MiB);
    list.create({ name: 'taken' });
    expect(failure(() => list.create(wanted))).toEqual({ code, message, node: 'n0', hint: undefined });
    expect(list.all.length).toBe(1);
  });

  test('a node whose length is not known', () => {
    const length = () => {
      throw new BlockError('ENOMEDIUM', 'gone');
    };
    const list = new BitmapList({ name: 'n0', length, clusterSize: () => undefined });
    const { code, message } = failure(() => list.create({ name: 'b' }));
    expect([code, message]).toEqual(['ENOMEDIUM', 'could not get length of device: No medium found']);
  });

  test('more than 2^41 granules', () => {
    const list = listOf(Number.MAX_SAFE_INTEGER);
    const { code, message } = failure(() => list.create({ granularity: 2048 }));
    expect([code, message]).toEqual(['EFBIG', 'Too much space will be occupied by the bitmap. Use larger granularity']);
    expect(list.create({ granularity: 4096 }).count).toBe(0);
  });

  test('starts active and clean, first in the list; may be anonymous; is found by its exact name', () => {
    const list = listOf(MiB);
    const first = list.create({ name: 'b0', granularity: 512 });
    const second = list.create({ name: 'x'.repeat(1023), disabled: true, persistent: true, granularity: 2 ** 31 });
    const third = list.create();
    expect(list.all).toEqual([third, second, first]);
    expect([first.disabled, first.count, first.size, first.granularity]).toEqual([false, 0, MiB, 512]);
    expect([list.find('b0'), list.find('B0'), list.find('b')]).toEqual([first, undefined, undefined]);
    expect(list.require('b0')).toBe(first);
    expect(failure(() => list.require('b1'))).toMatchObject({
      code: 'ENOENT',
      message: "Dirty bitmap 'b1' not found",
      node: 'n0',
    });
  });

  test.each([
    [undefined, 65536],
    [512, 4096],
    [4096, 4096],
    [32768, 32768],
    [65536, 65536],
    [2 ** 20, 65536],
    [12288, 65536],
  ])('default granularity of clusters of %s bytes (BL-BITMAP-9)', (clusterSize, granularity) => {
    expect(listOf(MiB, clusterSize).create().granularity).toBe(granularity);
  });
});

describe('query (BL-BITMAP-12)', () => {
  test('newest first, with recording, busy, persistent and inconsistent; without what serves others', () => {
    const list = listOf(MiB);
    const b0 = list.create({ name: 'b0', granularity: 4096 });
    list.create({ granularity: 512, disabled: true });
    const b1 = list.create({ name: 'b1', persistent: true });
    list.create({ name: 'copy', hidden: true });
    list.changed(0, 1);
    b1.markInconsistent();
    list.createSuccessor(b0);
    const plain = { recording: true, busy: false, persistent: false };
    expect(list.query()).toEqual([
      { ...plain, name: 'b1', count: 0, granularity: 65536, recording: false, persistent: true, inconsistent: true },
      { ...plain, count: 0, granularity: 512, recording: false },
      // Its successor records.
      { ...plain, name: 'b0', count: 4096, granularity: 4096, busy: true },
    ]);
    expect(Object.keys(list.query()[1] ?? {})).not.toContain('name');
  });
});

describe('states (BL-BITMAP-4, BL-BITMAP-5)', () => {
  test('a successor is anonymous, clean, of the same granularity and disabled mark; the parent is disabled and busy', () => {
    const list = listOf(MiB);
    for (const disabled of [false, true]) {
      const parent = list.create({ name: `b-${disabled}`, granularity: 8192, disabled, persistent: true });
      parent.set(0, 1);
      const successor = list.createSuccessor(parent);
      expect([successor.name, successor.count, successor.granularity]).toEqual([undefined, 0, 8192]);
      expect([successor.disabled, successor.persistent, successor.busy]).toEqual([disabled, false, false]);
      expect([parent.disabled, parent.busy, parent.successor]).toEqual([true, true, successor]);
      expect(list.all[0]).toBe(successor);
    }
  });

  test('no successor for a busy bitmap, one that has one, or an inconsistent one', () => {
    const list = listOf(MiB);
    const bitmap = list.create({ name: 'b0' });
    bitmap.busy = true;
    expect(failure(() => list.createSuccessor(bitmap))).toMatchObject({ code: 'EBUSY', message: busyText('b0') });
    expect(bitmap.disabled).toBe(false);
    bitmap.busy = false;
    list.createSuccessor(bitmap);
    expect(failure(() => list.createSuccessor(bitmap)).message).toBe(busyText('b0'));
    bitmap.busy = false;
    expect(failure(() => list.createSuccessor(bitmap)).message).toBe(
      'Cannot create a successor for a bitmap that already has one',
    );
    const broken = list.create({ name: 'b1' });
    broken.markInconsistent();
    expect(failure(() => list.createSuccessor(broken)).message).toBe("Bitmap 'b1' is inconsistent and cannot be used");
  });

  test('a successor that cannot be made leaves the parent as it was', () => {
    let length = MiB;
    const list = new BitmapList({ name: 'n0', length: () => length, clusterSize: () => 512 });
    const parent = list.create({ name: 'b0', granularity: 512 });
    length = Number.MAX_SAFE_INTEGER;
    expect(failure(() => list.createSuccessor(parent)).code).toBe('EFBIG');
    expect([parent.disabled, parent.busy, parent.successor, list.all.length]).toEqual([false, false, undefined, 1]);
  });

  test('abdicate: the successor takes name, persistence and place, and the old one is gone', () => {
    const list = listOf(MiB);
    const parent = list.create({ name: 'b0', persistent: true });
    parent.set(0, MiB);
    const successor = list.createSuccessor(parent);
    list.changed(65536, 1);
    expect(list.abdicate(parent)).toBe(successor);
    expect(list.all).toEqual([successor]);
    expect([successor.name, successor.persistent, successor.disabled]).toEqual(['b0', true, false]);
    expect(list.query()).toMatchObject([{ name: 'b0', count: 65536, recording: true, busy: false }]);
    expect(failure(() => list.abdicate(successor)).message).toBe(
      "Cannot relinquish control if there's no successor present",
    );
  });

  test('reclaim: the parent takes over what was recorded, and the disabled mark of the successor', () => {
    const list = listOf(MiB);
    const parent = list.create({ name: 'b0' });
    list.changed(0, 1);
    const successor = list.createSuccessor(parent);
    list.changed(65536, 1);
    list.disable(successor);
    list.changed(131072, 1);
    list.reclaim(parent);
    expect(list.all).toEqual([parent]);
    expect([areas(parent.content), parent.disabled, parent.busy, parent.successor]).toEqual([
      [[0, 131072]],
      true,
      false,
      undefined,
    ]);
    expect(failure(() => list.reclaim(parent)).message).toBe('Cannot reclaim a successor when none is present');
  });

  test('reclaim of a successor of another size fails, and all is as before', () => {
    const list = listOf(MiB);
    const parent = list.create({ name: 'b0' });
    const successor = list.createSuccessor(parent);
    successor.content.truncate(512);
    expect(failure(() => list.reclaim(parent)).message).toBe('Merging of parent and successor bitmap failed');
    expect([parent.busy, parent.successor, list.all.length]).toEqual([true, successor, 2]);
  });

  test('a frozen bitmap cannot be enabled, disabled, made anonymous or released', () => {
    const list = listOf(MiB);
    const bitmap = list.create({ name: 'b0' });
    list.createSuccessor(bitmap);
    const before = list.query();
    for (const action of [
      () => list.enable(bitmap),
      () => list.disable(bitmap),
      () => list.makeAnonymous(bitmap),
      () => list.release(bitmap),
    ]) {
      expect(failure(action)).toMatchObject({ code: 'EBUSY', message: busyText('b0') });
    }
    expect(list.query()).toEqual(before);
  });

  test('otherwise they can, and a dropped name is free again', () => {
    const list = listOf(MiB);
    const bitmap = list.create({ name: 'b0' });
    list.disable(bitmap);
    expect(bitmap.disabled).toBe(true);
    list.enable(bitmap);
    expect(bitmap.disabled).toBe(false);
    list.makeAnonymous(bitmap);
    const second = list.create({ name: 'b0' });
    expect(list.all).toEqual([second, bitmap]);
  });

  test('release: not while busy or walked; no effect elsewhere; can be taken back', () => {
    const list = listOf(MiB);
    const [old, bitmap, young] = ['b0', 'b1', 'b2'].map((name) => list.create({ name })) as [
      DirtyBitmap,
      DirtyBitmap,
      DirtyBitmap,
    ];
    listOf(MiB).release(bitmap)();
    expect(list.all).toContain(bitmap);
    bitmap.busy = true;
    expect(failure(() => list.release(bitmap)).message).toBe(busyText('b1'));
    bitmap.busy = false;
    const iterator = bitmap.iterate();
    expect(failure(() => list.release(bitmap)).message).toBe(busyText('b1'));
    iterator.close();
    iterator.close();
    const undo = list.release(bitmap);
    expect(list.all).toEqual([young, old]);
    undo();
    expect(list.all).toEqual([young, bitmap, old]);
  });

  test('the owner is told of the first bitmap and of the end of the last', () => {
    const told: boolean[] = [];
    const owner = { name: 'n0', length: () => MiB, clusterSize: () => undefined };
    const list = new BitmapList({ ...owner, occupied: (_, yes) => told.push(yes) });
    const first = list.create();
    list.release(list.create());
    list.createSuccessor(first);
    list.abdicate(first);
    expect(told).toEqual([true]);
    list.release(list.all[0] as DirtyBitmap);
    expect(told).toEqual([true, false]);
  });
});

describe('changes of the node', () => {
  test('a write dirties every enabled bitmap; a frozen one is skipped, its successor records (BL-BITMAP-7)', () => {
    const list = listOf(MiB);
    const enabled = list.create({ name: 'enabled', granularity: 512 });
    const disabled = list.create({ name: 'disabled', disabled: true });
    const frozen = list.create({ name: 'frozen' });
    const lost = list.create({ name: 'lost' });
    lost.markInconsistent();
    const successor = list.createSuccessor(frozen);
    list.changed(1000, 100);
    list.changed(0, 0);
    expect([enabled, disabled, frozen, lost, successor].map(({ count }) => count)).toEqual([1024, 0, 0, 0, 65536]);
  });

  test('a write past the end grows the bitmaps, frozen ones too', () => {
    const list = listOf(1000);
    const bitmap = list.create({ name: 'b0', granularity: 512 });
    list.createSuccessor(bitmap);
    list.changed(2000, 100);
    expect(list.all.map(({ size }) => size)).toEqual([2100, 2100]);
    list.reclaim(bitmap);
    expect(areas(bitmap.content)).toEqual([[1536, 2100]]);
  });

  test('a new size is refused while a bitmap is busy, frozen or walked (BL-BITMAP-11)', () => {
    const list = listOf(MiB);
    const bitmap = list.create({ name: 'b0' });
    list.create();
    list.checkResize(2 * MiB);
    const refused = () => failure(() => list.checkResize(2 * MiB));
    bitmap.busy = true;
    expect(refused()).toMatchObject({ code: 'EBUSY', message: busyText('b0') });
    bitmap.busy = false;
    const iterator = bitmap.iterate();
    expect(refused().message).toBe(busyText('b0'));
    iterator.close();
    list.createSuccessor(bitmap);
    expect(refused().message).toBe(busyText('b0'));
    list.reclaim(bitmap);
    list.checkResize(2 * MiB);
    const anonymous = list.create();
    anonymous.busy = true;
    expect(refused().message).toBe(busyText('(unnamed)'));
  });

  test('or if a persistent one cannot be changed (Q-SIZE-1), or none could be that large', () => {
    const list = listOf(MiB);
    const bitmap = list.create({ name: 'b0', granularity: 512 });
    bitmap.readOnly = true;
    list.checkResize(2 * MiB);
    expect(failure(() => list.checkResize(2 ** 52)).code).toBe('EFBIG');
    bitmap.persistent = true;
    expect(failure(() => list.checkResize(MiB)).message).toBe("Bitmap 'b0' is readonly and cannot be modified");
    bitmap.readOnly = false;
    bitmap.markInconsistent();
    expect(failure(() => list.checkResize(MiB))).toMatchObject({
      message: "Bitmap 'b0' is inconsistent and cannot be used",
      hint: 'Try block-dirty-bitmap-remove to delete this bitmap from disk',
    });
  });

  test('the commit step cannot fail: a bitmap that cannot follow is inconsistent and records no more', () => {
    const list = listOf(MiB);
    const small = list.create({ name: 'small', granularity: 512 });
    const large = list.create({ name: 'large', granularity: 65536 });
    list.createSuccessor(small);
    list.resized(2 ** 52);
    list.changed(2 ** 52 - 1, 1);
    expect([small.inconsistent, large.inconsistent, large.count]).toEqual([true, false, 65536]);
    list.reclaim(small);
    list.changed(2 ** 52, 10);
    list.changed(Number.MAX_SAFE_INTEGER, 10);
    expect([small.count, large.size]).toEqual([0, Number.MAX_SAFE_INTEGER]);
    list.resized(100);
    expect([small.size, large.size, large.count]).toEqual([100, 100, 0]);
  });

  test('no write is lost between a bitmap and its successors, whatever becomes of them', () => {
    const write = fc.tuple(fc.integer({ min: 0, max: 63 }), fc.integer({ min: 1, max: 8 }));
    const step = fc.oneof(write, write, fc.constantFrom('freeze', 'abdicate', 'reclaim', 'toggle'));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const list = listOf(64 * 512);
        let bitmap = list.create({ name: 'b0', granularity: 512 });
        let own = new Set<number>();
        let later: Set<number> | undefined;
        let recording = true;
        for (const each of steps) {
          if (typeof each !== 'string') {
            const [first, count] = [each[0], Math.min(each[1], 64 - each[0])];
            list.changed(first * 512 + 511, (count - 1) * 512 + 1);
            for (let granule = first; recording && granule < first + count; granule++) (later ?? own).add(granule);
          } else if (each === 'toggle') {
            const recorder = bitmap.successor ?? bitmap;
            recording = !recording;
            if (recording) list.enable(recorder);
            else list.disable(recorder);
          } else if (each === 'freeze' && later === undefined) {
            list.createSuccessor(bitmap);
            later = new Set();
          } else if (each === 'abdicate' && later !== undefined) {
            bitmap = list.abdicate(bitmap);
            own = later;
            later = undefined;
          } else if (each === 'reclaim' && later !== undefined) {
            list.reclaim(bitmap);
            for (const granule of later) own.add(granule);
            later = undefined;
          }
          expect(list.query()).toMatchObject([{ name: 'b0', count: own.size * 512, recording }]);
          expect(bitmap.successor?.count).toBe(later === undefined ? undefined : later.size * 512);
          for (let granule = 0; granule < 64; granule++) expect(bitmap.get(granule * 512)).toBe(own.has(granule));
        }
      }),
    );
  });
});

describe('what a bitmap is', () => {
  test('BL-BITMAP-1: it is of one node; names are unique there, and another node has its own', () => {
    const [here, there] = [listOf(MiB), listOf(MiB)];
    const bitmap = here.create({ name: 'b0' });
    const other = there.create({ name: 'b0' });
    here.changed(0, 1);
    expect([bitmap.count, other.count]).toEqual([65536, 0]);
    expect(failure(() => here.create({ name: 'b0' })).code).toBe('EEXIST');
    // Any number may do without a name.
    expect([here.create().name, here.create().name]).toEqual([undefined, undefined]);
    there.release(bitmap);
    expect([here.find('b0'), there.find('b0')]).toEqual([bitmap, other]);
  });

  test('BL-BITMAP-1: sizes, granularities, offsets and counts are bytes', () => {
    const list = listOf(MiB + 1);
    const bitmap = list.create({ granularity: 512 });
    expect([bitmap.size, bitmap.granularity]).toEqual([MiB + 1, 512]);
    list.changed(511, 1);
    list.changed(MiB, 1);
    expect(areas(bitmap.content)).toEqual([
      [0, 512],
      [MiB, MiB + 1],
    ]);
    expect(bitmap.count).toBe(1024);
  });

  // Name, what is done to it, then: recording, busy, marked as disabled, has a successor.
  test.each<[string, (list: BitmapList, bitmap: DirtyBitmap) => void, readonly boolean[]]>([
    ['active', () => {}, [true, false, false, false]],
    ['disabled', (list, bitmap) => list.disable(bitmap), [false, false, true, false]],
    ['frozen while active', (list, bitmap) => list.createSuccessor(bitmap), [true, true, true, true]],
    [
      'frozen while disabled',
      (list, bitmap) => {
        list.disable(bitmap);
        list.createSuccessor(bitmap);
      },
      [false, true, true, true],
    ],
    [
      'frozen, the successor disabled since',
      (list, bitmap) => list.disable(list.createSuccessor(bitmap)),
      [false, true, true, true],
    ],
    [
      'abdicated',
      (list, bitmap) => {
        list.createSuccessor(bitmap);
        list.abdicate(bitmap);
      },
      [true, false, false, false],
    ],
  ])('BL-BITMAP-2: %s', (_state, bring, expected) => {
    const list = listOf(MiB);
    bring(list, list.create({ name: 'b0' }));
    const bitmap = list.require('b0');
    const [info] = list.query();
    expect([info?.recording, info?.busy, bitmap.disabled, bitmap.successor !== undefined]).toEqual(expected);
    expect([info?.persistent, info?.inconsistent]).toEqual([false, undefined]);
    // What is told of it is what a write does.
    list.changed(0, 1);
    expect(list.all.some(({ count }) => count > 0)).toBe(info?.recording);
  });

  test('BL-BITMAP-2: persistent and inconsistent are told beside; read-only is a further mark that is not', () => {
    const list = listOf(MiB);
    const bitmap = list.create({ name: 'b0', persistent: true });
    bitmap.readOnly = true;
    expect(list.query()).toEqual([
      { name: 'b0', count: 0, granularity: 65536, recording: true, busy: false, persistent: true },
    ]);
    bitmap.markInconsistent();
    expect(list.query()).toMatchObject([{ recording: false, persistent: true, inconsistent: true }]);
  });
});
