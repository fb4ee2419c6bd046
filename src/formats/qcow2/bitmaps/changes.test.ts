/** Images that change otherwise while they keep bitmaps (Q-SIZE-1, Q-OPT-6, Q-BMP-7, Q-ORD-10). */
import { describe, expect, test } from 'vitest';
import { DRIVERS } from '../../../../tests/support/drivers.ts';
import {
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
import { graphOn, PATH } from '../../../../tests/support/sim-disks.ts';
import { bitmapListOf, bitmaps } from '../../../bitmaps/bitmaps.ts';
import { activate, inactivate } from '../../../core/activation.ts';
import { defineFormat } from '../../../core/driver.ts';
import { BlockError } from '../../../core/errors.ts';
import { Graph } from '../../../core/graph.ts';
import { reopen, setReadOnly } from '../../../core/reopen.ts';

import { SimHost } from '../../../testing/index.ts';

describe('Q-SIZE-1: resizing', () => {
  test('bitmaps follow', async () => {
    const host = await keeping(['b0']);
    {
      await using disk = await open(host);
      await disk.resize(SIZE * 40);
      await disk.write(SIZE * 40 - 512, new Uint8Array(512));
    }
    expect(onDisk(host).bitmaps[0]?.dirty).toEqual([0, 1, (SIZE * 40) / 512 - 1]);
    {
      await using disk = await open(host);
      await disk.resize(KIB, { shrink: true });
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
      await expect(disk.resize(SIZE * 2)).rejects.toThrow("Bitmap 'b1' is inconsistent and cannot be used");
    }
    {
      await using disk = await open(host, { writable: true, checkOnly: true });
      await expect(disk.resize(SIZE * 2)).rejects.toThrow(
        'Cannot resize qcow2 with persistent bitmaps that were not loaded into memory',
      );
    }
    const wide = await made({ cluster_size: 65536 });
    await using disk = await open(wide);
    await bitmaps(disk).add('b0', { persistent: true, granularity: 512 });
    await expect(disk.resize(2 ** 42)).rejects.toThrow(
      "Bitmap 'b0' doesn't satisfy the constraints: Too much space will be occupied by the bitmap. Use larger granularity",
    );
    await disk.resize(2 ** 41);
    // No program could read it.
    const empty = "Bitmap 'b0' doesn't satisfy the constraints: An empty disk has none";
    await expect(disk.resize(0, { shrink: true })).rejects.toThrow(empty);
    await bitmaps(disk).remove('b0');
    await disk.resize(0, { shrink: true });
    await expect(bitmaps(disk).add('b0', { persistent: true })).rejects.toThrow(/An empty disk has none$/);
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

  test('a reopen that is taken back leaves bitmaps that are marked again before the next write', async () => {
    const host = await keeping(['b0']);
    const stubborn = defineFormat({
      name: 'stubborn',
      summary: 'Stays as it is',
      options: {},
      async open({ file }) {
        return {
          length: () => file.length(),
          read: (offset, target) => file.read(offset, target),
          async prepareReopen() {
            throw new BlockError('EIO', 'not now');
          },
        };
      },
    });
    const graph = new Graph({ host, drivers: [...DRIVERS, stubborn] });
    const node = await graph.add({ driver: 'qcow2', 'node-name': 'n', file: { driver: 'file', filename: PATH } });
    const other = await graph.add({ driver: 'stubborn', file: { driver: 'memory', size: 512 } });
    {
      await using writer = await graph.openReference('n', { writable: true });
      await writer.write(8192, new Uint8Array(1));
    }
    const options = { 'read-only': true };
    const both = [other, node].map((each) => ({ node: each, options }));
    await expect(reopen(graph, both)).rejects.toThrow('not now');
    expect(onDisk(host).bitmaps).toMatchObject([{ inUse: false, dirty: [0, 1, 16] }]);
    await using writer = await graph.openReference('n', { writable: true });
    await writer.write(16384, new Uint8Array(1));
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
    await device.write(8192, new Uint8Array(1).fill(1));
    expect(flags(host)).toEqual(['ia', 'ia']);
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
