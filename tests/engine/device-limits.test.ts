/** I/O limits of devices (BL-MISC-2). */
import { describe, expect, test } from 'vitest';
import type { IoLimiter, LimitedKind } from '../../src/core/io-limiter.ts';
import { nodeRecord } from '../../src/core/named-nodes.ts';
import { ThrottleGroup } from '../../src/filters/throttle/group.ts';
import { parseLimits, UNLIMITED } from '../../src/filters/throttle/limits.ts';
import { SimHost } from '../../src/testing/index.ts';
import { failureOf, gate, graphOf, plainFormat, Storage, storageProtocol } from './storage.ts';

const STORE = { driver: 'store' };

function newGraph(storage = new Storage(8192), host = new SimHost()) {
  return { storage, host, graph: graphOf([storageProtocol(storage), plainFormat], { host }) };
}

/** Limits that let a request pass when the test says so. */
class ManualLimiter implements IoLimiter {
  readonly story: string[] = [];
  readonly group = { name: 'slow', limits: UNLIMITED };
  /** What may pass at once. */
  free = false;
  #waiting: (() => void)[] = [];

  wait(kind: LimitedKind, bytes: number): Promise<void> | undefined {
    this.story.push(`${kind} ${bytes}`);
    return this.free ? undefined : new Promise((pass) => this.#waiting.push(pass));
  }

  mayPass(): boolean {
    return this.free;
  }

  count(kind: LimitedKind, bytes: number): void {
    this.story.push(`count ${kind} ${bytes}`);
  }

  pass(): void {
    for (const pass of this.#waiting.splice(0)) pass();
  }

  disable(): void {
    this.story.push('disable');
    this.pass();
  }

  enable(): void {
    this.story.push('enable');
  }

  leave(): void {
    this.story.push('leave');
    this.pass();
  }
}

describe('I/O limits (BL-MISC-2)', () => {
  async function limited() {
    const world = newGraph();
    const device = world.graph.devices.add('cd');
    const limiter = new ManualLimiter();
    device.limitIo(limiter);
    await device.insert({ ...STORE, 'node-name': 'n' }, { writable: true });
    return { ...world, device, limiter };
  }

  test('requests wait for their turn: reads, and as writes all that changes the disk', async () => {
    const { device, limiter, storage } = await limited();
    const requests = [
      device.read(0, new Uint8Array(100)),
      device.write(0, new Uint8Array(200)),
      device.writeZeroes(0, 300),
      device.discard(0, 400),
    ];
    await device.flush();
    expect(storage.story).toEqual([]);
    expect(limiter.story).toEqual(['read 100', 'write 200', 'write 300', 'write 400']);
    limiter.pass();
    await Promise.all(requests);
    expect(new Set(storage.story)).toEqual(new Set(['read 0+100', 'write 0+200', 'zero 0+300', 'discard 0+400']));
  });

  test('an immediate answer counts, and is refused where it would have to wait', async () => {
    const { device, limiter, storage } = await limited();
    storage.without = ['status'];
    await device.remove();
    await device.insert(STORE, { writable: true });
    const bytes = new Uint8Array(100);
    limiter.story.length = 0;
    expect([device.disk.tryReadNow(0, bytes), device.disk.tryWriteNow(0, bytes)]).toEqual([false, false]);
    limiter.free = true;
    expect([device.disk.tryReadNow(0, bytes), device.disk.tryWriteNow(0, bytes)]).toEqual([true, true]);
    expect(limiter.story).toEqual(['count read 100', 'count write 100']);
  });

  test('BL-CLOSE-2: a medium that goes lets those begin that wait, and nothing new', async () => {
    const { device, limiter, storage } = await limited();
    const { disk } = device;
    const writing = device.write(0, new Uint8Array(100));
    const removing = device.remove();
    expect((await failureOf(disk.write(0, new Uint8Array(1)))).code).toBe('ENOMEDIUM');
    await Promise.all([writing, removing]);
    expect(storage.story).toEqual(['write 0+100', 'flush', 'close']);
    expect(limiter.story).toEqual(['write 100', 'disable', 'enable']);
  });

  test('BL-CLOSE-2: however long it takes until they have begun', async () => {
    const { device, limiter, storage, graph } = await limited();
    const writing = device.write(0, new Uint8Array(100));
    limiter.disable = () => void graph.host.clock.sleep(5).then(() => limiter.pass());
    await Promise.all([writing, device.remove()]);
    expect(storage.story).toEqual(['write 0+100', 'flush', 'close']);
  });

  test('what waits when a drain begins waits for its end too', async () => {
    const { device, limiter, storage, graph } = await limited();
    const writing = device.write(0, new Uint8Array(100));
    const drain = await graph.drain(device.requireNode());
    limiter.pass();
    await graph.host.clock.sleep(1);
    expect(storage.story).toEqual([]);
    drain.end();
    await writing;
    expect(storage.story).toEqual(['write 0+100']);
  });

  test('other limits, or none, are from then on; the former member leaves its group', async () => {
    const { device, limiter, storage } = await limited();
    const waiting = device.write(0, new Uint8Array(1));
    device.limitIo(undefined);
    expect(limiter.story.at(-1)).toBe('leave');
    await waiting;
    await device.write(0, new Uint8Array(100));
    expect(storage.story).toEqual(['write 0+1', 'write 0+100']);
  });

  test('a throttle group limits it, and a listing has the limits (BL-INFO-14)', async () => {
    const { graph, host } = newGraph();
    const group = new ThrottleGroup(
      'slow',
      parseLimits({ 'limits.bps-total': 1000, 'limits.iops-read': 5 }),
      host.clock,
    );
    const device = graph.devices.add('cd');
    device.limitIo(group.join());
    await device.insert(STORE, { writable: true });
    const start = host.clock.now();
    for (let i = 0; i < 3; i++) await device.write(0, new Uint8Array(1000));
    expect(Math.round(host.clock.now() - start)).toBeGreaterThanOrEqual(1000);
    const none = { bps_rd: 0, bps_wr: 0, iops: 0, iops_wr: 0 };
    expect(nodeRecord(graph, device.requireNode(), true)).toMatchObject({
      group: 'slow',
      bps: 1000,
      iops_rd: 5,
      ...none,
    });
    await graph.devices.remove(device);
    expect(group.memberCount).toBe(0);
  });

  test('a request that began is waited for', async () => {
    const { graph, storage } = newGraph();
    const device = graph.devices.add('cd');
    await device.insert(STORE, { writable: true });
    const hold = gate();
    storage.before = ({ kind }) => (kind === 'write' ? hold.wait() : undefined);
    const writing = device.write(0, new Uint8Array(1));
    const removing = device.remove();
    hold.open();
    await Promise.all([writing, removing]);
    expect(storage.story).toEqual(['write 0+1', 'flush', 'close']);
  });
});
