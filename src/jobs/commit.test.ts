import { describe, expect, test } from 'vitest';
import { chainWorld, KIB, type Layer, MIB, makeChain, open, read, same } from '../../tests/support/chains.ts';
import { block, unblock } from '../core/blockers.ts';
import { imagesOf } from '../core/chain.ts';
import { BlockError } from '../core/errors.ts';
import { reopen } from '../core/reopen.ts';
import { commit, commitAll, commitNode } from './commit.ts';

const BASE: Layer = { size: 4 * MIB, writes: [[0, MIB]] };
const MIDDLE: Layer = {
  size: 4 * MIB,
  writes: [
    [64 * KIB, 64 * KIB],
    [128 * KIB, 64 * KIB, 'zero'],
  ],
};
const TOP: Layer = {
  size: 4 * MIB,
  writes: [
    [MIB, 100 * KIB],
    [192 * KIB, 64 * KIB, 'zero'],
    [3 * MIB + 777, 5],
  ],
};

describe('commit', () => {
  test('puts what the image stores into the one below, zeroes as zeroes, and empties it (BL-COMMIT-2)', async () => {
    const { graph, host } = chainWorld();
    await makeChain(graph, BASE, TOP);
    const before = await read(graph, '/1.img');
    const disk = await open(graph, '/1.img');
    await commit(disk);
    expect(await disk.status(0, 4 * MIB)).toMatchObject({ depth: 1 });
    await disk.close();
    expect(same(await read(graph, '/base.raw'), before)).toBe(true);
    expect(same(await read(graph, '/1.img'), before)).toBe(true);
    // The emptied image has no data: header, counts and table (Q-DISC-6).
    expect((await host.files.stat('/1.img')).size).toBe(256 * KIB);
  });

  test('leaves the image as it is where it is not to be emptied, and with a base further down (T-COMMIT-1)', async () => {
    const { graph } = chainWorld();
    await makeChain(graph, BASE, MIDDLE, TOP);
    const before = await read(graph, '/2.img');
    const disk = await open(graph, '/2.img');
    await commit(disk, { empty: false });
    expect(await disk.status(MIB, KIB)).toMatchObject({ depth: 0 });
    const [, , base] = imagesOf(disk.node);
    await commit(disk, { base });
    expect(await disk.status(MIB, KIB)).toMatchObject({ depth: 0 });
    await disk.close();
    for (const name of ['/base.raw', '/1.img', '/2.img'])
      expect([name, same(await read(graph, name), before)]).toEqual([name, true]);
  });

  test('makes a shorter base longer; what a longer one has there stays hidden (BL-COMMIT-2, BL-SIZE-4)', async () => {
    const { graph } = chainWorld();
    await makeChain(
      graph,
      { size: 8 * MIB, writes: [[0, 8 * MIB]] },
      { size: 4 * MIB },
      { size: 8 * MIB, writes: [[MIB, MIB]] },
    );
    const before = await read(graph, '/2.img');
    const disk = await open(graph, '/2.img');
    await commit(disk);
    await disk.close();
    expect(same(await read(graph, '/1.img'), before)).toBe(true);
    expect(same(await read(graph, '/2.img'), before)).toBe(true);
  });

  test('down to a base that is longer than an image between: what that image ends is zero', async () => {
    const { graph } = chainWorld();
    await makeChain(
      graph,
      { size: 8 * MIB, writes: [[0, 8 * MIB]] },
      { size: 4 * MIB },
      { size: 6 * MIB, writes: [[MIB, MIB]] },
    );
    const before = await read(graph, '/2.img');
    const disk = await open(graph, '/2.img');
    await commit(disk, { base: imagesOf(disk.node)[2] });
    await disk.close();
    const base = await read(graph, '/base.raw');
    expect(base.length).toBe(8 * MIB);
    expect(same(base.subarray(0, 6 * MIB), before)).toBe(true);
    expect(base[6 * MIB]).not.toBe(0);
    expect(same(await read(graph, '/2.img'), before)).toBe(true);
  });

  test('copies in steps of at most 1 MiB, tells the progress and keeps to the rate (BL-COMMIT-2)', async () => {
    const { graph, host } = chainWorld();
    await makeChain(graph, { size: 8 * MIB }, { size: 8 * MIB, writes: [[0, 4 * MIB]] });
    const disk = await open(graph, '/1.img');
    const told: [number, number][] = [];
    const start = host.clock.now();
    await commit(disk, { rateLimit: MIB, progress: (done, total) => told.push([done, total]) });
    await disk.close();
    expect(told[0]).toEqual([0, 8 * MIB]);
    expect(told.at(-1)).toEqual([8 * MIB, 8 * MIB]);
    expect(told.some(([done]) => done === MIB)).toBe(true);
    expect(host.clock.now() - start).toBeGreaterThan(2500);
  });

  test('holds requests of the disk back until the end, and then answers them', async () => {
    const { graph } = chainWorld();
    await makeChain(graph, BASE, TOP);
    const disk = await open(graph, '/1.img');
    const work = commit(disk);
    let done = false;
    const marked = work.then(() => {
      done = true;
    });
    await disk.write(0, new Uint8Array(512).fill(9));
    expect(done).toBe(true);
    await marked;
    expect((await disk.read(0, 1))[0]).toBe(9);
    await disk.close();
  });
});

describe('the graph while it is committed', () => {
  test('an internal filter stands above, the base is writable, the chain is frozen; all is as before at the end (BL-COMMIT-3)', async () => {
    const { graph } = chainWorld();
    await makeChain(graph, BASE, MIDDLE, TOP);
    const disk = await open(graph, '/2.img');
    const [top, middle, base] = imagesOf(disk.node);
    if (top === undefined || middle === undefined || base === undefined) throw new TypeError('there are three images');
    const names = graph.nodes().map(({ name }) => name);
    const seen: unknown[] = [];
    const progress = (done: number) => {
      if (done !== 0) return;
      const filter = top.backing?.node;
      seen.push(
        filter?.driver.name,
        filter?.filtered?.node === middle,
        filter?.filename === middle.filename,
        base.writable,
      );
      seen.push(top.backing?.frozen, top.filename);
      seen.push(reopen(graph, [{ node: top, options: { backing: null } }]).catch(({ message }) => message));
    };
    await commit(disk, { base, progress });
    const [driver, over, named, writable, frozen, filename, refusal] = seen;
    expect([driver, over, named, writable, frozen, filename]).toEqual(['commit_top', true, true, true, true, '/2.img']);
    expect(await refusal).toMatch(/^Cannot change frozen 'backing' link from '.*' to '.*'$/);
    expect(graph.nodes().map(({ name }) => name)).toEqual(names);
    expect([base.writable, middle.writable, top.backing?.node, top.backing?.frozen]).toEqual([
      false,
      false,
      middle,
      false,
    ]);
    await disk.close();
    expect(graph.nodes()).toEqual([]);
  });

  test('who relies on an image in between is in conflict (J-GRAPH-2), and nothing was changed', async () => {
    const { graph } = chainWorld();
    await makeChain(graph, BASE, MIDDLE, TOP);
    const base = await read(graph, '/base.raw');
    const disk = await open(graph, '/2.img');
    const images = imagesOf(disk.node);
    const reader = await graph.openReference(images[1]?.name ?? '');
    await expect(commit(disk, { base: images[2] })).rejects.toMatchObject({
      code: 'EPERM',
      message: expect.stringMatching(
        /^Permission conflict on node '.*': permissions 'consistent read' are both required by an unnamed block device .* and unshared by commit job/,
      ),
    });
    await reader.close();
    await disk.close();
    expect(same(await read(graph, '/base.raw'), base)).toBe(true);
  });

  test('a second one of the same image is refused (J-GRAPH-1)', async () => {
    const { graph } = chainWorld();
    await makeChain(graph, BASE, TOP);
    const disk = await open(graph, '/1.img');
    const first = commit(disk);
    await expect(commit(disk)).rejects.toMatchObject({
      code: 'EBUSY',
      message: `Node '${disk.nodeName}' is busy: block device is in use by block job: commit`,
    });
    await first;
    await commit(disk);
    await disk.close();
  });
});

describe('refusals of a commit (BL-COMMIT-1)', () => {
  test('an image without one below: ENOTSUP; a base that is not below: EINVAL', async () => {
    const { graph } = chainWorld();
    await makeChain(graph, BASE, TOP);
    const raw = await graph.open('/base.raw', { format: 'raw', forceShare: true });
    await expect(commit(raw)).rejects.toMatchObject({ code: 'ENOTSUP', message: 'Image does not have a backing file' });
    const disk = await open(graph, '/1.img');
    await expect(commit(disk, { base: raw.node })).rejects.toMatchObject({
      code: 'EINVAL',
      message: "Did not find '/base.raw' in the backing chain of '/1.img'",
    });
    await disk.close();
    await raw.close();
  });

  test('a node that is closed: ENOMEDIUM', async () => {
    const { graph } = chainWorld();
    await makeChain(graph, BASE, TOP);
    const node = await graph.add('/1.img', { format: 'qcow2' });
    await graph.release(node);
    Object.defineProperty(node, 'isOpen', { value: false });
    await expect(commitNode(graph, node)).rejects.toMatchObject({ code: 'ENOMEDIUM', message: 'No medium found' });
  });

  test.each(['commit-source', 'commit-target'] as const)('%s blocked: EBUSY', async (operation) => {
    const { graph } = chainWorld();
    await makeChain(graph, BASE, TOP);
    const disk = await open(graph, '/1.img');
    const [top, base] = imagesOf(disk.node);
    const node = operation === 'commit-source' ? top : base;
    if (node === undefined) throw new TypeError('there are two images');
    const reason = { text: 'of a test' };
    block(node, reason, [operation]);
    await expect(commit(disk)).rejects.toMatchObject({
      code: 'EBUSY',
      message: `Node '${node.name}' is busy: of a test`,
    });
    unblock(node, reason);
    await commit(disk);
    await disk.close();
  });

  test('a base that cannot be made writable: EACCES, and all is as before', async () => {
    const { graph } = chainWorld();
    await makeChain(graph, BASE, TOP);
    const disk = await open(graph, '/1.img');
    const other = await graph.open('/base.raw', { format: 'raw', noWriters: true });
    const nodes = graph.nodes().length;
    // A raw image takes the lock when it gets its writer.
    await expect(commit(disk)).rejects.toMatchObject({ code: 'EAGAIN', message: 'Failed to get "write" lock' });
    expect(graph.nodes().length).toBe(nodes);
    await other.close();
    const base = imagesOf(disk.node)[1];
    if (base === undefined) throw new TypeError('there is a base');
    const { impl } = base;
    base.impl = { ...impl, prepareReopen: () => Promise.reject(new BlockError('EROFS', 'Read-only file system')) };
    await expect(commit(disk)).rejects.toMatchObject({
      code: 'EACCES',
      message: "failed while preparing to reopen image '/base.raw'",
    });
    expect(graph.nodes().length).toBe(nodes - 2);
    base.impl = impl;
    await commit(disk);
    await disk.close();
  });

  test('an image that is read-only and would be emptied: EACCES', async () => {
    const { graph } = chainWorld();
    await makeChain(graph, BASE, TOP);
    const disk = await open(graph, '/1.img', { writable: false });
    await expect(commit(disk)).rejects.toMatchObject({ code: 'EACCES', message: 'Image is read-only' });
    await commit(disk, { empty: false });
    await disk.close();
  });
});

describe('a commit cut short', () => {
  test('an abort leaves the disk as it was, and the base can be committed into again', async () => {
    const { graph } = chainWorld();
    await makeChain(graph, { size: 8 * MIB, writes: [[0, 8 * MIB]] }, { size: 8 * MIB, writes: [[0, 6 * MIB]] });
    const before = await read(graph, '/1.img');
    const disk = await open(graph, '/1.img');
    const stop = new AbortController();
    const progress = (done: number) => {
      if (done >= 2 * MIB) stop.abort();
    };
    await expect(commit(disk, { signal: stop.signal, progress })).rejects.toMatchObject({ name: 'AbortError' });
    expect(same(await disk.read(0, disk.length), before)).toBe(true);
    expect(imagesOf(disk.node)[1]?.writable).toBe(false);
    await disk.close();
    const again = await open(graph, '/1.img');
    await commit(again);
    await again.close();
    expect(same(await read(graph, '/base.raw'), before)).toBe(true);
  });

  test('what fails while copying or flushing is told, and the image is not emptied (BL-COMMIT-3)', async () => {
    for (const kind of ['write', 'flush'] as const) {
      const { graph } = chainWorld();
      await makeChain(graph, BASE, TOP);
      const before = await read(graph, '/1.img');
      const disk = await open(graph, '/1.img');
      const base = imagesOf(disk.node)[1];
      if (base === undefined) throw new TypeError('there is a base');
      const { impl } = base;
      base.impl = { ...impl, [kind]: () => Promise.reject(new BlockError('EIO', 'broken')) };
      const where = kind === 'write' ? 'at byte 1048576' : "back '/base.raw'";
      const message = `error while writing ${where}: Input/output error`;
      await expect(commit(disk)).rejects.toMatchObject({ code: 'EIO', message });
      base.impl = impl;
      expect(same(await disk.read(0, disk.length), before)).toBe(true);
      expect((await disk.status(MIB, KIB)).depth).toBe(0);
      await disk.close();
    }
  });

  test('emptying that fails is told with the image (T-COMMIT-1)', async () => {
    const { graph } = chainWorld();
    await makeChain(graph, BASE, TOP);
    const disk = await open(graph, '/1.img');
    const { impl } = disk.node;
    disk.node.impl = { ...impl, makeEmpty: () => Promise.reject(new BlockError('ENOSPC', 'full')) };
    await expect(commit(disk)).rejects.toMatchObject({ message: 'Failed to empty /1.img: No space left on device' });
    disk.node.impl = impl;
    await disk.close();
  });
});

describe('commitAll', () => {
  test('commits every disk with an image below, in order, and stops at the first error (BL-COMMIT-4)', async () => {
    const { graph } = chainWorld();
    await makeChain(graph, BASE, TOP);
    const before = await read(graph, '/1.img');
    const disk = await open(graph, '/1.img');
    await commitAll(graph);
    expect(await disk.status(MIB, KIB)).toMatchObject({ depth: 1 });
    const reason = { text: 'of a test' };
    block(disk.node, reason, ['commit-source']);
    await expect(commitAll(graph)).rejects.toMatchObject({ code: 'EBUSY' });
    unblock(disk.node, reason);
    await disk.close();
    expect(same(await read(graph, '/base.raw'), before)).toBe(true);
  });
});
