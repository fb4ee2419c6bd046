/** Changes of bitmaps that a flush makes durable, beside writes, and without an end of the session (Q-BMP-6). */
import { describe, expect, test } from 'vitest';
import { areas, flags, KIB, keeping, made, open, report, SIZE } from '../../../../tests/support/kept-bitmaps.ts';
import { graphOn, PATH } from '../../../../tests/support/sim-disks.ts';
import { bitmapListOf, bitmaps, type NodeBitmaps } from '../../../bitmaps/bitmaps.ts';
import { SimHost } from '../../../testing/index.ts';

/** A host whose power went: what is in the file is all that is left. */
function crashed(host: SimHost): SimHost {
  const other = new SimHost({ record: false });
  other.put(PATH, host.contents(PATH));
  return other;
}

async function listed(host: SimHost) {
  await using disk = await open(crashed(host), { writable: false });
  return Object.fromEntries(
    bitmaps(disk)
      .list()
      .map(({ name, recording, inconsistent }) => [
        name,
        inconsistent ? 'lost' : [recording, ...areas(disk, name ?? '')],
      ]),
  );
}

const FIRST = [0, KIB];
const changes: readonly (readonly [string, (list: NodeBitmaps) => unknown, object])[] = [
  ['add', (list) => list.add('b2', { persistent: true, granularity: 512 }), { b2: [true] }],
  ['clear', (list) => list.clear('b0'), { b0: [true] }],
  ['disable', (list) => list.disable('b0'), { b0: [false, FIRST] }],
  ['remove', (list) => list.remove('b0'), { b0: undefined }],
  [
    'enable and merge',
    (list) => {
      list.disable('b0');
      list.clear('b1');
      list.merge('b1', ['b0']);
      list.enable('b0');
    },
    { b1: [true, FIRST], b0: [true, FIRST] },
  ],
];

describe('what users change', () => {
  test.each(changes)('%s: durable with a flush', async (_, change, expected) => {
    const host = await keeping(['b0', 'b1']);
    await using disk = await open(host);
    await change(bitmaps(disk));
    await disk.flush();
    expect(await listed(host)).toEqual(
      JSON.parse(JSON.stringify({ b0: [true, FIRST], b1: [true, FIRST], ...expected })),
    );
  });

  test('also in a session that has written; what is written then marks them anew', async () => {
    const host = await keeping(['b0', 'b1']);
    await using disk = await open(host);
    await disk.write(8192, new Uint8Array(512).fill(2));
    expect(flags(host)).toEqual(['ia', 'ia']);
    bitmaps(disk).clear('b1');
    await disk.flush();
    expect(await listed(host)).toEqual({ b0: [true, FIRST, [8192, 512]], b1: [true] });
    await disk.flush();
    await disk.write(0, new Uint8Array(512).fill(3));
    expect(await listed(host)).toEqual({ b0: 'lost', b1: 'lost' });
    await disk.flush();
    // Nobody but the disk has changed them: that is told when it is closed.
    expect(await listed(host)).toEqual({ b0: 'lost', b1: 'lost' });
    await disk.close();
    expect(await listed(host)).toEqual({ b0: [true, FIRST, [8192, 512]], b1: [true, [0, 512]] });
    expect(await report(host)).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  test('a job that ends with another bitmap (BL-BITMAP-5)', async () => {
    const host = await keeping(['b0']);
    await using disk = await open(host);
    const list = bitmapListOf(disk);
    const bitmap = list.require('b0');
    list.createSuccessor(bitmap);
    list.abdicate(bitmap);
    await disk.flush();
    expect(await listed(host)).toEqual({ b0: [true] });
  });

  test('writes beside the flush: a bitmap that claims to be complete has them, those to come wait', async () => {
    const host = await made();
    // Time passes between a request and its end.
    const slow = new SimHost({ latency: { min: 1, max: 5 }, seed: 4 }, host.snapshot());
    await using disk = await open(slow);
    await bitmaps(disk).add('b0', { persistent: true, granularity: 512 });
    const early = disk.write(4096, new Uint8Array(2048).fill(1));
    const flushing = disk.flush();
    await slow.clock.sleep(1);
    const late = disk.write(16384, new Uint8Array(512).fill(2));
    await Promise.all([early, flushing, late]);
    expect(await listed(slow)).toEqual({ b0: 'lost' });
    bitmaps(disk).disable('b0');
    await disk.flush();
    expect(await listed(slow)).toEqual({ b0: [false, [4096, 2048], [16384, 512]] });
  });

  test('beside a change of the size they wait for the next flush', async () => {
    const host = await keeping(['b0']);
    await using disk = await open(host);
    const resizing = disk.resize(SIZE * 2);
    bitmaps(disk).clear('b0');
    await Promise.all([resizing, disk.flush()]);
    await disk.flush();
    expect(await listed(host)).toEqual({ b0: [true] });
  });

  test('a failure is told once, the data are durable, and closing tries again', async () => {
    const host = await keeping(['b0']);
    await using disk = await open(host);
    await disk.write(8192, new Uint8Array(512).fill(2));
    await disk.flush();
    bitmaps(disk).clear('b0');
    host.faults.inject({ operation: 'write', code: 'ENOSPC', times: 1 });
    await expect(disk.flush()).rejects.toMatchObject({ code: 'ENOSPC' });
    await disk.flush();
    expect(await listed(host)).toEqual({ b0: 'lost' });
    await disk.close();
    expect(await listed(host)).toEqual({ b0: [true] });
  });
});

test('BL-BITMAP-7: a copy inside the host goes through the image, which marks its bitmaps first', async () => {
  const host = await keeping(['b0']);
  host.put('/other.raw', new Uint8Array(4096).fill(5));
  const graph = graphOn(host);
  await using source = await graph.open('/other.raw', { format: 'raw' });
  await using disk = await graph.open(PATH, { format: 'qcow2', writable: true });
  await expect(disk.copyFrom(source, 0, 0, KIB)).rejects.toMatchObject({ code: 'ENOTSUP' });
  expect(flags(host)).toEqual(['-a']);
});
