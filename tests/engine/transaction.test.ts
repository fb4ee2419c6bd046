/** Changes that happen as a whole or not at all: BL-PERM-6, and what BL-TERM-5 lets a node have. */
import { describe, expect, test } from 'vitest';
import { setBacking } from '../../src/core/chain-change.ts';
import { defineFilter } from '../../src/core/driver.ts';
import { BlockError } from '../../src/core/errors.ts';
import { addLink, dropLink, moveLink } from '../../src/core/graph-change.ts';
import { InvariantError } from '../../src/core/invariant.ts';
import { updatePermissions } from '../../src/core/permission-update.ts';
import { Permission } from '../../src/core/permissions.ts';
import { Transaction, transact } from '../../src/core/transaction.ts';
import { fingerprint } from '../support/graph-checks.ts';
import { Layers } from '../support/layers.ts';
import { failureOf, graphOf, plainFormat, Storage, storageProtocol } from './storage.ts';

describe('BL-PERM-6: a change and its permissions are one', () => {
  test('an abort puts back links, nodes and what was pending, in reverse', async () => {
    const world = new Layers();
    await world.chain(['b', 'a', 'base']);
    const before = fingerprint(world.graph);
    const [b, a, base] = ['b', 'a', 'base'].map((name) => world.node(name)) as [never, never, never] &
      ReturnType<Layers['node']>[];
    const order: string[] = [];
    const fail = () =>
      transact((transaction) => {
        const [link] = world.node('a').parents;
        if (link === undefined) throw new TypeError('a is used by b');
        transaction.add({ commit() {}, abort: () => order.push('first') });
        moveLink(transaction, link, base);
        dropLink(transaction, link);
        addLink(transaction, 'backing', b, a, 'cow');
        transaction.remember(a);
        Object.assign(a, { noBacking: true, writable: true, inactive: true, automaticBackingName: 'x' });
        transaction.add({ commit() {}, abort: () => order.push('second') });
        updatePermissions(transaction, [b]);
        throw new BlockError('EIO', 'no');
      });
    expect(fail).toThrow('no');
    expect([fingerprint(world.graph), order]).toEqual([before, ['second', 'first']]);
  });

  test('a refusal of one driver changes none, and locks neither', async () => {
    const world = new Layers();
    await world.chain(['b', 'a', 'base']);
    const before = fingerprint(world.graph);
    world.failing.add('preparePermissions b');
    expect(await failureOf(setBacking(world.graph, world.node('b'), undefined))).toMatchObject({ code: 'EIO' });
    expect(fingerprint(world.graph)).toBe(before);
  });

  test('permissions are taken once, at the end', () => {
    const transaction = new Transaction();
    updatePermissions(transaction, []);
    expect(() => updatePermissions(transaction, [])).toThrow(InvariantError);
    expect(() => transaction.remember({} as never)).toThrow(InvariantError);
  });

  test('loosening never fails, whatever drivers say', async () => {
    const storage = new Storage(8192);
    const graph = graphOf([storageProtocol(storage), plainFormat]);
    const disk = await graph.open({ driver: 'plain', file: { driver: 'store', 'node-name': 's' } }, { writable: true });
    const held = await graph.openReference('s');
    await disk.resize(4096, { shrink: true });
    storage.refusePermissions = () => {
      throw new BlockError('EAGAIN', 'no');
    };
    await disk.close();
    expect(held.node.parents.map(({ held: { need } }) => need)).toEqual([1]);
    expect((await failureOf(graph.openReference('s', { writable: true }))).message).toBe('no');
    await held.close();
  });

  test('an odd length does not stand in the way of letting go', async () => {
    const storage = new Storage(8192);
    storage.limits = { requestAlign: 512 };
    const graph = graphOf([storageProtocol(storage)]);
    const disk = await graph.open({ driver: 'store', 'node-name': 's' }, { writable: true });
    await disk.resize(1000, { shrink: true });
    expect(disk.node.parents.map(({ held }) => held.need & Permission.resize)).toEqual([0]);
    await disk.close();
    expect(graph.nodes()).toEqual([]);
  });

  test('limits that make no sense after a change leave those that were there', async () => {
    const world = new Layers();
    const disk = await world.chain(['b', 'a', 'base']);
    world.node('b').impl.limits = () => ({ requestAlign: 2 ** 31 });
    await setBacking(world.graph, world.node('b'), undefined);
    expect([disk.node.backing, disk.limits.requestAlign]).toEqual([undefined, 1]);
  });
});

describe('BL-TERM-5: what a node has at most one of', () => {
  test('image below, filtered child, and child of a name', async () => {
    const world = new Layers();
    await world.chain(['b', 'a', 'base']);
    const add = (name: string, parent: string, child: string, role: 'cow' | 'filtered' | 'data') => () =>
      transact((transaction) => addLink(transaction, name, world.node(parent), world.node(child), role));
    expect(add('second', 'b', 'base', 'cow')).toThrow(InvariantError);
    expect(add('backing', 'b', 'base', 'data')).toThrow(InvariantError);
    expect(add('again', 'base', 'b-file', 'filtered')).toThrow(InvariantError);
    expect(add('below', 'b-file', 'base', 'cow')).toThrow(InvariantError);
    expect(world.node('b').children).toHaveLength(2);
  });

  test('a node that one parent has twice is linked twice', async () => {
    const twice = defineFilter<unknown>({
      name: 'twice',
      summary: 'has two children',
      options: {},
      children: { other: { role: 'data' } },
      open: async () => ({}),
    });
    const world = new Layers({ drivers: [twice] });
    const { graph } = world;
    await graph.add(world.tree('base'));
    const disk = await graph.open({ driver: 'twice', 'node-name': 't', file: 'base', other: 'base' });
    expect(world.node('base').parents.map(({ name }) => name)).toEqual(['other', 'file']);
    const spare = await graph.add({ driver: 'pass', 'node-name': 'f', file: 'base' });
    await graph.replace('base', 'f');
    expect(world.node('t').children.map(({ node }) => node)).toEqual([spare, spare]);
    await graph.release(spare);
    await disk.close();
    expect(world.names).toEqual(['base-file', 'base']);
    await graph.closeAll();
  });
});

describe('BL-PERM-3: words for a node that a reopen makes read-only', () => {
  test('only if that makes it so', async () => {
    const world = new Layers();
    const disk = await world.chain(['a', 'base']);
    const message = async (changes: Parameters<typeof world.graph.reopen>[0]) =>
      (await failureOf(world.graph.reopen(changes))).message;
    expect(await message([{ node: 'a', options: { 'read-only': true } }])).toBe(
      "Read-only block node 'a' cannot support read-write users",
    );
    const filter = await world.graph.insertFilter(disk, { driver: 'pass', 'node-name': 'f' });
    expect(await message([{ node: filter, options: { file: 'base' } }])).toBe('Block node is read-only');
  });
});
