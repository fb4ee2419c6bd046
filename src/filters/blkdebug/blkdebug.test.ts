import { expect, test } from 'vitest';
import { createImage } from '../../core/create.ts';
import { removeBreakpoint, setBreakpoint } from '../../core/debug.ts';
import { Graph } from '../../core/graph.ts';
import { DRIVERS } from '../../drivers.ts';
import { SimHost } from '../../testing/index.ts';
import { blkdebugOf } from './control.ts';

async function opened(options = {}) {
  const host = new SimHost();
  const graph = new Graph({ host, drivers: DRIVERS });
  await createImage(graph, { filename: '/a.raw', format: 'raw', options: { size: '1M' } });
  const disk = await graph.open(
    { driver: 'raw', file: { driver: 'blkdebug', image: { driver: 'file', filename: '/a.raw' }, ...options } },
    { writable: true },
  );
  const node = graph.nodes().find(({ driver }) => driver.name === 'blkdebug');
  if (node === undefined) throw new Error('the filter is open');
  return { host, graph, disk, node, control: blkdebugOf(node) };
}

const ones = new Uint8Array(4096).fill(1);

test('a rule with once fails one request (BD-26, BD-60)', async () => {
  const { disk, control } = await opened();
  control.add({ event: 'pwritev', errno: 'ENOSPC', once: true });
  await expect(disk.write(0, ones)).rejects.toMatchObject({ code: 'ENOSPC' });
  await disk.write(0, ones);
  expect(control.rules()).toEqual([]);
  await disk.close();
});

test('a suspended request fails when its node is closed (BD-31, BD-36)', async () => {
  const { disk, host, node } = await opened();
  setBreakpoint(disk.node, 'pwritev', 'A');
  const writing = disk.write(0, ones).catch((error) => error);
  while (!node.impl.breakpoints?.isSuspended('A')) await host.clock.sleep(1);
  await disk.close();
  expect(await writing).toMatchObject({ code: 'ECANCELED' });
});

test('removing a breakpoint wakes what waits there (BD-33)', async () => {
  const { disk, host, node } = await opened();
  setBreakpoint(disk.node, 'pwritev', 'A');
  const writing = disk.write(0, ones);
  while (!node.impl.breakpoints?.isSuspended('A')) await host.clock.sleep(1);
  removeBreakpoint(disk.node, 'A');
  await writing;
  expect(() => removeBreakpoint(disk.node, 'A')).toThrow(expect.objectContaining({ code: 'ENOENT' }));
  await disk.close();
});

test('rules of options, and the names that show them (BD-3, BD-25, BD-52)', async () => {
  const { disk, node } = await opened({ 'inject-error': [{ event: 'none', errno: 28, sector: 8, once: true }] });
  expect(node.filename).toBe(
    'json:{"inject-error.0.once": true, "image": {"driver": "file", "filename": "/a.raw"}, "driver": "blkdebug", "inject-error.0.errno": 28, "inject-error.0.event": "none", "inject-error.0.sector": 8}',
  );
  await disk.read(0, 4096);
  await expect(disk.read(4096, 512)).rejects.toMatchObject({ code: 'ENOSPC' });
  await disk.read(4096, 512);
  await disk.close();
});
