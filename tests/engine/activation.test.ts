/** Giving images up to another program and taking them back (BL-MISC-3, BL-OPEN-9, V-16). */
import { describe, expect, test } from 'vitest';
import { activate, inactivate } from '../../src/core/activation.ts';
import { defineFormat } from '../../src/core/driver.ts';
import { BlockError } from '../../src/core/errors.ts';
import { ALL_PERMISSIONS, Permission } from '../../src/core/permissions.ts';
import { namingFormat } from './naming-format.ts';
import { failureOf, graphOf, plainFormat, Storage, storageProtocol } from './storage.ts';

const { consistentRead: READ, write: WRITE, writeUnchanged: UNCHANGED, resize: RESIZE } = Permission;

/** A chain of a format on a storage, of which all hooks are written down. */
function world() {
  const storage = new Storage(8192);
  const story: string[] = [];
  /** Hooks that fail, such as `activate top`. */
  const failing = new Set<string>();
  const world = { during: (_hook: string) => {} };
  const hook = (line: string) => async () => {
    story.push(line);
    world.during(line);
    if (failing.has(line)) throw new BlockError('EIO', `cannot ${line}`);
  };
  const spec = storageProtocol(storage);
  const hooks = (name: string) => ({ activate: hook(`activate ${name}`), inactivate: hook(`inactivate ${name}`) });
  const store = { ...spec, open: async () => ({ ...storage.node(), ...hooks('below') }) } as typeof spec;
  const image = defineFormat({
    ...plainFormat,
    name: 'image',
    open: async (context) => ({ ...(await plainFormat.open(context)), ...hooks('top') }),
  });
  const fixed = defineFormat({ ...plainFormat, name: 'fixed', migratable: false });
  const graph = graphOf([store, image, plainFormat, fixed, namingFormat]);
  const source = { driver: 'image', 'node-name': 'top', file: { driver: 'store', 'node-name': 'below' } };
  const marks = () => graph.nodes().map(({ inactive }) => inactive);
  return Object.assign(world, { storage, story, failing, graph, source, marks });
}

describe('inactivate', () => {
  test('parents come first; what is held is let go of, and writing is shared', async () => {
    const { graph, storage, story, source, marks } = world();
    const device = graph.devices.add('hd');
    await device.insert(source, { writable: true });
    await device.write(0, new Uint8Array(512));
    await inactivate(graph);
    expect(story).toEqual(['inactivate top', 'inactivate below']);
    expect(storage.story).toEqual(['write 0+512', 'flush']);
    expect(marks()).toEqual([true, true]);
    expect(storage.permissions.at(-1)).toEqual({ need: READ, share: ALL_PERMISSIONS });
    expect(await failureOf(device.write(0, new Uint8Array(1)))).toEqual({
      code: 'EPERM',
      message: 'Block node is read-only',
    });
    await device.read(0, new Uint8Array(1));
  });

  test('EPERM while someone may write who does not let go; then nothing has changed', async () => {
    const { graph, source, marks, story } = world();
    const disk = await graph.open(source, { writable: true });
    expect(await failureOf(inactivate(graph))).toEqual({
      code: 'EPERM',
      message: "Node 'top' cannot be made inactive while an unnamed block device may write to it",
    });
    expect([marks(), story]).toEqual([[false, false], []]);
    await disk.write(0, new Uint8Array(1));
  });

  test('a failure below makes active again what was above', async () => {
    const { graph, source, marks, failing, story, storage } = world();
    const device = graph.devices.add('hd');
    await device.insert(source, { writable: true });
    failing.add('inactivate below');
    expect((await failureOf(inactivate(graph))).message).toBe('cannot inactivate below');
    expect(marks()).toEqual([false, false]);
    expect(story).toEqual(['inactivate top', 'inactivate below', 'activate top']);
    expect(storage.permissions.at(-1)?.need).toBe(READ | WRITE | RESIZE);
    await device.write(0, new Uint8Array(1));
  });

  test('a node that an active one still uses stays active', async () => {
    const { graph, source } = world();
    const top = await graph.add({ ...source, 'read-only': true });
    await graph.add({ driver: 'plain', 'read-only': true, file: 'below' });
    await inactivate(graph, [top]);
    expect(graph.nodes().map(({ name, inactive }) => [name.startsWith('#') ? '' : name, inactive])).toEqual([
      ['below', false],
      ['top', true],
      ['', false],
    ]);
  });

  test('nobody new may write', async () => {
    const { graph, source } = world();
    await graph.add(source);
    await inactivate(graph);
    expect(await failureOf(graph.open({ driver: 'plain', file: 'below' }, { writable: true }))).toEqual({
      code: 'EPERM',
      message: "Node 'below' is inactive",
    });
    // Who opens the node itself may write later.
    const disk = await graph.openReference('top', { writable: true });
    expect((await failureOf(disk.write(0, new Uint8Array(1)))).code).toBe('EPERM');
    await activate(graph);
    await disk.write(0, new Uint8Array(1));
  });

  test('V-16: an image whose format cannot be handed over keeps all active', async () => {
    const { graph, marks } = world();
    await graph.add({ driver: 'fixed', 'node-name': 'n', file: { driver: 'store' } });
    expect(await failureOf(inactivate(graph))).toEqual({
      code: 'ENOTSUP',
      message: "The fixed format used by node 'n' does not support live migration",
    });
    expect(marks()).toEqual([false, false]);
  });
});

describe('activate', () => {
  async function inactive() {
    const made = world();
    const device = made.graph.devices.add('hd');
    await device.insert(made.source, { writable: true });
    await inactivate(made.graph);
    made.story.length = 0;
    return { ...made, device };
  }

  test('children come first; permissions are taken, and users write again', async () => {
    const { graph, story, storage, device, marks } = await inactive();
    await activate(graph);
    expect(story).toEqual(['activate below', 'activate top']);
    expect(marks()).toEqual([false, false]);
    expect(storage.permissions.at(-1)).toEqual({ need: READ | WRITE | RESIZE, share: READ | UNCHANGED });
    await device.write(0, new Uint8Array(1));
    story.length = 0;
    await activate(graph);
    expect(story).toEqual([]);
  });

  test('the length is read anew, and told', async () => {
    const told: number[] = [];
    const made = world();
    const { graph, source, storage } = made;
    const device = graph.devices.add('hd', { listener: { resized: (length) => void told.push(length) } });
    await device.insert(source, { writable: true });
    await inactivate(graph);
    storage.bytes = new Uint8Array(16384);
    await activate(graph);
    expect([told, device.disk.length]).toEqual([[16384], 16384]);
    // What a driver finds out when it reads its metadata anew.
    await inactivate(graph);
    made.during = (line) => {
      if (line === 'activate top') storage.bytes = new Uint8Array(32768);
    };
    await activate(graph);
    expect([told, device.disk.length]).toEqual([[16384, 32768], 32768]);
  });

  test('a failure restores the mark, of all that became active', async () => {
    const { graph, failing, marks, storage, device, story } = await inactive();
    failing.add('activate top');
    expect((await failureOf(activate(graph))).message).toBe('cannot activate top');
    expect(marks()).toEqual([true, true]);
    expect(story).toEqual(['activate below', 'activate top', 'inactivate below']);
    expect(storage.permissions.at(-1)).toEqual({ need: READ, share: ALL_PERMISSIONS });
    failing.clear();
    await activate(graph);
    await device.write(0, new Uint8Array(1));
  });

  test('permissions that another program holds are such a failure', async () => {
    const { graph, marks, storage } = await inactive();
    storage.refusePermissions = ({ need }) => {
      if ((need & WRITE) !== 0) throw new BlockError('EAGAIN', 'Failed to get "write" lock');
    };
    expect((await failureOf(activate(graph))).message).toBe('Failed to get "write" lock');
    expect(marks()).toEqual([true, true]);
  });

  test('one node comes with all below it', async () => {
    const { graph, marks } = await inactive();
    await activate(graph, [graph.lookUp('below')]);
    expect(marks()).toEqual([false, true]);
    await activate(graph, [graph.lookUp('top')]);
    expect(marks()).toEqual([false, false]);
  });
});

describe('opening (BL-OPEN-9)', () => {
  test('an image that another program still has', async () => {
    const { graph, source, marks, storage, story } = world();
    const disk = await graph.open(source, { writable: true, inactive: true });
    expect(marks()).toEqual([true, true]);
    expect(storage.permissions.at(-1)?.need).toBe(READ);
    expect(disk.writable).toBe(false);
    await activate(graph);
    expect(story).toEqual(['activate below', 'activate top']);
    await disk.write(0, new Uint8Array(1));
    await disk.close();
    expect(storage.story).toEqual(['write 0+1', 'flush', 'close']);
  });

  test('nothing is flushed when one is closed that is inactive still', async () => {
    const { graph, source, storage } = world();
    await (await graph.open(source, { writable: true, inactive: true })).close();
    expect(storage.story).toEqual(['close']);
  });

  test('V-16: not of a format that cannot be handed over', async () => {
    const { graph } = world();
    const source = { driver: 'fixed', file: { driver: 'store' } };
    expect(await failureOf(graph.open(source, { inactive: true, nodeName: 'n' }))).toEqual({
      code: 'ENOTSUP',
      message: "The fixed format used by node 'n' does not support live migration",
    });
    expect(graph.nodes()).toEqual([]);
  });
});
