/** Requests at one time: which wait for which, drains, closing. */
import { describe, expect, test } from 'vitest';
import type { Disk } from '../../src/core/disk.ts';
import { failing, failureOf, gate, graphOf, plainFormat, Storage, storageProtocol } from './storage.ts';

async function opened(requestAlign: number): Promise<{ storage: Storage; disk: Disk }> {
  const storage = new Storage(65536);
  storage.limits = { requestAlign };
  const disk = await graphOf([storageProtocol(storage)]).open({ driver: 'store' }, { writable: true });
  return { storage, disk };
}

/** Lets everything run that can. */
function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

describe('overlapping requests', () => {
  test('aligned reads run beside whatever changes; changes come in the order of their arrival (N-73)', async () => {
    const { storage, disk } = await opened(512);
    const hold = gate();
    storage.before = hold.wait;
    const work: Promise<unknown>[] = [
      disk.write(0, new Uint8Array(1024).fill(1)),
      disk.write(512, new Uint8Array(1024).fill(2)),
      disk.writeZeroes(1024, 512),
    ];
    await settle();
    expect(storage.story).toEqual(['write 0+1024']);
    work.push(disk.read(0, 512), disk.read(0, 1024));
    await settle();
    expect(hold.waiting).toBe(3);
    hold.open();
    await Promise.all(work);
    expect([0, 511, 512, 1023, 1024, 1535].map((at) => storage.bytes[at])).toEqual([1, 1, 2, 2, 0, 0]);
  });

  test('read-modify-writes of one block come one after the other, and none loses the other', async () => {
    const { storage, disk } = await opened(4096);
    const hold = gate();
    storage.before = hold.wait;
    const work = Array.from({ length: 16 }, (_, i) => disk.write(i * 100, new Uint8Array(100).fill(i + 1)));
    await settle();
    expect(storage.story).toEqual(['read 0+4096']);
    hold.open();
    await Promise.all(work);
    for (let i = 0; i < 16; i++) expect(storage.bytes[i * 100 + 50]).toBe(i + 1);
  });

  test('a later aligned write waits for a read-modify-write it overlaps, and wins', async () => {
    const { storage, disk } = await opened(4096);
    const hold = gate();
    storage.before = hold.wait;
    const work = [disk.write(10, new Uint8Array(10).fill(1)), disk.write(0, new Uint8Array(4096).fill(2))];
    await settle();
    expect(storage.story).toEqual(['read 0+4096']);
    hold.open();
    await Promise.all(work);
    expect(storage.bytes.subarray(0, 4096).every((byte) => byte === 2)).toBe(true);
  });

  test('a read-modify-write waits for an earlier aligned write', async () => {
    const { storage, disk } = await opened(4096);
    const hold = gate();
    storage.before = hold.wait;
    const work = [disk.write(0, new Uint8Array(4096).fill(2)), disk.write(10, new Uint8Array(10).fill(1))];
    await settle();
    expect(storage.story).toEqual(['write 0+4096']);
    hold.open();
    await Promise.all(work);
    expect([storage.bytes[9], storage.bytes[10], storage.bytes[19], storage.bytes[20]]).toEqual([2, 1, 1, 2]);
  });

  test('what does not overlap does not wait', async () => {
    const { storage, disk } = await opened(4096);
    const hold = gate();
    storage.before = hold.wait;
    const work = [disk.write(10, new Uint8Array(10)), disk.write(4096, new Uint8Array(4096)), disk.read(8192, 10)];
    await settle();
    expect(storage.story.sort()).toEqual(['read 0+4096', 'read 8192+4096', 'write 4096+4096']);
    hold.open();
    await Promise.all(work);
  });

  test('a failed request lets the next one go on', async () => {
    const { storage, disk } = await opened(4096);
    let first = true;
    storage.before = () => {
      if (!first) return;
      first = false;
      failing('EIO')();
    };
    const results = await Promise.allSettled([
      disk.write(10, new Uint8Array(10).fill(1)),
      disk.write(30, new Uint8Array(10).fill(2)),
    ]);
    expect(results.map(({ status }) => status)).toEqual(['rejected', 'fulfilled']);
    expect([storage.bytes[10], storage.bytes[30]]).toEqual([0, 2]);
  });

  test('a truncate waits for what reaches past the new end, and holds back what comes', async () => {
    const { storage, disk } = await opened(1);
    const hold = gate();
    storage.before = hold.wait;
    const work = [
      disk.write(60000, new Uint8Array(100).fill(1)),
      disk.resize(4096, { shrink: true }),
      disk.read(0, 100),
    ];
    await settle();
    expect(storage.story).toEqual(['write 60000+100', 'read 0+100']);
    hold.open();
    await Promise.all(work);
    expect(storage.bytes.length).toBe(4096);
  });
});

describe('drain (BL-CTX-5)', () => {
  test('waits for what is under way, and holds back what comes until resumed', async () => {
    const { storage, disk } = await opened(1);
    const hold = gate();
    storage.before = hold.wait;
    const writing = disk.write(0, new Uint8Array(10));
    let drained = false;
    const draining = disk.graph.drain(disk.node).then((drain) => {
      drained = true;
      return drain;
    });
    await settle();
    expect(drained).toBe(false);
    hold.open();
    await writing;
    await draining;
    let read = false;
    const reading = disk.read(0, 10).then(() => {
      read = true;
    });
    await settle();
    expect(read).toBe(false);
    (await draining).end();
    await reading;
  });

  test('nests', async () => {
    const { disk } = await opened(1);
    const outer = await disk.graph.drain(disk.node);
    const inner = await disk.graph.drain(disk.node);
    inner.end();
    let read = false;
    const reading = disk.read(0, 10).then(() => {
      read = true;
    });
    await settle();
    expect(read).toBe(false);
    outer.end();
    await reading;
  });

  test('of a file quiets the formats above it', async () => {
    const storage = new Storage(8192);
    const graph = graphOf([storageProtocol(storage), plainFormat]);
    const disk = await graph.open({ driver: 'plain', file: { driver: 'store', 'node-name': 'below' } });
    const below = graph.node('below');
    if (below === undefined) throw new Error('the node is there');
    const drain = await graph.drain(below);
    let read = false;
    const reading = disk.read(0, 10).then(() => {
      read = true;
    });
    await settle();
    expect(read).toBe(false);
    drain.end();
    await reading;
  });
});

describe('closing', () => {
  test('waits for requests under way, then flushes, then closes', async () => {
    const { storage, disk } = await opened(1);
    const hold = gate();
    storage.before = ({ kind }) => (kind === 'write' ? hold.wait() : undefined);
    const writing = disk.write(0, new Uint8Array(10));
    let closed = false;
    const closing = disk.close().then(() => {
      closed = true;
    });
    await settle();
    expect(closed).toBe(false);
    hold.open();
    await writing;
    await closing;
    expect(storage.story).toEqual(['write 0+10', 'flush', 'close']);
  });

  test('frees everything even when flushing or closing fails, and says so', async () => {
    const { storage, disk } = await opened(1);
    await disk.write(0, new Uint8Array(10));
    storage.before = failing('EIO');
    expect((await failureOf(disk.close())).code).toBe('EIO');
    expect(storage.story.slice(-2)).toEqual(['flush', 'close']);
    expect(disk.graph.nodes()).toEqual([]);
  });

  test('a node goes with its last user, and its children with it (BL-CLOSE-1, BL-CLOSE-6)', async () => {
    const storage = new Storage(8192);
    const graph = graphOf([storageProtocol(storage), plainFormat]);
    const first = await graph.open({ driver: 'plain', file: { driver: 'store' } }, { nodeName: 'top' });
    const second = await graph.openReference('top');
    await first.close();
    expect(graph.nodes().length).toBe(2);
    await second.read(0, 10);
    await second.close();
    expect(graph.nodes()).toEqual([]);
    expect(storage.story.at(-1)).toBe('close');
  });

  test('using closes at the end of the block', async () => {
    const storage = new Storage(8192);
    const graph = graphOf([storageProtocol(storage)]);
    {
      await using disk = await graph.open({ driver: 'store' });
      await disk.read(0, 1);
    }
    expect(graph.nodes()).toEqual([]);
  });
});
