/** Links that changes of chains leave alone, and nodes that are gone (BL-CHAIN-4, -12, -13). */
import { expect, test } from 'vitest';
import { dropIntermediate, exchangeBacking, insertFilter, replaceNode } from '../../src/core/chain-change.ts';
import { BlockNode, type GraphUser } from '../../src/core/node.ts';
import { ALL_PERMISSIONS, NO_PERMISSIONS } from '../../src/core/permissions.ts';
import { transact } from '../../src/core/transaction.ts';
import { Layers } from '../support/layers.ts';
import { failureOf } from './storage.ts';

async function chainWithUser(stays: boolean) {
  const world = new Layers();
  const disk = await world.chain(['c', 'b', 'a', 'base']);
  const user: GraphUser = { description: 'a job', stays };
  const link = world.graph.attach('main node', user, world.node('b'), 'filtered', {
    need: NO_PERMISSIONS,
    share: ALL_PERMISSIONS,
  });
  return { ...world, graph: world.graph, node: (name: string) => world.node(name), disk, link };
}

test('BL-CHAIN-12: a user that works with the very node keeps it from being dropped', async () => {
  const { graph, node, link, disk } = await chainWithUser(true);
  expect(await failureOf(dropIntermediate(graph, node('c'), node('b'), node('base')))).toEqual({
    code: 'EINVAL',
    message: "Should not change 'main node' link to 'base'",
  });
  expect([node('c').backing?.node, node('c').storedBacking?.filename, link.node]).toEqual([
    node('b'),
    '/b.layer',
    node('b'),
  ]);
  await graph.detach(link);
  await dropIntermediate(graph, node('c'), node('b'), node('base'));
  expect(node('c').backing?.node).toBe(node('base'));
  await disk.close();
  expect(graph.nodes()).toEqual([]);
});

test('BL-CHAIN-12: others are moved', async () => {
  const { graph, node, link } = await chainWithUser(false);
  await dropIntermediate(graph, node('c'), node('b'), node('base'));
  expect(link.node).toBe(node('base'));
});

test('BL-CHAIN-13: it stays where it is when all others use another node', async () => {
  const { graph, node, link } = await chainWithUser(true);
  const filter = await insertFilter(graph, node('b'), { driver: 'pass' });
  expect([node('c').backing?.node, link.node]).toEqual([filter, node('b')]);
  const b = node('b');
  await replaceNode(graph, filter, node('a'));
  expect([node('c').backing?.node, link.node, b.isOpen]).toEqual([node('a'), b, true]);
});

test('BL-CHAIN-4: nothing comes below a node without a driver', async () => {
  const { node } = await chainWithUser(true);
  const { driver, settings, options, origin } = node('c');
  const empty = new BlockNode('empty', driver, settings, options, origin);
  expect(() => transact((transaction) => exchangeBacking(transaction, empty, node('a')))).toThrow(
    expect.objectContaining({ code: 'EINVAL', message: 'Node corrupted' }),
  );
});
