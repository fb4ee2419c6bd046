/** N-62, M-EXP-2: exports offer the bitmaps that images keep, of any image of the chain. */
import { expect, test } from 'vitest';
import { bitmapListOf, bitmaps } from '../../src/bitmaps/bitmaps.ts';
import { createImage } from '../../src/core/create.ts';
import { NbdExport } from '../../src/nbd/server/export.ts';
import { KIB, keeping, onDisk, open, patched, SIZE } from '../support/kept-bitmaps.ts';
import { graphOn, PATH } from '../support/sim-disks.ts';

const TOP = '/top.qcow2';

test('read-only and writable; the bitmap is busy as long', async () => {
  const host = await keeping(['b0']);
  for (const writable of [false, true]) {
    await using disk = await open(host, { writable });
    const shown = new NbdExport(disk, { bitmaps: ['b0'] }, false);
    expect(shown.info.contexts).toEqual(['base:allocation', 'qemu:dirty-bitmap:b0']);
    const context = shown.contexts[1];
    expect(context?.extentNow(0, SIZE)).toEqual({ length: KIB, flags: 1 });
    expect(await context?.extent(KIB, SIZE - KIB)).toEqual({ length: SIZE - KIB, flags: 0 });
    expect(() => bitmaps(disk).clear('b0')).toThrow("Bitmap 'b0' is currently in use");
    shown.close();
  }
});

test('below an overlay', async () => {
  const host = await keeping(['b0']);
  const options = { backing_file: PATH, backing_fmt: 'qcow2' };
  await createImage(graphOn(host), { filename: TOP, format: 'qcow2', options });
  await using disk = await graphOn(host).open(TOP, { format: 'qcow2' });
  const shown = new NbdExport(disk, { bitmaps: ['b0'] }, false);
  expect(shown.contexts[1]?.extentNow(0, SIZE)).toEqual({ length: KIB, flags: 1 });
  shown.close();
});

test('not one that is inconsistent, or that there is not', async () => {
  const host = await keeping(['b0']);
  const broken = patched(host, (onDisk(host).bitmaps[0]?.recordAt ?? 0) + 15, [3]);
  await using disk = await open(broken, { writable: false });
  const shown = (name: string) => () => new NbdExport(disk, { bitmaps: [name] }, false);
  expect(shown('b0')).toThrow("Bitmap 'b0' is inconsistent and cannot be used");
  expect(shown('nope')).toThrow("Bitmap 'nope' is not found");
  expect(bitmapListOf(disk).require('b0').busy).toBe(false);
});
