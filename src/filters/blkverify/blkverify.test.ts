import { expect, test } from 'vitest';
import { createImage } from '../../core/create.ts';
import { Graph } from '../../core/graph.ts';
import { DRIVERS } from '../../drivers.ts';
import { SimHost } from '../../testing/index.ts';
import { blkdebugOf } from '../blkdebug/control.ts';
import { blkverifyOf } from './blkverify.ts';

const SIZE = 4 << 20;

async function opened(options = {}) {
  const host = new SimHost();
  const graph = new Graph({ host, drivers: DRIVERS });
  await createImage(graph, { filename: '/raw', format: 'raw', options: { size: SIZE } });
  await createImage(graph, { filename: '/test.vdi', format: 'vdi', options: { size: SIZE } });
  const disk = await graph.open(
    {
      driver: 'blkverify',
      raw: { driver: 'file', filename: '/raw' },
      test: { driver: 'blkdebug', image: { driver: 'vdi', file: { driver: 'file', filename: '/test.vdi' } } },
      ...options,
    },
    { writable: true },
  );
  const node = graph.nodes().find(({ driver }) => driver.name === 'blkdebug');
  if (node === undefined) throw new Error('the filter is open');
  return { host, graph, disk, faults: blkdebugOf(node), verify: blkverifyOf(disk) };
}

const data = (value: number) => new Uint8Array(8192).fill(value);

test('equal sides are equal, and counted (BV-5, BV-16)', async () => {
  const { disk, verify } = await opened();
  await disk.write(4096, data(3));
  expect(await disk.read(4096, 8192)).toEqual(data(3));
  await verify.verify();
  expect(verify.counts()).toMatchObject({ mismatches: 0 });
  await disk.close();
});

test.each([
  ['a flipped byte', { action: 'corrupt', bits: [8 * 100] }, 4096 + 100],
  ['a dropped write', { action: 'drop' }, 4096],
  ['a misdirected write', { action: 'misdirect', target: 1 << 20 }, 4096],
  ['a torn write', { action: 'torn', bytes: 512, errno: undefined }, 4096 + 512],
] as const)('%s is found, where it is (BV-7)', async (_name, fault, at) => {
  const { disk, faults } = await opened();
  faults.add({ event: 'pwritev', ioTypes: ['write'], once: true, ...fault });
  await disk.write(4096, data(7));
  await expect(disk.read(0, 16384)).rejects.toMatchObject({
    code: 'EIO',
    message: `blkverify: read offset=0 bytes=16384 contents mismatch at offset ${at}`,
    details: { firstDifference: at, test: 'done', raw: 'done' },
  });
  await disk.close();
});

test('different results are a mismatch, equal failures are none (BV-6, BV-9)', async () => {
  const { disk, faults } = await opened();
  faults.add({ event: 'none', ioTypes: ['read'], once: true });
  await expect(disk.read(0, 512)).rejects.toThrow('blkverify: read offset=0 bytes=512 return value mismatch -5 != 0');
  await disk.close();
});

test('discarded ranges are not compared until they are written (BV-13)', async () => {
  const { disk } = await opened();
  await disk.write(0, data(1));
  await disk.write(1 << 20, new Uint8Array(1 << 20).fill(2));
  await disk.discard(1 << 20, 1 << 20);
  expect((await disk.read(1 << 20, 512))[0]).toBe(0);
  await disk.write(1 << 20, data(5));
  expect((await disk.read(1 << 20, 512))[0]).toBe(5);
  await disk.close();
});

test('names and options (BV-1, BV-2, BV-4, BV-15)', async () => {
  const { graph, disk } = await opened();
  await disk.close();
  await using named = await graph.open('blkverify:/raw:/test.vdi', { format: 'blkverify' });
  expect(named.filename).toBe('blkverify:/raw:/test.vdi');
  expect(graph.nodes().map(({ driver }) => driver.name)).toEqual(expect.arrayContaining(['blkverify', 'vdi']));
  await expect(graph.open('blkverify:x', { format: 'blkverify' })).rejects.toThrow(
    'blkverify requires raw copy and original image path',
  );
});
