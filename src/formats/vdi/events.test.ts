/** The debug events that VDI raises, each just before its step (BD-42). */
import { expect, test, vi } from 'vitest';
import { createImage } from '../../core/create.ts';
import { isSuspended, resumeBreakpoint, setBreakpoint } from '../../core/debug.ts';
import type { Disk } from '../../core/disk.ts';
import { Graph } from '../../core/graph.ts';
import { DRIVERS } from '../../drivers.ts';
import { blkdebugOf } from '../../filters/blkdebug/control.ts';
import { SimHost } from '../../testing/index.ts';

const BLOCK = 1 << 20;

async function opened(options: { readonly parent?: boolean } = {}) {
  const host = new SimHost();
  const graph = new Graph({ host, drivers: DRIVERS });
  const size = 4 * BLOCK;
  if (options.parent === true) {
    await createImage(graph, { filename: '/parent.vdi', format: 'vdi', options: { size } });
    const parent = await graph.open('/parent.vdi', { format: 'vdi', writable: true });
    await parent.write(0, new Uint8Array(2 * BLOCK).fill(7));
    await parent.close();
  }
  const parent = options.parent === true ? { parent: '/parent.vdi' } : {};
  await createImage(graph, { filename: '/a.vdi', format: 'vdi', options: { size, ...parent } });
  const disk = await graph.open(
    {
      driver: 'vdi',
      file: { driver: 'blkdebug', image: { driver: 'file', filename: '/a.vdi' } },
      ...(options.parent === true && { backing: { driver: 'vdi', file: { driver: 'file', filename: '/parent.vdi' } } }),
    },
    { writable: true },
  );
  const node = disk.node.child('file')?.node;
  if (node === undefined) throw new Error('the filter is open');
  const control = blkdebugOf(node);
  const trail: string[] = [];
  const { engine } = control;
  const raise = engine.event.bind(engine);
  vi.spyOn(engine, 'event').mockImplementation((name) => {
    trail.push(name);
    return raise(name);
  });
  control.setScenario(({ type }) => {
    trail.push(type);
    return undefined;
  });
  const during = async (work: () => Promise<unknown>) => {
    trail.length = 0;
    await work();
    return [...trail];
  };
  return { host, disk, during };
}

const bytes = (length: number) => new Uint8Array(length).fill(1);

test('reading and writing what is stored', async () => {
  const { disk, during } = await opened();
  await disk.write(0, bytes(4096));
  await disk.flush();
  expect(await during(() => disk.read(0, 512))).toEqual(['read_aio', 'read']);
  expect(await during(() => disk.write(0, bytes(512)))).toEqual(['write_aio', 'pwritev', 'write', 'pwritev_done']);
  expect(await during(() => disk.read(BLOCK, 512))).toEqual([]);
  await disk.close();
});

test('a new block, the map and the header', async () => {
  const { disk, during } = await opened();
  const written = await during(() => disk.write(BLOCK, bytes(512)));
  expect(written.slice(0, 4)).toEqual(['cluster_alloc', 'write_aio', 'pwritev', 'write']);
  const flushed = await during(() => disk.flush());
  const steps = flushed.filter((name) => ['l1_update', 'l2_update', 'write', 'flush'].includes(name));
  expect(steps).toEqual(['flush', 'l1_update', 'write', 'flush', 'l2_update', 'write', 'flush']);
  await disk.close();
});

test('blocks that are given up', async () => {
  const { disk, during } = await opened();
  await disk.write(0, bytes(2 * BLOCK));
  expect(await during(() => disk.discard(0, BLOCK))).toEqual(['cluster_free']);
  expect(await during(() => disk.discard(0, BLOCK))).toEqual([]);
  expect(await during(() => disk.writeZeroes(BLOCK, 4096, { unmap: true }))).not.toContain('cluster_free');
  expect(await during(() => disk.writeZeroes(BLOCK, BLOCK, { unmap: true }))).toEqual(['cluster_free']);
  await disk.close();
});

test('a parent is read, and copied from', async () => {
  const { disk, during } = await opened({ parent: true });
  expect(await during(() => disk.read(0, 512))).toEqual(['read_backing_aio']);
  const written = await during(() => disk.write(BLOCK, bytes(512)));
  expect(written.filter((name) => /aio|cow|cluster/.test(name))).toEqual([
    'cluster_alloc',
    'cow_read',
    'cow_write',
    'write_aio',
  ]);
  expect(await during(async () => disk.node.impl.makeEmpty?.())).toContain('empty_image_prepare');
  await disk.close();
});

/** Stops `work` at an event and says what has become of the image until then. */
async function stoppedAt(disk: Disk, host: SimHost, event: string, work: () => Promise<unknown>) {
  setBreakpoint(disk.node, event, 'A');
  const working = work();
  while (!isSuspended(disk.node, 'A')) await host.clock.sleep(1);
  return async () => {
    resumeBreakpoint(disk.node, 'A');
    await working;
  };
}

test.each(['cluster_alloc', 'write_aio'])('%s holds a write up before anything of it is stored', async (event) => {
  const { disk, host } = await opened();
  const go = await stoppedAt(disk, host, event, () => disk.write(0, bytes(512)));
  expect((await disk.read(0, 512))[0]).toBe(0);
  await go();
  expect((await disk.read(0, 512))[0]).toBe(1);
  await disk.close();
});

test.each(['l1_update', 'l2_update'])('%s holds a flush up, and the image is whole afterwards', async (event) => {
  const { disk, host } = await opened();
  await disk.write(0, bytes(512));
  const go = await stoppedAt(disk, host, event, () => disk.flush());
  await disk.write(BLOCK, bytes(512));
  await go();
  await disk.flush();
  expect((await disk.check({ repair: 'none', finding: () => {} })).corruptions).toBe(0);
  await disk.close();
});
