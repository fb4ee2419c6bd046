/** Draining: BL-CTX-5. */
import { expect, test } from 'vitest';
import { append } from '../../src/core/chain-change.ts';
import { defineFilter } from '../../src/core/driver.ts';
import { filled, Layers } from '../support/layers.ts';
import { gate, graphOf, plainFormat, Storage, storageProtocol } from './storage.ts';

function quietly(calls: string[]) {
  return defineFilter<unknown>({
    name: 'quiet',
    summary: 'notes when it is to be quiet',
    options: {},
    open: async () => ({ quiesce: () => void calls.push('quiesce'), resume: () => void calls.push('resume') }),
  });
}

test('BL-CTX-5: drains nest, and drivers hear of the first beginning and the last end', async () => {
  const calls: string[] = [];
  const world = new Layers({ drivers: [quietly(calls)] });
  const { graph } = world;
  const disk = await graph.open({ driver: 'quiet', file: world.tree('base') });
  const drains = [await graph.drain(disk.node), await graph.drain(world.node('base'))];
  expect([calls, disk.node.drainDepth]).toEqual([['quiesce'], 2]);
  drains[0]?.end();
  drains[0]?.end();
  expect([calls, disk.node.drainDepth]).toEqual([['quiesce'], 1]);
  drains[1]?.end();
  expect(calls).toEqual(['quiesce', 'resume']);
  await disk.close();
});

test('BL-CTX-5: what comes on top of a drained node is drained too, and quiet if it opens meanwhile', async () => {
  const calls: string[] = [];
  const world = new Layers({ drivers: [quietly(calls)] });
  const { graph } = world;
  await graph.add(world.tree('base'));
  const drain = await graph.drain(world.node('base'));
  const disk = await graph.open({ driver: 'quiet', file: 'base' });
  expect([calls, disk.node.drainDepth]).toEqual([['quiesce'], 1]);
  let done = false;
  const reading = disk.read(0, 1).then(() => {
    done = true;
  });
  await world.host.clock.sleep(1);
  expect(done).toBe(false);
  drain.end();
  await reading;
  await disk.close();
  expect(calls).toEqual(['quiesce', 'resume', 'quiesce']);
  await graph.closeAll();
});

test('BL-CTX-5: a request that waits goes to the node that is there then, when that is free too', async () => {
  const world = new Layers();
  const disk = await world.chain(['a', 'base']);
  await world.make('n');
  const { graph } = world;
  const overlay = await graph.add({ ...world.tree('n'), backing: null });
  const [old, fresh] = [await graph.drain(world.node('a')), await graph.drain(overlay)];
  const writing = disk.write(0, filled(9));
  await append(graph, overlay, world.node('a'));
  old.end();
  await world.host.clock.sleep(1);
  expect(world.host.contents('/n.layer')[512]).toBe(0);
  fresh.end();
  await writing;
  expect([world.host.contents('/n.layer')[512], world.host.contents('/a.layer')[512]]).toEqual([1, 0]);
  await graph.release(overlay);
});

test('BL-CTX-5: a request that a drain lets go does not slip into the next one, which begins at once', async () => {
  const storage = new Storage(8192);
  const graph = graphOf([storageProtocol(storage)]);
  const disk = await graph.open({ driver: 'store' }, { writable: true });
  for (let gap = 0; gap < 12; gap++) {
    const hold = gate();
    storage.before = ({ kind }) => (kind === 'write' ? hold.wait() : undefined);
    const first = await graph.drain(disk.node);
    const writing = disk.write(0, filled(1, 512));
    first.end();
    for (let turn = 0; turn < gap; turn++) await undefined;
    // One that has begun is waited for.
    const ending = graph.host.clock.sleep(1).then(() => hold.open());
    const second = await graph.drain(disk.node);
    expect(disk.node.tracker.idle, `${gap} turns later`).toBe(true);
    second.end();
    await Promise.all([writing, ending]);
  }
  await disk.close();
});

test('BL-CTX-5: a disk opened on a drained node waits, status and copies too', async () => {
  const storage = new Storage(8192);
  storage.without = [];
  const graph = graphOf([storageProtocol(storage)]);
  const first = await graph.open({ driver: 'store', 'node-name': 's' });
  const drain = await graph.drain(first.node);
  const second = await graph.openReference('s');
  storage.forget();
  const done: string[] = [];
  const works = [
    second.read(0, 512).then(() => done.push('read')),
    second.status(0, 512).then(() => done.push('status')),
    first.flush().then(() => done.push('flush')),
  ];
  await graph.host.clock.sleep(1);
  expect([done, storage.story, second.tryReadNow(0, new Uint8Array(512))]).toEqual([[], [], false]);
  drain.end();
  await Promise.all(works);
  await first.close();
  await second.close();
});

test('BL-CTX-5: a drain waits for status queries under way', async () => {
  const storage = new Storage(8192);
  storage.without = ['tryReadNow', 'tryWriteNow'];
  const hold = gate();
  const graph = graphOf([storageProtocol(storage)]);
  const disk = await graph.open({ driver: 'store' });
  const { impl } = disk.node;
  impl.status = async (_offset, length) => {
    await hold.wait();
    return { kind: 'data', length };
  };
  const asking = disk.status(0, 512);
  let drained = false;
  const draining = graph.drain(disk.node).then((drain) => {
    drained = true;
    drain.end();
  });
  await graph.host.clock.sleep(1);
  expect(drained).toBe(false);
  hold.open();
  await Promise.all([asking, draining]);
  await disk.close();
});

test('a closed node hears nothing more of a drain that held it', async () => {
  const calls: string[] = [];
  const world = new Layers({ drivers: [quietly(calls)] });
  const { graph } = world;
  await graph.add(world.tree('base'));
  const disk = await graph.open({ driver: 'quiet', file: 'base' });
  const drain = await graph.drain(world.node('base'));
  await disk.close();
  calls.length = 0;
  drain.end();
  expect(calls).toEqual([]);
  await graph.closeAll();
});

test('two checks of one image take turns, and changes of its links wait', async () => {
  const storage = new Storage(8192);
  const holds = [gate(), gate()];
  const order: string[] = [];
  const graph = graphOf([
    storageProtocol(storage),
    {
      ...plainFormat,
      async open(context: never) {
        const check = async () => {
          const hold = holds.shift();
          order.push('begin');
          await hold?.wait();
          order.push('end');
          return { corruptions: 0, leaks: 0, checkErrors: 0, corruptionsFixed: 0, leaksFixed: 0 };
        };
        return { ...(await plainFormat.open(context)), check };
      },
    } as typeof plainFormat,
  ]);
  const disk = await graph.open({ driver: 'plain', file: { driver: 'store' } });
  const [first, second] = [...holds];
  const options = { repair: 'none' as const, finding() {} };
  const checks = [disk.check(options), disk.check(options)];
  await graph.host.clock.sleep(1);
  expect(order).toEqual(['begin']);
  first?.open();
  second?.open();
  await Promise.all(checks);
  expect(order).toEqual(['begin', 'end', 'begin', 'end']);
  await disk.close();
});
