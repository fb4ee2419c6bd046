import { describe, expect, test } from 'vitest';
import { areas, busyText, failure, listOf, MiB } from '../../tests/support/bitmaps.ts';
import { mergeBitmaps } from './dirty-bitmap.ts';

describe('use (BL-BITMAP-13)', () => {
  test('the texts, in the order of the checks', () => {
    const bitmap = listOf(MiB).create({ name: 'b0' });
    bitmap.markInconsistent();
    expect(failure(() => bitmap.requireUsable())).toEqual({
      code: 'EINVAL',
      message: "Bitmap 'b0' is inconsistent and cannot be used",
      node: 'n0',
      hint: 'Try block-dirty-bitmap-remove to delete this bitmap from disk',
    });
    bitmap.readOnly = true;
    expect(failure(() => bitmap.requireUsable())).toEqual({
      code: 'EPERM',
      message: "Bitmap 'b0' is readonly and cannot be modified",
      node: 'n0',
      hint: undefined,
    });
    bitmap.busy = true;
    expect(failure(() => bitmap.requireUsable())).toMatchObject({ code: 'EBUSY', message: busyText('b0') });
    bitmap.requireUsable('busy', 'readOnly', 'inconsistent');
    expect(failure(() => bitmap.requireUsable('busy', 'readOnly')).code).toBe('EINVAL');
  });

  test('set, reset and clear need a bitmap that is not read-only (BL-BITMAP-6)', () => {
    const bitmap = listOf(MiB).create({ name: 'b0', disabled: true });
    bitmap.busy = true;
    bitmap.set(0, MiB);
    bitmap.reset(0, 65536);
    bitmap.readOnly = true;
    for (const action of [() => bitmap.set(0, 1), () => bitmap.reset(0, MiB), () => bitmap.clear()]) {
      expect(failure(action).message).toBe("Bitmap 'b0' is readonly and cannot be modified");
    }
    expect(areas(bitmap.content)).toEqual([[65536, MiB]]);
  });

  test('clear hands out the former content, which can be restored (BL-BITMAP-6)', () => {
    const bitmap = listOf(MiB).create();
    bitmap.set(100000, 1);
    const iterator = bitmap.iterate();
    const former = bitmap.clear();
    expect([bitmap.count, former.count, iterator.next()]).toEqual([0, 65536, -1]);
    bitmap.set(0, 1);
    bitmap.restore(former);
    expect(areas(bitmap.content)).toEqual([[65536, 131072]]);
  });

  test('merge: sizes must be equal, a source may be read-only, all or nothing', () => {
    const list = listOf(MiB);
    const target = list.create({ name: 'to' });
    const source = list.create({ name: 'from', granularity: 512 });
    const other = listOf(2 * MiB).create({ name: 'other' });
    source.set(0, 1);
    source.readOnly = true;
    expect(failure(() => mergeBitmaps(target, [source, other]))).toMatchObject({
      code: 'EINVAL',
      message:
        "Bitmaps are of different sizes (destination size is 1048576, source size is 2097152) and can't be merged",
    });
    expect(target.count).toBe(0);
    mergeBitmaps(target, [source, target]);
    expect(target.count).toBe(65536);
    expect(failure(() => mergeBitmaps(source, [target])).message).toBe(
      "Bitmap 'from' is readonly and cannot be modified",
    );
    source.busy = true;
    expect(failure(() => mergeBitmaps(target, [source])).message).toBe(busyText('from'));
    source.busy = false;
    source.markInconsistent();
    expect(failure(() => mergeBitmaps(target, [source])).message).toBe(
      "Bitmap 'from' is inconsistent and cannot be used",
    );
  });

  test('open iterators are counted (BL-BITMAP-10)', () => {
    const list = listOf(MiB);
    const bitmap = list.create({ name: 'b0', granularity: 512 });
    bitmap.set(0, 2000);
    const iterator = bitmap.iterate(600);
    expect([iterator.next(), iterator.next(), iterator.next(), iterator.next()]).toEqual([512, 1024, 1536, -1]);
    {
      using second = bitmap.iterate();
      iterator.close();
      expect([second.next(), bitmap.pinned]).toEqual([0, true]);
    }
    expect(bitmap.pinned).toBe(false);
    for (const { offset } of bitmap.areas(0, MiB, 512)) {
      expect(bitmap.pinned).toBe(true);
      if (offset === 512) break;
    }
    expect(bitmap.pinned).toBe(false);
    expect([...bitmap.areas(100, 2000, 512)].map(({ offset, length }) => [offset, length])).toEqual([
      [100, 512],
      [612, 512],
      [1124, 512],
      [1636, 364],
    ]);
    expect(() => bitmap.iterate(MiB)).toThrow(RangeError);
    expect(bitmap.pinned).toBe(false);
  });
});
