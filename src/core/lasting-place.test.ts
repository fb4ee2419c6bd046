/** Ranges of files that may be looked at later than now. */
import { expect, test } from 'vitest';
import { DRIVERS } from '../drivers.ts';
import { SimHost } from '../testing/index.ts';
import { lastingPlace } from './bulk.ts';
import { createImage } from './create.ts';
import { Graph } from './graph.ts';
import type { NestedOptions } from './options.ts';

const MIB = 1 << 20;

async function opened(format: string, options: NestedOptions) {
  const graph = new Graph({ host: new SimHost(), drivers: DRIVERS });
  await createImage(graph, { format, filename: '/image', size: MIB });
  return graph.open(options, { writable: true });
}

const FILE = { driver: 'file', filename: '/image' };

test('a raw image is where it is, from its offset on, and nowhere past its end', async () => {
  const disk = await opened('raw', { driver: 'raw', offset: 4096, file: FILE });
  expect(lastingPlace(disk.node, 512, 1000)).toMatchObject({ offset: 4608 });
  expect(lastingPlace(disk.node, 512, MIB - 4096 - 512)).toBeDefined();
  expect(lastingPlace(disk.node, 512, MIB - 4096 - 511)).toBeUndefined();
  await disk.close();
});

test.each(['vdi', 'qcow2'])('of %s no place lasts: it may be given to other data', async (format) => {
  const disk = await opened(format, { driver: format, file: FILE });
  await disk.write(0, new Uint8Array(65_536).fill(1));
  expect(lastingPlace(disk.node, 0, 4096)).toBeUndefined();
  await disk.close();
});

test('nor one below a filter, nor what is being changed', async () => {
  const filtered = await opened('raw', { driver: 'blkdebug', image: { driver: 'raw', file: FILE } });
  expect(lastingPlace(filtered.node, 0, 4096)).toBeUndefined();
  await filtered.close();
  const disk = await opened('raw', { driver: 'raw', file: FILE });
  const writing = disk.node.tracker.begin(8192, 4096, true);
  expect(lastingPlace(disk.node, 0, 8193)).toBeUndefined();
  expect(lastingPlace(disk.node, 0, 8192)).toBeDefined();
  disk.node.tracker.end(writing);
  expect(lastingPlace(disk.node, 0, 8193)).toBeDefined();
  await disk.close();
});
