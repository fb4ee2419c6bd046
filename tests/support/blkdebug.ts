/** blkdebug nodes over a raw image on the simulated host. */
import { createImage } from '../../src/core/create.ts';
import { isSuspended } from '../../src/core/debug.ts';
import type { Disk } from '../../src/core/disk.ts';
import { Graph } from '../../src/core/graph.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { blkdebugOf } from '../../src/filters/blkdebug/control.ts';
import { SimHost } from '../../src/testing/index.ts';

const SIZE = 1 << 20;

export async function world(files: Record<string, string | Uint8Array> = {}) {
  const host = new SimHost();
  for (const [name, content] of Object.entries(files)) {
    host.put(name, typeof content === 'string' ? new TextEncoder().encode(content) : content);
  }
  const graph = new Graph({ host, drivers: DRIVERS });
  await createImage(graph, { filename: '/a.raw', format: 'raw', options: { size: SIZE } });
  return { host, graph };
}

export function filterOf(graph: Graph) {
  const node = graph.nodes().find(({ driver }) => driver.name === 'blkdebug');
  if (node === undefined) throw new Error('the filter is open');
  return node;
}

export async function opened(options: object = {}, image: object = { driver: 'file', filename: '/a.raw' }) {
  const { host, graph } = await world();
  const disk = await graph.open({ driver: 'raw', file: { driver: 'blkdebug', image, ...options } } as never, {
    writable: true,
  });
  const node = filterOf(graph);
  return { host, graph, disk, node, control: blkdebugOf(node) };
}

export const ones = new Uint8Array(4096).fill(1);
export const failure = async (work: Promise<unknown>) => work.then(() => 'done').catch(({ code }) => code);

export async function suspendedAt(disk: Disk, host: SimHost, tag = 'A') {
  while (!isSuspended(disk.node, tag)) await host.clock.sleep(1);
}
