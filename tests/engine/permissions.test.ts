/** BL-PERM-1 to 7, in the engine; the locks that other processes see belong to the file driver's tests. */
import { describe, expect, test } from 'vitest';
import { defineFormat } from '../../src/core/driver.ts';
import { BlockError } from '../../src/core/errors.ts';
import type { Graph } from '../../src/core/graph.ts';
import { ALL_PERMISSIONS, childPermissions, Permission, permissionNames } from '../../src/core/permissions.ts';
import { raw } from '../../src/formats/raw.ts';
import { failureOf, graphOf, plainFormat, Storage, storageProtocol } from './storage.ts';

const READ = Permission.consistentRead;
const { write: WRITE, writeUnchanged: UNCHANGED, resize: RESIZE } = Permission;

function newGraph(storage = new Storage(8192)): { storage: Storage; graph: Graph } {
  return { storage, graph: graphOf([storageProtocol(storage), plainFormat, raw]) };
}

const TOP = { driver: 'plain', 'node-name': 'top', file: { driver: 'store', 'node-name': 'below' } };

describe('permissions of a node', () => {
  test('BL-PERM-1: what its users need together, what all of them share', async () => {
    const { storage, graph } = newGraph();
    const first = await graph.open({ driver: 'store' }, { nodeName: 'below' });
    expect(storage.permissions.at(-1)).toEqual({ need: READ, share: ALL_PERMISSIONS });
    const second = await graph.openReference('below');
    expect(storage.permissions.at(-1)).toEqual({ need: READ, share: ALL_PERMISSIONS });
    await first.close();
    await second.close();
  });

  test('BL-PERM-2: two writers, to the letter', async () => {
    const { graph } = newGraph();
    const disk = await graph.open({ driver: 'store' }, { nodeName: 'below', writable: true });
    expect(await failureOf(graph.openReference('below', { writable: true }))).toEqual({
      code: 'EPERM',
      message:
        "Permission conflict on node 'below': permissions 'write' are both required by an unnamed block device (uses node 'below' as 'root' child) and unshared by an unnamed block device (uses node 'below' as 'root' child).",
    });
    await disk.write(0, new Uint8Array(1));
    await (await graph.openReference('below')).close();
    await disk.close();
    expect(graph.nodes()).toEqual([]);
  });

  test('BL-PERM-2: a writer below a format', async () => {
    const { graph } = newGraph();
    const disk = await graph.open(TOP);
    const conflict =
      "Permission conflict on node 'below': permissions 'write' are both required by an unnamed block device (uses node 'below' as 'root' child) and unshared by node 'top' (uses node 'below' as 'file' child).";
    expect(await failureOf(graph.openReference('below', { writable: true }))).toEqual({
      code: 'EPERM',
      message: conflict,
    });
    await (await graph.openReference('below')).close();
    await disk.close();
  });

  test('BL-PERM-2: the list is joined by commas', () => {
    expect(permissionNames(READ | WRITE | UNCHANGED | RESIZE)).toBe('consistent read, write, write unchanged, resize');
    expect(permissionNames(READ | RESIZE)).toBe('consistent read, resize');
  });

  test('BL-PERM-3: writing to a read-only node', async () => {
    const { graph } = newGraph();
    await graph.open({ driver: 'store' }, { nodeName: 'below' });
    expect(await failureOf(graph.openReference('below', { writable: true }))).toEqual({
      code: 'EPERM',
      message: 'Block node is read-only',
    });
  });

  test('BL-PERM-3: a length that is not a multiple of the alignment cannot be written without resizing', async () => {
    const storage = new Storage(1000);
    storage.limits = { requestAlign: 512 };
    const { graph } = newGraph(storage);
    expect(await failureOf(graph.open({ driver: 'store' }, { writable: true }))).toEqual({
      code: 'EPERM',
      message: "Cannot get 'write' permission without 'resize': Image size is not a multiple of request alignment",
    });
    expect(graph.nodes()).toEqual([]);
    await (await graph.open({ driver: 'store' })).close();
    await (await graph.open(TOP, { writable: true })).close();
  });
});

describe('permissions of children', () => {
  const node = { writable: true, noIO: false };

  test('BL-PERM-4: a filter passes everything through', () => {
    for (let need = 0; need < 16; need++) {
      expect(childPermissions('filtered', node, { need, share: need ^ 15 })).toEqual({ need, share: need ^ 15 });
    }
  });

  test('BL-PERM-5: metadata adds writing and resizing while writable, reading unless no I/O, and shares neither', () => {
    const wanted = { need: 0, share: ALL_PERMISSIONS };
    expect(childPermissions('metadata', node, wanted)).toEqual({
      need: READ | WRITE | RESIZE,
      share: READ | UNCHANGED,
    });
    expect(childPermissions('metadata', { writable: false, noIO: false }, wanted)).toEqual({
      need: READ,
      share: READ | UNCHANGED,
    });
    expect(childPermissions('metadata', { writable: false, noIO: true }, wanted).need).toBe(0);
  });

  test('BL-PERM-5: data turns write-unchanged into write, and write into write and resize; never shares resize', () => {
    const share = ALL_PERMISSIONS;
    expect(childPermissions('data', node, { need: UNCHANGED, share })).toEqual({
      need: UNCHANGED | WRITE | RESIZE,
      share: READ | WRITE | UNCHANGED,
    });
    expect(childPermissions('data', node, { need: READ, share }).need).toBe(READ);
    expect(childPermissions('data', node, { need: WRITE, share }).need).toBe(WRITE | RESIZE);
  });

  test('BL-PERM-5: the file of an image, by how it is opened', async () => {
    for (const [options, need, share] of [
      [{}, READ, READ | UNCHANGED],
      [{ writable: true }, READ | WRITE | RESIZE, READ | UNCHANGED],
      [{ noIO: true }, 0, READ | UNCHANGED],
    ] as const) {
      const { storage, graph } = newGraph();
      const disk = await graph.open(TOP, options);
      expect(storage.permissions.at(-1)).toEqual({ need, share });
      await disk.close();
    }
  });

  test('BL-PERM-4: raw without a window passes everything through, and resizes only while it does', async () => {
    const { storage, graph } = newGraph();
    const disk = await graph.open({ driver: 'raw', file: { driver: 'store' } }, { writable: true });
    expect(storage.permissions.at(-1)).toEqual({ need: READ | WRITE, share: READ | UNCHANGED });
    storage.permissions.length = 0;
    await disk.resize(16384);
    expect(storage.permissions.map(({ need }) => need)).toEqual([READ | WRITE | RESIZE, READ | WRITE]);
  });

  test('BL-PERM-7: sharing by force shares everything', async () => {
    const { storage, graph } = newGraph();
    await graph.open(TOP, { forceShare: true });
    expect(storage.permissions.at(-1)?.share).toBe(ALL_PERMISSIONS);
  });
});

describe('one transaction (BL-PERM-6)', () => {
  test('a refusal by one node changes none', async () => {
    const { storage, graph } = newGraph();
    const disk = await graph.open({ driver: 'raw', file: { driver: 'store' } }, { writable: true });
    const before = storage.permissions.length;
    storage.refusePermissions = () => {
      throw new BlockError('EAGAIN', 'Failed to get "resize" lock');
    };
    expect(await failureOf(disk.resize(16384))).toEqual({
      code: 'EAGAIN',
      message: 'Failed to get "resize" lock',
    });
    expect(storage.permissions.length).toBe(before);
    expect(storage.bytes.length).toBe(8192);
    storage.refusePermissions = undefined;
    await disk.resize(16384);
    await disk.write(16000, new Uint8Array(1));
  });

  test('what was prepared before a refusal is taken back', async () => {
    const storage = new Storage(8192);
    const changes: string[] = [];
    const preparing = defineFormat({
      ...plainFormat,
      name: 'preparing',
      async open(context) {
        const change = { commit: () => void changes.push('commit'), abort: () => void changes.push('abort') };
        return { ...(await plainFormat.open(context)), preparePermissions: () => change };
      },
    });
    const graph = graphOf([storageProtocol(storage), preparing]);
    const disk = await graph.open({ driver: 'preparing', file: { driver: 'store' } }, { writable: true });
    changes.length = 0;
    storage.refusePermissions = () => {
      throw new BlockError('EAGAIN', 'Failed to get "resize" lock');
    };
    expect((await failureOf(disk.resize(16384))).code).toBe('EAGAIN');
    expect(changes).toEqual(['abort']);
  });

  test('an opening that is refused leaves nothing behind', async () => {
    const { storage, graph } = newGraph();
    storage.refusePermissions = () => {
      throw new BlockError('EAGAIN', 'Failed to get "write" lock');
    };
    expect((await failureOf(graph.open(TOP, { writable: true }))).message).toBe('Failed to get "write" lock');
    expect(graph.nodes()).toEqual([]);
    expect(storage.story).toEqual(['close']);
  });

  test('loosening never fails: a reader can go while a lock would be refused', async () => {
    const { graph } = newGraph();
    const writer = await graph.open({ driver: 'store' }, { nodeName: 'below', writable: true });
    const reader = await graph.openReference('below');
    await writer.close();
    const other = await graph.openReference('below', { writable: true });
    await other.close();
    await reader.close();
  });
});
