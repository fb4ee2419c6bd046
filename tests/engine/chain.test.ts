/** Chains of images: BL-CHAIN-1 to 5, 8 to 17. */
import { describe, expect, test } from 'vitest';
import { isBlocked, OPERATIONS } from '../../src/core/blockers.ts';
import {
  backingDepth,
  backingImage,
  chainContains,
  chainOf,
  findBackingImage,
  findBase,
  findOverlay,
  freezeChain,
  imagesOf,
} from '../../src/core/chain.ts';
import {
  append,
  changeBackingFile,
  dropIntermediate,
  insertFilter,
  removeFilter,
  replaceNode,
  setBacking,
} from '../../src/core/chain-change.ts';
import { defineFilter } from '../../src/core/driver.ts';
import { filled, heads, Layers, SIZE } from '../support/layers.ts';
import { failureOf } from './storage.ts';

async function abc(names: readonly string[] = ['c', 'b', 'a', 'base'], writable = true) {
  const world = new Layers();
  const disk = await world.chain(names, { writable });
  return { world, graph: world.graph, disk, node: (name: string) => world.node(name) };
}

describe('setting the image below', () => {
  test('BL-CHAIN-1: the new one is kept before the old one is let go, which closes', async () => {
    const { world, graph, node } = await abc(['b', 'a', 'base']);
    // All that holds `base` is what is let go.
    await setBacking(graph, node('b'), node('base'));
    expect(world.names).toEqual(['b-file', 'b', 'base-file', 'base']);
    expect(node('b').backing?.node).toBe(node('base'));
    expect([node('b').noBacking, isBlocked(node('base'), 'resize')]).toEqual([false, true]);
  });

  test('BL-CHAIN-1: an old one that cannot be written back stays', async () => {
    const { world, graph, node } = await abc(['b', 'a', 'base']);
    await graph.reopen([{ node: 'a', options: { 'read-only': false } }]);
    world.failing.add('flush a');
    expect(await failureOf(setBacking(graph, node('b'), node('base')))).toMatchObject({
      message: "flush of 'a' fails",
    });
    expect(node('b').backing?.node).toBe(node('a'));
  });

  test('BL-CHAIN-2: all operations on it are blocked but those that only commit, stream or back up', async () => {
    const { node } = await abc();
    const open = OPERATIONS.filter((operation) => !isBlocked(node('a'), operation));
    expect(open).toEqual(['backup-source', 'backup-target', 'commit-target', 'stream']);
    expect(node('b').backing?.blockReason?.text).toBe("node is used as backing hd of 'b'");
  });

  test('BL-CHAIN-2: as often as it is below something, in the name of what is above it at the time', async () => {
    const { graph, node } = await abc(['b', 'a', 'base']);
    const device = graph.devices.add('cd');
    await device.insert({ driver: 'layer', file: { driver: 'file', filename: '/a.layer' }, backing: 'base' });
    const other = device.requireNode();
    expect(other.backing?.blockReason?.text).toMatch(/^node is used as backing hd of '#block/);
    await setBacking(graph, other, node('b'));
    expect(other.backing?.blockReason?.text).toBe("node is used as backing hd of 'cd'");
    await setBacking(graph, other, undefined);
    expect([isBlocked(node('b'), 'eject'), isBlocked(node('base'), 'eject')]).toEqual([false, true]);
  });

  test('BL-CHAIN-3: what the header says stays, whatever is linked; none is none', async () => {
    const { graph, node, disk } = await abc(['b', 'a', 'base']);
    await setBacking(graph, node('b'), undefined);
    expect(node('b').storedBacking).toEqual({ filename: '/a.layer', format: 'layer' });
    expect([node('b').automaticBackingName, node('b').noBacking, node('b').backing]).toEqual([
      '/a.layer',
      true,
      undefined,
    ]);
    expect(await heads(disk)).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
    expect(disk.filename).toBe(
      'json:{"backing": null, "driver": "layer", "file": {"driver": "file", "filename": "/b.layer"}}',
    );
  });

  test('BL-CHAIN-4: no loops', async () => {
    const { graph, node } = await abc();
    expect(await failureOf(setBacking(graph, node('a'), node('c')))).toEqual({
      code: 'EINVAL',
      message: "Making 'c' a backing child of 'a' would create a cycle",
    });
    expect(await failureOf(setBacking(graph, node('a'), node('a')))).toMatchObject({ code: 'EINVAL' });
  });

  test('BL-CHAIN-4: not where the link is frozen, nor where the driver has none', async () => {
    const { graph, node } = await abc();
    const unfreeze = freezeChain(node('c'), node('a'));
    expect(await failureOf(setBacking(graph, node('c'), undefined))).toEqual({
      code: 'EPERM',
      message: "Cannot change frozen 'backing' link from 'c' to 'b'",
    });
    unfreeze();
    expect(await failureOf(setBacking(graph, node('base'), node('a-file')))).toEqual({
      code: 'ENOTSUP',
      message: "Driver 'raw' of node 'base' does not support backing files",
    });
  });

  test('BL-CHAIN-4: permissions decide too, and then all is as before', async () => {
    const { world, graph, node } = await abc(['b', 'a', 'base']);
    await world.make('x');
    const other = await graph.open(world.tree('x'), { writable: true });
    expect((await failureOf(setBacking(graph, node('b'), node('x')))).message).toMatch(
      /^Permission conflict on node 'x': permissions 'write' are both required by an unnamed block device /,
    );
    expect([node('b').backing?.node, isBlocked(node('a'), 'resize'), isBlocked(node('x'), 'resize')]).toEqual([
      node('a'),
      true,
      false,
    ]);
    await other.close();
  });
});

describe('walks', () => {
  test('BL-CHAIN-5: chains go through filters, and images skip them', async () => {
    const { graph, node } = await abc(['b', 'a', 'base']);
    const filter = await insertFilter(graph, node('a'), { driver: 'pass', 'node-name': 'f' });
    expect(chainOf(node('b')).map(({ name }) => name)).toEqual(['b', 'f', 'a', 'base']);
    expect(
      imagesOf(node('b'))
        .map(({ name }) => name)
        .slice(0, 2),
    ).toEqual(['b', 'a']);
    expect(backingImage(node('b'))).toBe(node('a'));
    expect(chainContains(node('b'), filter)).toBe(true);
  });

  test('BL-CHAIN-8: overlay and base', async () => {
    const { node } = await abc(['c', 'b', 'a']);
    expect(findOverlay(node('c'), node('a'))).toBe(node('b'));
    expect(findOverlay(node('c'), node('c'))).toBeUndefined();
    expect(findOverlay(node('b'), node('c'))).toBeUndefined();
    expect(findOverlay(node('c'), undefined)).toBe(node('a'));
    expect(findBase(node('c'))).toBe(node('a'));
  });

  test('BL-CHAIN-9: what is in a chain, and how deep it is', async () => {
    const { node } = await abc(['c', 'b', 'a']);
    expect(['c', 'b', 'a'].map((name) => backingDepth(node(name)))).toEqual([2, 1, 0]);
    expect(chainContains(node('c'), node('c'))).toBe(true);
    expect([chainContains(node('c'), node('a')), chainContains(node('a'), node('c'))]).toEqual([true, false]);
  });

  test('BL-CHAIN-10: by the name that an overlay stores, as files with links resolved', async () => {
    const { world, node } = await abc(['c', 'b', 'a']);
    world.host.link('/link.layer', 'a.layer');
    const find = (text: string) => findBackingImage(world.host, node('c'), text);
    expect(await find('/b.layer')).toBe(node('b'));
    expect(await find('a.layer')).toBe(node('a'));
    expect(await find('./x/../a.layer')).toBe(node('a'));
    expect(await find('/link.layer')).toBe(node('a'));
    expect(await find('/c.layer')).toBeUndefined();
    expect(await find('/nowhere.layer')).toBeUndefined();
    expect(await find('file:/a.layer')).toBeUndefined();
  });

  test('BL-CHAIN-10: a file that is gone is not looked for; a link that was overridden goes by its own name', async () => {
    const { world, graph, node } = await abc(['c', 'b', 'a']);
    await setBacking(graph, node('c'), node('a'));
    expect(await findBackingImage(world.host, node('c'), '/b.layer')).toBeUndefined();
    expect(await findBackingImage(world.host, node('c'), '/a.layer')).toBe(node('a'));
    await world.host.files.remove('/a.layer');
    expect(await findBackingImage(world.host, node('c'), '/a.layer')).toBeUndefined();
  });
});

describe('changing headers', () => {
  test('BL-CHAIN-11: the header changes and the link does not; no text is none', async () => {
    const { world, graph, node } = await abc(['b', 'a', 'base']);
    await changeBackingFile(graph, node('b'), { filename: 'base.raw', format: 'raw' });
    expect(node('b').storedBacking).toEqual({ filename: 'base.raw', format: 'raw' });
    expect([node('b').backing?.node, node('b').automaticBackingName]).toEqual([node('a'), '/base.raw']);
    expect(new TextDecoder().decode(world.host.contents('/b.layer').subarray(0, 40))).toContain('\nbase.raw\nraw\n');
    await changeBackingFile(graph, node('b'), undefined);
    expect([node('b').storedBacking, node('b').automaticBackingName]).toEqual([undefined, '']);
  });

  test('BL-CHAIN-11: what is refused', async () => {
    const { graph, node, disk } = await abc(['b', 'a', 'base']);
    const code = async (name: string, filename: string, format: string, requireFormat?: boolean) =>
      (
        await failureOf(
          changeBackingFile(graph, node(name), { filename, format }, { requireFormat: requireFormat === true }),
        )
      ).code;
    expect(await code('b', '', 'raw')).toBe('EINVAL');
    expect(await code('b', '/base.raw', '', true)).toBe('EINVAL');
    expect(await code('base', '/x', 'raw')).toBe('ENOTSUP');
    expect(await code('b', 'x'.repeat(400), 'raw')).toBe('ENOSPC');
    expect(node('b').storedBacking).toEqual({ filename: '/a.layer', format: 'layer' });
    const closed = node('b');
    await disk.close();
    expect((await failureOf(changeBackingFile(graph, closed, undefined))).code).toBe('ENOMEDIUM');
  });

  test('BL-CHAIN-11: a header that cannot be made durable is put back', async () => {
    const { world, graph, node } = await abc(['b', 'a', 'base']);
    world.host.faults.inject({ operation: 'flush', code: 'EIO', path: '/b.layer', times: 1 });
    expect((await failureOf(changeBackingFile(graph, node('b'), { filename: '/base.raw', format: 'raw' }))).code).toBe(
      'EIO',
    );
    expect([node('b').storedBacking?.filename, node('b').automaticBackingName]).toEqual(['/a.layer', '/a.layer']);
  });
});

describe('dropping images', () => {
  test('BL-CHAIN-12: what is above the base goes, and the overlay names the base', async () => {
    const { world, graph, node, disk } = await abc();
    const drop = dropIntermediate(graph, node('c'), node('b'), node('base'));
    await drop;
    expect(world.names).toEqual(['c-file', 'c', 'base-file', 'base']);
    expect([node('c').storedBacking, node('c').backing?.node]).toEqual([
      { filename: '/base.raw', format: 'raw' },
      node('base'),
    ]);
    expect([(await heads(disk))[0], disk.filename]).toEqual([0xba, '/c.layer']);
  });

  test('BL-CHAIN-12: by a text of the caller; top and base alike is nothing', async () => {
    const { graph, node } = await abc();
    await dropIntermediate(graph, node('c'), node('b'), node('b'), 'x');
    expect(node('c').storedBacking?.filename).toBe('/b.layer');
    await dropIntermediate(graph, node('c'), node('b'), node('a'), 'a.layer');
    expect([node('c').storedBacking, node('c').filename]).toEqual([
      { filename: 'a.layer', format: 'layer' },
      '/c.layer',
    ]);
  });

  test('BL-CHAIN-12: EIO where the chain is none', async () => {
    const { graph, node } = await abc();
    for (const [active, top, base] of [
      ['c', 'c', 'a'],
      ['c', 'a', 'b'],
      ['b', 'c', 'a'],
    ] as const) {
      expect((await failureOf(dropIntermediate(graph, node(active), node(top), node(base)))).code).toBe('EIO');
    }
  });

  test('BL-CHAIN-12: all that use the top are moved, overlays through filters are renamed, read-only ones written', async () => {
    const { world, graph, node } = await abc();
    await world.make('d', 'b');
    const other = await graph.open({ ...world.tree('d'), backing: 'b' });
    await insertFilter(graph, node('b'), { driver: 'pass', 'node-name': 'f' });
    expect(node('d').writable).toBe(false);
    await dropIntermediate(graph, node('c'), node('b'), node('base'));
    expect(chainOf(node('d')).map(({ name }) => name)).toEqual(['d', 'f', 'base']);
    expect(['c', 'd'].map((name) => node(name).storedBacking?.filename)).toEqual(['/base.raw', '/base.raw']);
    expect([node('d').writable, node('d').origin.explicit['read-only']]).toEqual([false, undefined]);
    await other.close();
  });

  test('BL-CHAIN-12: frozen links stay', async () => {
    const { graph, node } = await abc();
    const unfreeze = freezeChain(node('c'), node('b'));
    expect(await failureOf(dropIntermediate(graph, node('c'), node('b'), node('base')))).toEqual({
      code: 'EPERM',
      message: "Cannot change 'backing' link to 'base'",
    });
    unfreeze();
  });

  test('BL-CHAIN-12: a header that cannot be written leaves all as it was, those written before too', async () => {
    const { world, graph, node } = await abc();
    await world.make('d', 'b');
    const other = await graph.open({ ...world.tree('d'), backing: 'b' });
    for (const name of ['c', 'd']) {
      world.failing.add(`changeBacking ${name}`);
      expect(await failureOf(dropIntermediate(graph, node('c'), node('b'), node('base')))).toEqual({
        code: 'EIO',
        message: 'Could not update backing file link: Input/output error',
      });
      world.failing.clear();
      for (const overlay of ['c', 'd']) {
        expect([node(overlay).backing?.node, node(overlay).storedBacking?.filename]).toEqual([node('b'), '/b.layer']);
      }
    }
    await other.close();
  });
});

describe('putting nodes in places of others', () => {
  test('BL-CHAIN-13: every user of one uses the other, save where that would be a loop', async () => {
    const { world, graph, node, disk } = await abc(['b', 'a', 'base'], false);
    const over = await graph.add({ driver: 'pass', file: 'b', 'node-name': 'f' });
    await replaceNode(graph, node('b'), over);
    expect([disk.node, over.filtered?.node, node('b').parents.length]).toEqual([over, node('b'), 1]);
    await graph.release(over);
    await replaceNode(graph, node('f'), node('base'));
    expect([disk.node, world.names]).toEqual([node('base'), ['base-file', 'base']]);
  });

  test('BL-CHAIN-14: an overlay comes on top, and only its own link leads down', async () => {
    const { world, graph, node, disk } = await abc(['b', 'a', 'base']);
    await world.make('n');
    const overlay = await graph.add({ ...world.tree('n'), backing: null });
    const files = world.host.counters.operations.open;
    await append(graph, overlay, node('b'));
    expect([disk.node, overlay.backing?.node]).toEqual([overlay, node('b')]);
    expect(node('b').parents.map(({ parent }) => parent)).toEqual([overlay]);
    expect(overlay.holds).toBe(1);
    expect(world.host.counters.operations.open).toBe(files);
    await disk.write(0, filled(7));
    expect(world.host.contents('/b.layer').length).toBe(8192);
    await graph.release(overlay);
  });

  test('BL-CHAIN-14: one that has an image below is refused; what fails is undone', async () => {
    const { world, graph, node, disk } = await abc(['b', 'a', 'base']);
    await world.make('n');
    const overlay = await graph.add({ ...world.tree('n'), backing: 'base' });
    expect(await failureOf(append(graph, overlay, node('b')))).toMatchObject({ code: 'EINVAL' });
    await setBacking(graph, overlay, undefined);
    world.failing.add('preparePermissions n');
    expect(await failureOf(append(graph, overlay, node('b')))).toMatchObject({ code: 'EIO' });
    expect([disk.node, overlay.backing, overlay.parents, isBlocked(node('b'), 'resize')]).toEqual([
      node('b'),
      undefined,
      [],
      false,
    ]);
    await graph.release(overlay);
  });

  test('BL-CHAIN-15: cache mode and trackers of changes stay where they are', async () => {
    const { world, graph, node, disk } = await abc(['b', 'a', 'base']);
    const seen: number[] = [];
    node('b').trackers = [{ changed: (offset) => seen.push(offset), checkResize() {}, resized() {} }];
    disk.writeCache = false;
    await world.make('n');
    const overlay = await graph.add({ ...world.tree('n'), backing: null });
    await append(graph, overlay, node('b'));
    await disk.write(0, filled(1));
    expect([seen, disk.writeCache, overlay.trackers]).toEqual([[], false, []]);
    await graph.release(overlay);
  });

  test('BL-CHAIN-16: inserting and removing a filter', async () => {
    const { graph, node, disk, world } = await abc(['b', 'a', 'base']);
    const filter = await insertFilter(graph, node('b'), { driver: 'pass', 'node-name': 'f' });
    expect([disk.node, filter.filtered?.node, filter.holds]).toEqual([filter, node('b'), 0]);
    await removeFilter(graph, filter);
    expect([disk.node, world.names.includes('f')]).toEqual([node('b'), false]);
    await expect(removeFilter(graph, node('b'))).rejects.toThrow(TypeError);
  });

  test('BL-CHAIN-16: what is refused, to the letter, and leaves nothing', async () => {
    const { graph, node, world } = await abc(['b', 'a', 'base']);
    const names = world.names;
    const message = async (options: Record<string, string>) =>
      (await failureOf(insertFilter(graph, node('b'), options))).message;
    expect(await message({})).toBe('driver is not specified');
    expect(await message({ driver: 'nope' })).toBe("Unknown driver: 'nope'");
    expect(await message({ driver: 'pass', 'node-name': '1' })).toBe("Could not create node: Invalid node-name: '1'");
    world.failing.add('preparePermissions f');
    world.failing.add('preparePermissions b');
    expect(await message({ driver: 'pass', 'node-name': 'f' })).toMatch(/^Could not create node: /);
    world.failing.clear();
    const unfreeze = freezeChain(node('b'), undefined);
    const link = node('a').parents[0];
    expect(link?.frozen).toBe(true);
    expect((await failureOf(insertFilter(graph, node('a'), { driver: 'pass' }))).message).toBe(
      "Could not replace node: Cannot change frozen 'backing' link from 'b' to 'a'",
    );
    unfreeze();
    expect(world.names).toEqual(names);
  });

  test('BL-CHAIN-16: a node that nobody uses has no place for a filter', async () => {
    const world = new Layers();
    const node = await world.graph.add(world.tree('base'));
    expect((await failureOf(insertFilter(world.graph, node, { driver: 'pass' }))).code).toBe('EINVAL');
    await world.graph.release(node);
  });
});

describe('freezing', () => {
  test('BL-CHAIN-17: all links of a chain or none, once, and just these are let go', async () => {
    const { graph, node } = await abc(['c', 'b', 'a']);
    const unfreeze = freezeChain(node('b'), node('a'));
    const frozen = () => ['c', 'b', 'a'].map((name) => node(name).backing?.frozen);
    expect(() => freezeChain(node('c'), undefined)).toThrow(
      expect.objectContaining({ code: 'EPERM', message: "Cannot change 'backing' link from 'b' to 'a'" }),
    );
    expect(frozen()).toEqual([false, true, undefined]);
    unfreeze();
    const letGo = freezeChain(node('c'), undefined);
    expect(frozen()).toEqual([true, true, undefined]);
    const base = await graph.add({
      driver: 'raw',
      'node-name': 'late',
      file: { driver: 'file', filename: '/base.raw' },
    });
    await setBacking(graph, node('a'), base);
    const other = freezeChain(node('a'), undefined);
    letGo();
    letGo();
    expect(frozen()).toEqual([false, false, true]);
    other();
    expect(() => freezeChain(node('a'), node('c'))).toThrow(TypeError);
    await graph.release(base);
  });

  test('BL-CHAIN-17: not over a filter that may go any time', async () => {
    const going = defineFilter<unknown>({
      name: 'going',
      summary: '',
      options: {},
      mayGo: true,
      open: async () => ({}),
    });
    const world = new Layers({ drivers: [going] });
    await world.chain(['b', 'a', 'base']);
    await insertFilter(world.graph, world.node('a'), { driver: 'going', 'node-name': 'g' });
    expect(() => freezeChain(world.node('b'), undefined)).toThrow(
      expect.objectContaining({ code: 'EPERM', message: "Cannot freeze 'backing' link to 'g'" }),
    );
    expect(world.node('b').backing?.frozen).toBe(false);
  });
});

// Drivers that cannot zero while they grow, which QEMU refuses (`Block driver does not support requested flags`), do it too.
test('BL-SIZE-4: a longer image shows none of what the image below has there, also between clusters', async () => {
  const world = new Layers();
  await world.make('short', 'base', 3000);
  const disk = await world.graph.open(world.tree('short', 'base'), { writable: true });
  expect((await disk.read(2999, 1))[0]).toBe(0xba);
  await disk.resize(SIZE);
  expect(await disk.read(0, 3000)).toEqual(filled(0xba, 3000));
  expect(await disk.read(3000, SIZE - 3000)).toEqual(new Uint8Array(SIZE - 3000));
  await disk.close();
});
