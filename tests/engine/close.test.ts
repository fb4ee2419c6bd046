/** Closing and references: BL-CLOSE-1 to 6, BL-TERM-4, BL-TERM-9; and opening and closing beside other work. */
import { describe, expect, test } from 'vitest';
import { freezeChain } from '../../src/core/chain.ts';
import { insertFilter, replaceNode } from '../../src/core/chain-change.ts';
import { reopen } from '../../src/core/reopen.ts';
import { filled, Layers } from '../support/layers.ts';
import { failureOf, gate, graphOf, plainFormat, Storage, storageProtocol } from './storage.ts';

test('BL-TERM-9: a node that is opened has one reference, and nothing else', async () => {
  const { graph } = new Layers();
  await graph.openFor({ driver: 'file', filename: '/base.raw' }, {}, async (node) => {
    expect([node.pins, node.holds, node.parents, node.children, node.trackers]).toEqual([1, 0, [], [], []]);
    expect([node.drainDepth, node.context, node.tracker.idle]).toEqual([0, undefined, true]);
  });
  expect(graph.nodes()).toEqual([]);
});

test('BL-TERM-4: links are newest first, and inheriting is for what was opened for its parent', async () => {
  const world = new Layers();
  const disk = await world.chain(['a', 'base'], {});
  const { graph } = world;
  const held = await graph.add({ driver: 'pass', 'node-name': 'f', file: 'a' });
  expect(world.node('a').parents.map(({ parent }) => parent)).toEqual([held, disk]);
  expect(world.node('a').children.map(({ name }) => name)).toEqual(['backing', 'file']);
  const parents = ['a-file', 'base', 'a'].map((name) => world.node(name).origin.inheritsFrom?.name);
  expect(parents).toEqual(['a', 'a', undefined]);
  await graph.release(held);
});

describe('references', () => {
  test('BL-CLOSE-1: the last drop closes; nothing to drop is a mistake of the caller', async () => {
    const { graph, host } = new Layers();
    const node = await graph.add({ driver: 'file', filename: '/base.raw' });
    graph.hold(node);
    await graph.release(node);
    expect(graph.node(node.name)).toBe(node);
    await graph.release(node);
    expect([graph.nodes(), host.openFiles]).toEqual([[], []]);
    await expect(graph.release(node)).rejects.toThrow(TypeError);
  });

  test('BL-CLOSE-2, BL-CLOSE-6: flush, driver, then the backing image before the file; names survive', async () => {
    const world = new Layers();
    const disk = await world.chain(['b', 'a']);
    const { node } = disk;
    const closed: string[] = [];
    world.steps.length = 0;
    await disk.close();
    for (const { channel, message } of world.host.events) {
      if (channel === 'diskwright:node:close') closed.push((message as { filename: string }).filename);
    }
    expect(world.steps).toEqual(['flush b', 'close b', 'close a']);
    expect(closed.slice(-4)).toEqual(['/a.layer', '/a.layer', '/b.layer', '/b.layer']);
    expect([node.filename, node.exactName, node.children, node.parents]).toEqual(['/b.layer', '/b.layer', [], []]);
  });

  test('BL-CLOSE-2: what fails is told, and all is closed', async () => {
    const world = new Layers();
    const disk = await world.chain(['b', 'a']);
    world.failing.add('flush b');
    world.failing.add('close b');
    world.failing.add('close a');
    expect((await failureOf(disk.close())).message).toBe("close of 'b' fails");
    expect([world.names, world.host.openFiles]).toEqual([[], []]);
  });

  test('BL-CLOSE-2: a job that has frozen the chain does not keep it open', async () => {
    const world = new Layers();
    const disk = await world.chain(['b', 'a']);
    freezeChain(disk.node, undefined);
    await disk.close();
    expect(world.names).toEqual([]);
  });

  test('BL-CLOSE-4: close-all drops what callers hold; a disk that is open keeps its node', async () => {
    const world = new Layers();
    const { graph } = world;
    await graph.add(world.tree('base'));
    const disk = await graph.openReference('base');
    expect(await failureOf(graph.closeAll())).toEqual({ code: 'EBUSY', message: "Node 'base-file' is still in use" });
    await disk.close();
    expect(world.names).toEqual([]);
  });

  test('BL-CLOSE-4: close-all waits for what is being closed already', async () => {
    const storage = new Storage(8192);
    const graph = graphOf([storageProtocol(storage)]);
    const disk = await graph.open({ driver: 'store' });
    const hold = gate();
    const order: string[] = [];
    storage.before = async ({ kind }) => {
      if (kind !== 'close') return;
      await hold.wait();
      order.push('closed');
    };
    const closing = disk.close();
    const all = graph.closeAll().then(() => order.push('all'));
    await graph.host.clock.sleep(1);
    hold.open();
    await Promise.all([closing, all]);
    expect(order).toEqual(['closed', 'all']);
  });

  test('BL-CLOSE-5: a closed node has left the lists, and its name is free', async () => {
    const world = new Layers();
    for (let i = 0; i < 2; i++) {
      const disk = await world.graph.open(world.tree('base'));
      await disk.close();
      expect([world.names, world.graph.node('base')]).toEqual([[], undefined]);
    }
  });

  test('BL-CLOSE-6: the mark of inheriting goes with the last link between the two', async () => {
    const world = new Layers();
    const disk = await world.chain(['a', 'base'], {});
    const { graph } = world;
    const kept = world.node('base');
    graph.hold(kept);
    await insertFilter(graph, kept, { driver: 'pass', 'node-name': 'f' });
    expect(kept.origin.inheritsFrom?.name).toBe('a');
    await disk.close();
    expect([kept.origin.inheritsFrom, world.names]).toEqual([undefined, ['base-file', 'base']]);
    await graph.release(kept);
  });
});

describe('opening beside other work', () => {
  test('a child that was opened stays while its parent is, whoever lets go of it', async () => {
    const storage = new Storage(8192);
    const hold = gate();
    const slow = {
      ...plainFormat,
      name: 'slow',
      open: (context: never) => hold.wait().then(() => plainFormat.open(context)),
    };
    const graph = graphOf([storageProtocol(storage), slow as typeof plainFormat]);
    const opening = graph.open({ driver: 'slow', file: { driver: 'store', 'node-name': 's' } });
    await graph.host.clock.sleep(1);
    const other = await graph.openReference('s');
    await other.close();
    expect(storage.story).toEqual([]);
    hold.open();
    const disk = await opening;
    await disk.close();
    expect([storage.story, graph.nodes()]).toEqual([['close'], []]);
  });

  test('a node that is being opened is not found yet', async () => {
    const world = new Layers();
    await world.make('b');
    const opening = world.graph.open({
      driver: 'layer',
      'node-name': 'self',
      file: { driver: 'file', filename: '/b.layer' },
      backing: { driver: 'pass', file: 'self' },
    });
    expect(await failureOf(opening)).toEqual({
      code: 'ENODEV',
      message: "Could not open backing file: Cannot find device='self' nor node-name='self'",
    });
    expect([world.names, world.host.openFiles]).toEqual([[], []]);
  });

  test('an opening that fails lets go of shared children, which stay as they were', async () => {
    const world = new Layers();
    const disk = await world.chain(['a', 'base']);
    const held = { ...world.node('base').parents[0]?.held };
    await world.make('b');
    world.failing.add('open b');
    const options = { ...world.tree('b'), backing: 'base' };
    expect((await failureOf(world.graph.open(options))).message).toBe("open of 'b' fails");
    world.failing.clear();
    world.failing.add('preparePermissions b');
    expect((await failureOf(world.graph.open(options))).message).toBe(
      "Could not open backing file: preparePermissions of 'b' fails",
    );
    expect(world.names).toEqual(['a-file', 'a', 'base-file', 'base'].filter((name) => world.names.includes(name)));
    expect([world.node('base').parents.length, { ...world.node('base').parents[0]?.held }]).toEqual([1, held]);
    await disk.write(0, filled(1));
  });

  test('a link to what is being closed is refused', async () => {
    const storage = new Storage(8192);
    const graph = graphOf([storageProtocol(storage)]);
    const disk = await graph.open({ driver: 'store', 'node-name': 's' });
    const { node } = disk;
    const hold = gate();
    storage.before = ({ kind }) => (kind === 'close' ? hold.wait() : undefined);
    const closing = disk.close();
    expect(() => graph.attach('root', { description: 'late' }, node, 'filtered', { need: 1, share: 15 })).toThrow(
      expect.objectContaining({ code: 'ENOMEDIUM', message: "Node 's' is closed" }),
    );
    expect((await failureOf(graph.openReference('s'))).code).toBe('ENODEV');
    hold.open();
    await closing;
  });

  test('a change waits for an opening above, and an opening for a change', async () => {
    const hold = gate();
    const slow = {
      ...plainFormat,
      name: 'slow',
      open: (context: never) => hold.wait().then(() => plainFormat.open(context)),
    };
    const world = new Layers({ drivers: [slow as typeof plainFormat] });
    const disk = await world.chain(['a', 'base'], {});
    const order: string[] = [];
    const opening = world.graph.open({ driver: 'slow', file: 'a' }).then((opened) => {
      order.push('open');
      return opened;
    });
    await world.host.clock.sleep(1);
    const reopening = reopen(world.graph, [{ node: world.node('base'), options: {} }]).then(() => order.push('reopen'));
    const unrelated = await world.graph.open({ driver: 'raw', file: { driver: 'file', filename: '/base.raw' } });
    await reopen(world.graph, [{ node: unrelated.node, options: {} }]);
    expect(order).toEqual([]);
    hold.open();
    await Promise.all([opening, reopening]);
    expect(order).toEqual(['open', 'reopen']);
    for (const each of [disk, unrelated, await opening]) await each.close();
  });

  test('a node that changes hands while it waits to be closed stays', async () => {
    const world = new Layers();
    const disk = await world.chain(['a', 'base'], {});
    const spare = await world.graph.add({ driver: 'pass', 'node-name': 'f', file: 'base' });
    const replacing = replaceNode(world.graph, world.node('a'), spare);
    const releasing = world.graph.release(spare);
    await Promise.all([replacing, releasing]);
    expect([disk.node.name, world.names]).toEqual(['f', ['base-file', 'base', 'f']]);
    expect((await disk.read(0, 1))[0]).toBe(0xba);
    await disk.close();
  });
});

test('a disk that shares its node holds its permissions until its requests have ended', async () => {
  const storage = new Storage(8192);
  const graph = graphOf([storageProtocol(storage)]);
  const writer = await graph.open({ driver: 'store', 'node-name': 's' }, { writable: true });
  const reader = await graph.openReference('s');
  const hold = gate();
  storage.before = ({ kind }) => (kind === 'write' ? hold.wait() : undefined);
  const writing = writer.write(0, filled(1));
  const closing = writer.close();
  await graph.host.clock.sleep(1);
  expect(reader.node.parents.map(({ held }) => held.need)).toEqual([1, 3]);
  hold.open();
  await Promise.all([writing, closing]);
  expect(reader.node.parents.map(({ held }) => held.need)).toEqual([1]);
  await reader.close();
});
