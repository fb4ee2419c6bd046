/** What a node is, and what it can be told when it is opened: BL-TERM-1, -2, -8. Other terms are shown beside what uses them. */
import { describe, expect, test } from 'vitest';
import type { OpenOptions } from '../../src/core/disk.ts';
import type { BlockNode } from '../../src/core/node.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { raw } from '../../src/formats/raw.ts';
import { filled, Layers, SIZE } from '../support/layers.ts';
import { graphOf, Storage, storageProtocol } from './storage.ts';

test('BL-TERM-1: a node has a driver, options, children, parents, a length, names, limits and trackers of its own', async () => {
  const world = new Layers();
  const disk = await world.chain(['a', 'base']);
  const { node } = disk;
  expect([node.driver.name, node.impl.length(), node.writable]).toEqual(['layer', SIZE, true]);
  expect([world.node('a-file').options, world.node('base').options]).toEqual([{ filename: '/a.layer' }, {}]);
  expect(node.children.map(({ name, node: child, parent }) => [name, child.name, parent])).toEqual([
    ['backing', 'base', node],
    ['file', 'a-file', node],
  ]);
  expect(node.parents.map(({ name, node: child, parent }) => [name, child, parent])).toEqual([['root', node, disk]]);
  expect([node.exactName, node.filename]).toEqual(['/a.layer', '/a.layer']);
  expect(node.fullOptions).toMatchObject({ driver: 'layer', file: { driver: 'file', filename: '/a.layer' } });
  expect([node.limits.requestAlign, node.trackers, node.context]).toEqual([1, [], undefined]);
  // Its references: the user's link, and one that is taken without a link.
  world.graph.hold(node);
  await disk.close();
  expect(world.names).toContain('a');
  await world.graph.release(node);
  expect(world.names).toEqual([]);
});

test('BL-TERM-1: what is empty is a device, which has no node', async () => {
  const { graph } = new Layers();
  const device = graph.devices.add('d0');
  expect([device.node, device.isInserted]).toEqual([undefined, false]);
  await device.insert({ driver: 'file', filename: '/base.raw' });
  expect([device.node?.driver.name, device.isInserted]).toEqual(['file', true]);
  await device.remove({ force: true });
});

test.each([
  [0, 0],
  [1, 512],
  [511, 512],
  [512, 512],
  [513, 1024],
])('BL-TERM-2: a sector is 512 bytes: %i bytes are a disk of %i', async (bytes, length) => {
  const graph = graphOf([storageProtocol(new Storage(bytes)), raw]);
  const disk = await graph.open({ driver: 'raw', file: { driver: 'store' } });
  expect(disk.length).toBe(length);
});

describe('BL-TERM-8: flags', () => {
  /** What a node shows of a flag. */
  const shown: Readonly<Record<string, (node: BlockNode) => unknown>> = {
    writable: (node) => node.writable,
    direct: ({ settings }) => settings.cache.direct,
    'no-flush': ({ settings }) => settings.cache.noFlush,
    'write-back': ({ settings }) => settings.cache.writeBack,
    'no-backing': (node) => node.noBacking,
    'copy-on-read': (node) => node.copyOnRead > 0,
    incoming: (node) => node.inactive,
    'check-only': ({ settings }) => settings.checkOnly,
    'no-I/O': ({ settings }) => settings.noIO,
    unmap: ({ settings }) => settings.discard === 'unmap',
    'auto-read-only': ({ settings }) => settings.autoReadOnly,
    temporary: (node) => node.temporary,
    'protocol-level': ({ origin }) => origin.protocolLevel,
  };
  const set = (node: BlockNode) => Object.keys(shown).filter((flag) => shown[flag]?.(node));

  const cases: readonly (readonly [OpenOptions, readonly string[]])[] = [
    [{}, ['write-back', 'unmap']],
    [{ writable: true }, ['writable', 'write-back', 'unmap']],
    [{ cache: 'none' }, ['direct', 'write-back', 'unmap']],
    [{ cache: 'directsync' }, ['direct', 'unmap']],
    [{ cache: 'unsafe' }, ['no-flush', 'write-back', 'unmap']],
    [{ cache: 'writethrough' }, ['unmap']],
    [{ discard: 'ignore' }, ['write-back']],
    [{ noBacking: true }, ['write-back', 'no-backing', 'unmap']],
    [{ checkOnly: true }, ['write-back', 'check-only', 'unmap']],
    [{ noIO: true }, ['write-back', 'no-I/O', 'unmap']],
    [{ writable: true, copyOnRead: true }, ['writable', 'write-back', 'copy-on-read', 'unmap']],
  ];
  test.each(cases)('%j', async (options, flags) => {
    const world = new Layers();
    await world.make('a', 'base');
    const disk = await world.graph.open('/a.layer', { format: 'layer', ...options });
    expect(set(disk.node)).toEqual(flags);
    const file = disk.node.child('file')?.node;
    expect(file && set(file)).toContain('protocol-level');
    await disk.close();
  });

  test('incoming, with all below it, until it is activated', async () => {
    const world = new Layers();
    const disk = await world.graph.open('/base.raw', { format: 'raw', writable: true, inactive: true });
    expect(set(disk.node)).toContain('incoming');
    expect(disk.node.children.flatMap(({ node }) => set(node))).toContain('incoming');
    await disk.close();
  });

  test('auto-read-only comes from options', async () => {
    const { graph } = new Layers();
    const tree = { driver: 'raw', 'auto-read-only': true, file: { driver: 'file', filename: '/base.raw' } };
    const disk = await graph.open(tree);
    expect(set(disk.node)).toContain('auto-read-only');
    await disk.close();
  });

  test('snapshot: the node below is opened for reading, what is on top is temporary and goes when it closes', async () => {
    const world = new Layers({ drivers: DRIVERS.filter(({ name }) => name === 'qcow2' || name === 'vdi') });
    const disk = await world.graph.open('/base.raw', { format: 'raw', writable: true, snapshot: true });
    const flags = set(disk.node);
    expect(flags).toEqual(expect.arrayContaining(['writable', 'temporary', 'no-flush']));
    expect(disk.node.backing && set(disk.node.backing.node)).not.toContain('writable');
    await disk.write(0, filled(1));
    await disk.close();
    expect(world.host.contents('/base.raw')[0]).toBe(0xba);
  });
});
