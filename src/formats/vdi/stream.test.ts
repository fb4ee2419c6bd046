/** Images written front to back: sound, complete, and as long as was said. */
import { expect, test } from 'vitest';
import { graphOn } from '../../../tests/support/sim-disks.ts';
import { createImage } from '../../core/create.ts';
import type { OptionTree } from '../../core/options.ts';
import { checkDisk } from '../../jobs/check.ts';
import { type StreamOptions, streamImage } from '../../jobs/stream.ts';
import { differsAt } from '../../testing/compare-bytes.ts';
import { operationData } from '../../testing/disk-operations.ts';
import { SimHost } from '../../testing/index.ts';

const LENGTH = 30 * 8192 + 512;
const BLOCKS = { 'block-size': 8192, 'data-align': 512 };

async function streamed(host: SimHost, source: string, asked: Omit<StreamOptions, 'sources' | 'format'>) {
  const disk = await graphOn(host).open(source);
  const image = await streamImage(graphOn(host), { format: 'vdi', sources: [disk], ...asked });
  const pieces: Uint8Array[] = [];
  for await (const piece of image.pieces()) pieces.push(piece.slice());
  await disk.close();
  host.put('/made.vdi', new Uint8Array(Buffer.concat(pieces)));
  expect(host.contents('/made.vdi').length).toBe(image.length);
  const made = await graphOn(host).open('/made.vdi', { format: 'vdi', writable: true });
  const report = await checkDisk(made);
  const content = await made.read(0, LENGTH);
  await made.write(512, new Uint8Array(512).fill(3));
  await made.close();
  return { content, report, length: image.length };
}

const plans: readonly (readonly [OptionTree, number])[] = [
  [BLOCKS, 512 + 512 + 3 * 8192],
  [{ ...BLOCKS, static: true }, 512 + 512 + 31 * 8192],
];
test.each(plans)('V-40: %j', async (options, length) => {
  const host = new SimHost({ record: false });
  const content = new Uint8Array(LENGTH);
  host.put('/source.raw', LENGTH);
  const source = await graphOn(host).open('/source.raw', { format: 'raw', writable: true });
  for (const at of [8192 + 512, LENGTH - 512 - 4096]) {
    content.set(operationData(at, 4096 + 512), at);
    await source.write(at, content.subarray(at, at + 4096 + 512));
  }
  await source.close();
  const made = await streamed(host, '/source.raw', { options });
  expect(made.length).toBe(length);
  expect(made.report.report).toMatchObject({ corruptions: 0, leaks: 0 });
  expect(differsAt(made.content, content)).toBe(-1);
});

test('V-50: what lies over a parent, with blocks of zeroes, and blocks that are partly the parent’s', async () => {
  const host = new SimHost({ record: false });
  const graph = graphOn(host);
  await createImage(graph, { filename: '/parent.vdi', format: 'vdi', options: BLOCKS, size: LENGTH });
  const parent = await graph.open('/parent.vdi', { format: 'vdi', writable: true });
  await parent.write(0, operationData(1, LENGTH));
  await parent.close();
  await createImage(graph, {
    ...{ filename: '/top.qcow2', format: 'qcow2', options: { cluster_size: 4096 }, size: LENGTH },
    ...{ backingFile: '/parent.vdi', backingFormat: 'vdi' },
  });
  const top = await graph.open('/top.qcow2', { format: 'qcow2', writable: true });
  await top.write(5 * 8192, new Uint8Array(4096).fill(5));
  await top.writeZeroes(7 * 8192, 2 * 8192 + 4096);
  const content = await top.read(0, LENGTH);
  await top.close();
  const backing = { filename: '/parent.vdi', format: 'vdi' };
  const made = await streamed(host, '/top.qcow2', { options: BLOCKS, backing });
  expect(made.report.report).toMatchObject({ corruptions: 0, leaks: 0 });
  expect(made.length).toBe(512 + 512 + 2 * 8192);
  expect(differsAt(made.content, content)).toBe(-1);
});
