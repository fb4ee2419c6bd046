/** Filters: BL-TERM-3, BL-FILTER-1 to 3. */
import { expect, test } from 'vitest';
import { block, unblock } from '../../src/core/blockers.ts';
import { skipFilters } from '../../src/core/chain.ts';
import { insertFilter, requireReplaceable } from '../../src/core/chain-change.ts';
import { filled, heads, Layers } from '../support/layers.ts';

test('BL-TERM-3: a filter that leaves all out shows its child, status and length and all, at once too', async () => {
  const world = new Layers();
  const disk = await world.chain(['a', 'base']);
  await disk.write(1024, filled(1));
  const before = [
    await disk.read(0, disk.length),
    await disk.status(0, 8192),
    disk.length,
    disk.limits,
    disk.zeroInit(),
  ];
  await insertFilter(world.graph, disk.node, { driver: 'pass' });
  expect([
    await disk.read(0, disk.length),
    await disk.status(0, 8192),
    disk.length,
    disk.limits,
    disk.zeroInit(),
  ]).toEqual(before);
  await disk.writeZeroes(0, 1024);
  await disk.discard(2048, 1024);
  await disk.resize(4096, { shrink: true });
  await disk.flush();
  expect([await heads(disk), disk.length]).toEqual([[0, 1, 0, 0xba], 4096]);
});

test('BL-TERM-3: a filter that reads and writes by itself is not gone around', async () => {
  const world = new Layers();
  const disk = await world.graph.open(world.tree('base'), { writable: true });
  await insertFilter(world.graph, disk.node, { driver: 'invert' });
  expect([(await disk.read(0, 1))[0], disk.tryReadNow(0, new Uint8Array(1))]).toEqual([0x45, false]);
  expect(disk.tryWriteNow(0, filled(1))).toBe(false);
  await disk.write(0, filled(0xf0));
  expect(await disk.status(0, 8192)).toMatchObject({ data: true, length: 8192 });
  expect([world.counts.reads, world.counts.writes, world.host.contents('/base.raw')[0]]).toEqual([1, 1, 0x0f]);
});

test('BL-FILTER-1: the first that is no filter', async () => {
  const world = new Layers();
  const disk = await world.chain(['a', 'base']);
  for (const name of ['f', 'g']) await insertFilter(world.graph, disk.node, { driver: 'pass', 'node-name': name });
  expect([disk.node.name, skipFilters(disk.node).name, skipFilters(world.node('base')).name]).toEqual([
    'g',
    'a',
    'base',
  ]);
});

test('BL-FILTER-2: a node that is not there, or is busy', async () => {
  const world = new Layers();
  const disk = await world.chain(['a', 'base']);
  const check = (name: string) => () => requireReplaceable(world.graph, disk.node, name);
  expect(check('nope')).toThrow(
    expect.objectContaining({ code: 'EINVAL', message: "Failed to find node with node-name='nope'" }),
  );
  const reason = { text: 'it is needed' };
  block(disk.node, reason, ['replace']);
  expect(check('a')).toThrow(expect.objectContaining({ code: 'EBUSY', message: "Node 'a' is busy: it is needed" }));
  unblock(disk.node, reason);
  expect(check('a')()).toBe(disk.node);
});

test('BL-FILTER-3: itself, through filters, or where a driver says so; else data would change', async () => {
  const world = new Layers();
  const disk = await world.chain(['a', 'base']);
  await insertFilter(world.graph, disk.node, { driver: 'pass', 'node-name': 'f' });
  const find = (name: string) => requireReplaceable(world.graph, disk.node, name);
  expect([find('f'), find('a')]).toEqual([world.node('f'), world.node('a')]);
  const refusal = expect.objectContaining({
    code: 'EINVAL',
    message:
      "Cannot replace 'a-file' by a node mirrored from 'f', because it cannot be guaranteed that doing so would not lead to an abrupt change of visible data",
  });
  expect(() => find('a-file')).toThrow(refusal);
  world.node('a').impl.showsChild = (child) => child === 'file';
  expect(find('a-file')).toBe(world.node('a-file'));
});
