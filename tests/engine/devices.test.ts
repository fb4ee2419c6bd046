/** Devices: BL-TERM-6, BL-MEDIA, BL-INFO-10, BL-INFO-13. Their I/O limits have tests of their own. */
import { describe, expect, test } from 'vitest';
import { block, unblock } from '../../src/core/blockers.ts';
import { nodeRecord } from '../../src/core/named-nodes.ts';
import { SimHost } from '../../src/testing/index.ts';
import { failureOf, gate, graphOf, plainFormat, Storage, storageProtocol } from './storage.ts';

function newGraph(storage = new Storage(8192), host = new SimHost()) {
  return { storage, host, graph: graphOf([storageProtocol(storage), plainFormat], { host }) };
}

const STORE = { driver: 'store' };
const NO_MEDIUM = { code: 'ENOMEDIUM', message: "Device 'cd' has no medium" };

describe('names', () => {
  test('BL-TERM-6: devices and nodes share one namespace', async () => {
    const { graph } = newGraph();
    graph.devices.add('cd');
    expect(() => graph.devices.add('cd')).toThrow("Duplicate devices with name 'cd'");
    expect(() => graph.devices.add('1x')).toThrow("Invalid device name: '1x'");
    // BL-OPEN-20: the second of its refusals.
    expect(await failureOf(graph.open(STORE, { nodeName: 'cd' }))).toEqual({
      code: 'EINVAL',
      message: 'node-name=cd is conflicting with a device id',
    });
    const disk = await graph.open(STORE, { nodeName: 'n' });
    expect(() => graph.devices.add('n')).toThrow('device name=n is conflicting with a node name');
    await disk.close();
    graph.devices.add('n');
  });

  test('BL-TERM-7: the nodes in devices, in the order of these; all nodes in the order they were opened', async () => {
    const { graph } = newGraph();
    const [first, second] = [graph.devices.add('a'), graph.devices.add('b')];
    graph.devices.add('empty');
    await second.insert({ ...STORE, 'node-name': 'in-b' });
    await first.insert({ ...STORE, 'node-name': 'in-a' });
    expect(graph.devices.rootNodes().map(({ name }) => name)).toEqual(['in-a', 'in-b']);
    expect(graph.nodes().map(({ name }) => name)).toEqual(['in-b', 'in-a']);
    expect(graph.devices.all().map(({ name }) => name)).toEqual(['a', 'b', 'empty']);
  });

  test('BL-INFO-9: a node tells the device that it is in, and messages call it so', async () => {
    const { graph } = newGraph();
    const device = graph.devices.add('cd');
    await device.insert({ ...STORE, 'node-name': 'n' });
    const node = graph.lookUp('n');
    expect([node.deviceName, node.deviceOrNodeName]).toEqual(['cd', 'cd']);
    await device.remove();
    const held = await graph.open({ ...STORE, 'node-name': 'm' });
    expect([held.node.deviceName, held.node.deviceOrNodeName]).toEqual(['', 'm']);
  });

  test('BL-INFO-13: a device decides, and without a medium there is no falling back', async () => {
    const { graph } = newGraph();
    const device = graph.devices.add('cd');
    expect(() => graph.lookUp({ device: 'cd', node: 'n' })).toThrow("Device 'cd' has no medium");
    await device.insert({ ...STORE, 'node-name': 'in' });
    await graph.open({ ...STORE, 'node-name': 'n' });
    expect(graph.lookUp({ device: 'cd', node: 'n' }).name).toBe('in');
    expect(graph.lookUp({ node: 'n' }).name).toBe('n');
    expect(graph.lookUp({ device: 'x', node: 'n' }).name).toBe('n');
    expect(graph.lookUp('cd').name).toBe('in');
    const none = (device: string, node: string) => `Cannot find device='${device}' nor node-name='${node}'`;
    expect(() => graph.lookUp({ device: 'x', node: 'y' })).toThrow(none('x', 'y'));
    expect(() => graph.lookUp({ device: 'x' })).toThrow(none('x', ''));
    expect(() => graph.lookUp({})).toThrow(none('', ''));
  });

  test('BL-OPEN-2: a reference to a device is one to its node; without a medium that fails with ENODEV', async () => {
    const { graph } = newGraph();
    const device = graph.devices.add('cd');
    const source = { driver: 'plain', file: 'cd' };
    expect(await failureOf(graph.open(source))).toEqual({ code: 'ENODEV', message: "Device 'cd' has no medium" });
    await device.insert({ ...STORE, 'node-name': 'n' });
    const disk = await graph.open(source);
    expect(disk.node.child('file')?.node.name).toBe('n');
  });
});

describe('media', () => {
  test('requests go to the medium, and fail without one', async () => {
    const { graph, storage } = newGraph();
    const device = graph.devices.add('cd');
    const requests = () => [
      device.read(0, new Uint8Array(1)),
      device.write(0, new Uint8Array(1)),
      device.writeZeroes(0, 1),
      device.discard(0, 1),
      device.flush(),
    ];
    for (const request of requests()) expect(await failureOf(request)).toEqual(NO_MEDIUM);
    await device.insert(STORE, { writable: true });
    await device.write(5, new Uint8Array([7]));
    expect(await device.read(5, new Uint8Array(1))).toEqual(new Uint8Array([7]));
    await device.writeZeroes(5, 1);
    await device.discard(0, 512);
    await device.flush();
    expect(storage.story).toEqual(['write 5+1', 'read 5+1', 'zero 5+1', 'discard 0+512', 'flush']);
    await device.remove();
    for (const request of requests()) expect(await failureOf(request)).toEqual(NO_MEDIUM);
    expect(graph.nodes()).toEqual([]);
  });

  test('one medium at a time, one device for a medium', async () => {
    const { graph } = newGraph();
    const [device, other] = [graph.devices.add('cd'), graph.devices.add('dvd')];
    const node = await graph.add({ ...STORE, 'node-name': 'n' });
    const [first, second] = await Promise.allSettled([device.insert(node), device.insert(STORE)]);
    expect([first.status, second.status]).toEqual(['fulfilled', 'rejected']);
    expect(await failureOf(device.insert(STORE))).toEqual({
      code: 'EBUSY',
      message: "There is a medium in device 'cd' already",
    });
    expect(await failureOf(other.insert(node))).toEqual({
      code: 'EBUSY',
      message: "Node 'n' is in device 'cd' already",
    });
    await device.remove();
    await other.insert(node);
    expect(other.node).toBe(node);
  });

  test('changes take place one after the other', async () => {
    const { graph, storage } = newGraph();
    const device = graph.devices.add('cd');
    await device.insert(STORE);
    const hold = gate();
    storage.before = ({ kind }) => (kind === 'close' ? hold.wait() : undefined);
    const removing = device.remove();
    expect(device.node).toBeUndefined();
    const inserting = device.insert(STORE);
    await graph.host.clock.sleep(1);
    expect([storage.story, device.node]).toEqual([['close'], undefined]);
    hold.open();
    await Promise.all([removing, inserting]);
    expect(device.node).toBeDefined();
  });

  test('what is refused is not left open', async () => {
    const { graph } = newGraph();
    const device = graph.devices.add('cd');
    expect((await failureOf(device.insert({ ...STORE, 'read-only': true }, { writable: true }))).code).toBe('EPERM');
    expect(graph.nodes()).toEqual([]);
    expect(device.node).toBeUndefined();
    await device.insert(STORE);
  });

  test('BL-PERM-2: a conflict names the device', async () => {
    const { graph } = newGraph();
    const device = graph.devices.add('cd');
    await device.insert({ ...STORE, 'node-name': 'n' }, { writable: true });
    const { message } = await failureOf(graph.openReference('n', { writable: true }));
    expect(message).toContain("unshared by block device 'cd' (uses node 'n' as 'root' child).");
  });

  test('BL-OPEN-18, BL-CLOSE-2: the guest side is told that a medium is there, and that it goes', async () => {
    const { graph, storage } = newGraph();
    const told: (boolean | string)[] = [];
    const listener = { mediumChanged: (loaded: boolean) => void told.push(loaded, storage.story.join()) };
    const device = graph.devices.add('cd', { listener });
    await device.insert(STORE);
    await device.remove();
    await device.remove();
    // It goes before its driver closes.
    expect(told).toEqual([true, '', false, '']);
    expect(storage.story).toEqual(['close']);
  });

  test('BL-SIZE-3: the guest side is told of a new length, of a node below too', async () => {
    const { graph } = newGraph();
    const told: number[] = [];
    const device = graph.devices.add('cd', { listener: { resized: (length) => void told.push(length) } });
    await device.insert({ driver: 'plain', file: STORE }, { writable: true });
    await device.truncate(16384);
    expect(told).toEqual([16384]);
    await device.truncate(16384);
    expect(told).toEqual([16384]);
    await device.remove();
    // BL-SIZE-4.
    expect(await failureOf(device.truncate(512))).toEqual({ code: 'ENOMEDIUM', message: 'No medium inserted' });
  });

  test('BL-CLOSE-4: closing all takes the media out, and drops what is held', async () => {
    const { graph, storage } = newGraph();
    const device = graph.devices.add('cd', { tray: true });
    await device.openTray();
    await device.insert({ driver: 'plain', file: STORE }, { writable: true });
    await device.closeTray();
    await device.lock(true);
    await graph.add(STORE);
    await device.write(0, new Uint8Array(512));
    storage.forget();
    await graph.closeAll();
    expect(graph.nodes()).toEqual([]);
    expect(storage.story.filter((line) => line === 'close').length).toBe(2);
    expect(device.node).toBeUndefined();
  });

  test('BL-CLOSE-4: requests under way end first, before any medium goes', async () => {
    const [first, second] = [new Storage(8192), new Storage(8192)];
    const graph = graphOf([storageProtocol(first), storageProtocol(second, 'second')]);
    await graph.devices.add('a').insert(STORE);
    const device = graph.devices.add('b');
    await device.insert({ driver: 'second' });
    const hold = gate();
    second.before = ({ kind }) => (kind === 'read' ? hold.wait() : undefined);
    const reading = device.read(0, new Uint8Array(512));
    const closing = graph.closeAll();
    await graph.host.clock.sleep(1);
    expect(first.story).toEqual([]);
    hold.open();
    await Promise.all([reading, closing]);
    expect(first.story).toEqual(['close']);
  });

  test('BL-CLOSE-4: a node that someone still uses is told', async () => {
    const { graph } = newGraph();
    const disk = await graph.open({ ...STORE, 'node-name': 'n' });
    expect(await failureOf(graph.closeAll())).toEqual({ code: 'EBUSY', message: "Node 'n' is still in use" });
    await disk.close();
    await graph.closeAll();
  });

  test('BL-CLOSE-5: a device that is removed has no name any more, and no medium', async () => {
    const { graph } = newGraph();
    const device = graph.devices.add('cd');
    await device.insert(STORE);
    await graph.devices.remove(device);
    await graph.devices.remove(device);
    expect([graph.devices.all(), graph.nodes()]).toEqual([[], []]);
    const again = graph.devices.add('cd');
    await graph.devices.remove(device);
    expect(graph.devices.get('cd')).toBe(again);
  });
});

describe('trays (BL-MEDIA-2)', () => {
  /** A storage that is a drive. */
  function drive() {
    const story: string[] = [];
    const storage = new Storage(8192);
    const spec = storageProtocol(storage, 'drive');
    const open = async () => ({
      ...storage.node(),
      eject: async (isOpen: boolean) => void story.push(isOpen ? 'open' : 'close'),
      lockMedium: async (locked: boolean) => void story.push(locked ? 'lock' : 'unlock'),
    });
    return { story, spec: { ...spec, open } as typeof spec };
  }

  function watched(tray = true) {
    const { spec, story } = drive();
    const host = new SimHost({ watch: (channel) => channel === 'diskwright:device:tray-moved' });
    const { events } = host;
    const graph = graphOf([storageProtocol(new Storage(8192)), spec, plainFormat], { host });
    return { graph, events, story, device: graph.devices.add('cd', { id: 'ide0', tray }) };
  }

  test('the event has device, id and tray-open, once for each move', async () => {
    const { device, events } = watched();
    await device.openTray();
    await device.openTray();
    await device.closeTray();
    await device.closeTray();
    const moved = (open: boolean) => ({
      channel: 'diskwright:device:tray-moved',
      message: { device: 'cd', id: 'ide0', 'tray-open': open },
    });
    expect(events).toEqual([moved(true), moved(false)]);
  });

  test('the drive moves its tray, below a format too; without one nothing happens', async () => {
    const { device, story } = watched();
    await device.openTray();
    await device.insert({ driver: 'plain', file: { driver: 'drive' } });
    await device.closeTray();
    await device.lock(true);
    await device.lock(false);
    await device.eject();
    expect(story).toEqual(['close', 'lock', 'unlock', 'open']);
    await device.insert(STORE);
    await device.lock(true);
    expect(story.length).toBe(4);
    expect(device.isLocked).toBe(true);
  });

  test('a medium is changed through an open tray, and read through a closed one', async () => {
    const { device } = watched();
    expect(await failureOf(device.insert(STORE))).toEqual({
      code: 'EBUSY',
      message: "The tray of device 'cd' is closed",
    });
    await device.openTray();
    await device.insert(STORE);
    expect(await failureOf(device.read(0, new Uint8Array(1)))).toEqual({
      code: 'ENOMEDIUM',
      message: "The tray of device 'cd' is open",
    });
    await device.closeTray();
    await device.read(0, new Uint8Array(1));
    expect((await failureOf(device.remove())).code).toBe('EBUSY');
    await device.eject();
    expect([device.isTrayOpen, device.node]).toEqual([true, undefined]);
  });

  test('a lock keeps the tray closed, unless by force', async () => {
    const { device } = watched();
    await device.lock(true);
    const locked = { code: 'EBUSY', message: "Device 'cd' is locked" };
    expect(await failureOf(device.openTray())).toEqual(locked);
    expect(await failureOf(device.eject())).toEqual(locked);
    expect(device.isTrayOpen).toBe(false);
    await device.eject({ force: true });
    expect(device.isTrayOpen).toBe(true);
  });

  test('a device without tray ejects without an event', async () => {
    const { device, events } = watched(false);
    await device.insert(STORE);
    await device.eject();
    expect([events, device.node]).toEqual([[], undefined]);
  });

  test('BL-BLOCK-3: what blocks ejecting says why', async () => {
    const { device, graph } = watched();
    await device.openTray();
    await device.insert({ ...STORE, 'node-name': 'n' });
    await device.closeTray();
    const reason = { text: 'a backup reads it' };
    block(graph.lookUp('n'), reason);
    const busy = { code: 'EBUSY', message: "Node 'cd' is busy: a backup reads it" };
    expect(await failureOf(device.eject())).toEqual(busy);
    expect(device.isTrayOpen).toBe(false);
    unblock(graph.lookUp('n'), reason);
    await device.eject();
  });
});

describe('write cache (BL-INFO-10)', () => {
  test('without it every write is durable before it resolves; later media have the same', async () => {
    const { graph, storage } = newGraph();
    const device = graph.devices.add('cd');
    await device.insert(STORE, { writable: true });
    expect(device.writeCache).toBe(true);
    await device.write(0, new Uint8Array(1));
    expect(storage.story).toEqual(['write 0+1']);
    device.writeCache = false;
    await device.write(0, new Uint8Array(1));
    await device.writeZeroes(0, 1);
    expect(storage.story.slice(1)).toEqual(['write 0+1', 'flush', 'zero 0+1', 'flush']);
    expect(nodeRecord(graph, device.requireNode(), true).cache.writeback).toBe(false);
    await device.remove();
    await device.insert(STORE, { writable: true });
    expect([device.writeCache, device.disk.writeCache]).toEqual([false, false]);
    device.writeCache = true;
    storage.forget();
    await device.write(0, new Uint8Array(1));
    expect(storage.story).toEqual(['write 0+1']);
  });

  test('a reopen keeps it', async () => {
    const { graph, storage } = newGraph();
    const disk = await graph.open(STORE, { writable: true });
    disk.writeCache = false;
    await graph.reopen([{ node: disk, options: {} }]);
    await disk.write(0, new Uint8Array(1));
    expect(storage.story.slice(-2)).toEqual(['write 0+1', 'flush']);
    expect(disk.node.settings.cache.writeBack).toBe(false);
  });

  test('a further disk on a node has the cache mode that it asks for', async () => {
    const { graph, storage } = newGraph();
    const node = await graph.add(STORE);
    const disk = await graph.openReference(node.name, { writable: true, cache: 'writethrough' });
    await disk.write(0, new Uint8Array(1));
    expect(storage.story).toEqual(['write 0+1', 'flush']);
  });
});
