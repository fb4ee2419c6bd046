/** Opening the image below: BL-CHAIN-6, BL-CHAIN-7, as `qemu-io` does. */
import { expect, test } from 'vitest';
import { Layers } from '../support/layers.ts';
import { failureOf } from './storage.ts';

const top = (world: Layers, backing: object | string | null) =>
  world.graph.open({
    driver: 'layer',
    'node-name': 't',
    file: { driver: 'file', filename: '/t.layer' },
    backing,
  } as never);

test('BL-CHAIN-6: the format that the header tells is the driver, also for another file', async () => {
  const world = new Layers();
  await world.make('a');
  await world.make('t', 'a');
  expect(await failureOf(top(world, { file: { driver: 'file', filename: '/base.raw' } }))).toEqual({
    code: 'EINVAL',
    message: 'Could not open backing file: Image is not in layer format',
  });
  const disk = await top(world, { driver: 'raw', file: { driver: 'file', filename: '/base.raw' } });
  expect((await disk.read(0, 1))[0]).toBe(0xba);
  await disk.close();
  expect((await failureOf(top(world, { file: { driver: 'file', filename: '/nope' } }))).message).toBe(
    "Could not open backing file: Could not open '/nope': No such file or directory",
  );
  expect([world.names, world.host.openFiles]).toEqual([[], []]);
});

test('BL-CHAIN-7: a node by its name, or none', async () => {
  const world = new Layers();
  await world.make('t', 'base');
  expect((await failureOf(top(world, 'nope'))).message).toBe(
    "Could not open backing file: Cannot find device='nope' nor node-name='nope'",
  );
  const base = await world.graph.add(world.tree('base'));
  const named = await top(world, 'base');
  expect([named.node.backing?.node, base.pins, base.origin.inheritsFrom]).toEqual([base, 0, undefined]);
  await named.close();
  await world.graph.release(base);
  const none = await top(world, null);
  expect([none.node.backing, none.node.noBacking, (await none.read(0, 1))[0]]).toEqual([undefined, true, 0]);
  await none.close();
});
