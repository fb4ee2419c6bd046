/** Sizes and what they take: BL-SIZE. */
import { describe, expect, test } from 'vitest';
import type { OpenOptions } from '../../src/core/disk.ts';
import { type DriverSpec, defineFormat } from '../../src/core/driver.ts';
import { Permission } from '../../src/core/permissions.ts';
import { truncate } from '../../src/core/request.ts';
import { raw } from '../../src/formats/raw.ts';
import { overlay } from '../support/overlay.ts';
import { failing, failureOf, gate, graphOf, plainFormat, Storage, storageProtocol } from './storage.ts';

async function opened(length: number, options: OpenOptions = { writable: true }) {
  const storage = new Storage(length);
  const graph = graphOf([storageProtocol(storage), raw, plainFormat]);
  return { storage, graph, disk: await graph.open({ driver: 'raw', file: { driver: 'store' } }, options) };
}

describe('changes of size', () => {
  test('BL-SIZE-3, BL-SIZE-4: refusals, in this order', async () => {
    const { disk, storage } = await opened(8192);
    const negative = { code: 'EINVAL', message: 'Image size cannot be negative' };
    expect(await failureOf(disk.resize(-512))).toEqual(negative);
    const broken = { code: 'EINVAL', message: 'Image size must be a whole number of bytes' };
    expect(await failureOf(disk.resize(0.5))).toEqual(broken);
    expect((await failureOf(disk.resize(512))).code).toBe('EINVAL');
    const reading = await opened(8192, {});
    expect(await failureOf(reading.disk.resize(512))).toEqual({ code: 'EACCES', message: 'Image is read-only' });
    const fixed = new Storage(8192);
    fixed.without.push('truncate');
    const other = await graphOf([storageProtocol(fixed)]).open({ driver: 'store' });
    const unable = { code: 'ENOTSUP', message: 'Image format driver does not support resize' };
    expect(await failureOf(other.resize(512))).toEqual(unable);
    await disk.close();
    expect((await failureOf(disk.resize(512))).code).toBe('ENOMEDIUM');
    expect(storage.bytes.length).toBe(8192);
  });

  test('the length is the new one, and requests up to it are taken', async () => {
    const { disk, storage } = await opened(8192);
    await disk.resize(12288);
    expect([disk.length, storage.bytes.length]).toEqual([12288, 12288]);
    await disk.write(12287, new Uint8Array([1]));
    await disk.resize(4096, { shrink: true });
    expect((await failureOf(disk.read(4096, 1))).code).toBe('EIO');
  });

  test('BL-SIZE-4: lengths that cannot be told, of the disk and of what is below it', async () => {
    const top = new Storage(4096);
    const below = new Storage(8192);
    const lost = new Set<string>();
    const moody = (name: string, storage: Storage): DriverSpec => ({
      ...storageProtocol(storage, name),
      open: async () => ({
        ...storage.node(),
        length: () => (lost.has(name) ? failing('EIO')() : storage.bytes.length),
      }),
    });
    const resizable = defineFormat({
      ...overlay,
      name: 'resizable',
      open: async (context) => ({
        ...(await overlay.open(context as never)),
        truncate: (length, options) => context.file.truncate(length, options),
      }),
    });
    const graph = graphOf([moody('store', top), moody('below', below), resizable]);
    const tree = { driver: 'resizable', file: { driver: 'store' }, backing: { driver: 'below' } };
    const disk = await graph.open(tree, { writable: true });
    lost.add('below');
    expect(await failureOf(truncate(disk.node, 8192, {}))).toEqual({
      code: 'EIO',
      message: 'Could not get backing file size: Input/output error',
    });
    lost.add('store');
    expect(await failureOf(truncate(disk.node, 8192, {}))).toEqual({
      code: 'EIO',
      message: 'Failed to get old image size: Input/output error',
    });
    expect(top.bytes.length).toBe(4096);
    lost.clear();
    await disk.close();
  });

  test('of a disk: smaller only where that is asked for', async () => {
    const { disk, storage } = await opened(8192);
    await disk.resize(12288);
    expect((await failureOf(disk.resize(512))).code).toBe('EINVAL');
    expect([disk.length, storage.bytes.length]).toEqual([12288, 12288]);
    await disk.resize(512, { shrink: true });
    expect(disk.length).toBe(512);
  });

  test('resizing is held only while it lasts, however it ends', async () => {
    const { disk, storage } = await opened(8192);
    const holds = () => (storage.permissions.at(-1)?.need ?? 0) & Permission.resize;
    const hold = gate();
    storage.before = hold.wait;
    const both = [disk.resize(9216), disk.resize(10240)];
    expect(holds()).not.toBe(0);
    hold.open();
    await Promise.all(both);
    expect(holds()).toBe(0);
    storage.before = failing('ENOSPC');
    expect((await failureOf(disk.resize(20480))).code).toBe('ENOSPC');
    expect(holds()).toBe(0);
    expect(disk.length).toBe(10240);
  });

  test('closing meanwhile waits for it', async () => {
    const { disk, storage, graph } = await opened(8192);
    const hold = gate();
    storage.before = ({ kind }) => (kind === 'truncate' ? hold.wait() : undefined);
    const truncating = disk.resize(9216);
    const closing = disk.close();
    hold.open();
    await Promise.all([truncating, closing]);
    expect(storage.story).toEqual(['truncate 9216', 'flush', 'close']);
    expect(graph.nodes()).toEqual([]);
  });
});

describe('sizes', () => {
  test('BL-SIZE-1: raw lengths are whole sectors; the rest of the last one is zero', async () => {
    const { disk, storage } = await opened(1000);
    storage.bytes.fill(1);
    expect(disk.length).toBe(1024);
    const found = await disk.read(0, 1024);
    expect([found[999], found[1000], found[1023]]).toEqual([1, 0, 0]);
  });

  test('BL-SIZE-5: bytes in use are the driver’s own answer, or those of the files below', async () => {
    const storage = new Storage(1000);
    const knowing = {
      ...storageProtocol(storage),
      open: async () => ({ ...storage.node(), allocatedSize: () => 4096 }),
    };
    const graph = graphOf([knowing, plainFormat]);
    const disk = await graph.open({ driver: 'plain', file: { driver: 'store' } });
    expect(disk.allocatedSize()).toBe(4096);
    const other = await graphOf([storageProtocol(new Storage(1))]).open({ driver: 'store' });
    expect(other.allocatedSize()).toBeUndefined();
  });
});
