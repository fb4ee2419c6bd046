/** T-CONV-7: bitmaps are copied with their image. Q-ME-2: what they need is told beforehand. */
import { expect, test } from 'vitest';
import { KIB, keeping, onDisk, patched } from '../../tests/support/kept-bitmaps.ts';
import { graphOn, PATH } from '../../tests/support/sim-disks.ts';
import { bitmaps } from '../bitmaps/bitmaps.ts';
import { createImage } from '../core/create.ts';
import { BlockError } from '../core/errors.ts';
import type { SimHost } from '../testing/index.ts';
import { type ConvertOptions, convert } from './convert.ts';
import { measure } from './measure.ts';

const COPY = '/copy.img';

type Asked = Partial<ConvertOptions> & { readonly format?: string };

async function copied(host: SimHost, { format = 'qcow2', ...options }: Asked = {}): Promise<string> {
  const graph = graphOn(host);
  await using source = await graph.open(PATH, { format: 'qcow2' });
  const target = { filename: COPY, format };
  try {
    await convert({ graph, sources: [source], target, bitmaps: 'all', ...options });
    return '';
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return error.message;
  }
}

async function bitmapsIn(host: SimHost) {
  await using disk = await graphOn(host).open(COPY, { format: 'qcow2' });
  return bitmaps(disk)
    .list()
    .map(({ name = '', granularity, recording }) => ({
      name,
      granularity,
      recording,
      areas: [...bitmaps(disk).dirtyAreas(name)].map(({ offset, length }) => [offset, length]),
    }));
}

test('names, granularity, content, and whether they record', async () => {
  const host = await keeping(['b0', 'b1']);
  {
    await using disk = await graphOn(host).open(PATH, { format: 'qcow2', writable: true });
    bitmaps(disk).disable('b0');
    await disk.write(8192, new Uint8Array(512));
  }
  expect(await copied(host)).toBe('');
  expect(await bitmapsIn(host)).toEqual([
    { name: 'b0', granularity: 512, recording: false, areas: [[0, KIB]] },
    {
      name: 'b1',
      granularity: 512,
      recording: true,
      areas: [
        [0, KIB],
        [8192, 512],
      ],
    },
  ]);
  expect(await copied(host, { bitmaps: undefined })).toBe('');
  expect(await bitmapsIn(host)).toEqual([]);
});

test('one that is inconsistent: an error, or left out', async () => {
  const host = await keeping(['b0', 'b1']);
  const broken = patched(host, (onDisk(host).bitmaps[0]?.recordAt ?? 0) + 15, [3]);
  expect(await copied(broken)).toBe("Cannot copy inconsistent bitmap 'b1'");
  expect(broken.exists(COPY)).toBe(false);
  const skipped: string[] = [];
  expect(await copied(broken, { bitmaps: 'consistent', skippedBitmap: (name) => skipped.push(name) })).toBe('');
  expect(skipped).toEqual(['b1']);
  expect((await bitmapsIn(broken)).map(({ name }) => name)).toEqual(['b0']);
});

test('where there can be none', async () => {
  const host = await keeping(['b0']);
  expect(await copied(host, { format: 'raw' })).toBe("Format driver 'raw' does not support bitmaps");
  expect(host.exists(COPY)).toBe(false);
  host.put('/r.raw', 65536);
  const graph = graphOn(host);
  await using raw = await graph.open('/r.raw', { format: 'raw' });
  expect(await copied(host, { sources: [raw] })).toBe('Source lacks bitmap support');
  await using source = await graph.open(PATH, { format: 'qcow2' });
  expect(await copied(host, { sources: [source, source] })).toBe('Copying bitmaps only possible with single source');
});

test('into an image that is there: what it has already, and another size', async () => {
  const host = await keeping(['b0']);
  const graph = graphOn(host);
  await using source = await graph.open(PATH, { format: 'qcow2' });
  await createImage(graph, { filename: COPY, format: 'qcow2', size: source.length * 2 });
  await using existing = await graph.open(COPY, { format: 'qcow2', writable: true });
  expect(await copied(host, { target: { existing } })).toBe(
    `Failed to populate bitmap b0: Bitmaps are of different sizes (destination size is ${source.length * 2}, ` +
      `source size is ${source.length}) and can't be merged`,
  );
  expect(bitmaps(existing).list()).toEqual([]);
  await existing.resize(source.length, { shrink: true });
  expect(await copied(host, { target: { existing } })).toBe('');
  expect(await copied(host, { target: { existing } })).toBe('Failed to create bitmap b0: Bitmap already exists: b0');
});

test('Q-ME-2: data and table of each in whole clusters, and the directory', async () => {
  const host = await keeping(['b0', 'b1']);
  const graph = graphOn(host);
  await using content = await graph.open(PATH, { format: 'qcow2' });
  const needed = async (options: Record<string, string>) =>
    (await measure(graph, { format: 'qcow2', content, options })).bitmaps;
  expect(await needed({})).toBe(5 * 65536);
  // Of 512 bits: a cluster each, and one for each table.
  expect(await needed({ cluster_size: '512' })).toBe(5 * 512);
  expect(await needed({ compat: '0.10' })).toBeUndefined();
  expect((await measure(graph, { format: 'raw', content })).bitmaps).toBeUndefined();
  expect((await measure(graph, { format: 'qcow2', content: 1 << 20 })).bitmaps).toBeUndefined();
  host.put('/r.raw', 65536);
  await using raw = await graph.open('/r.raw', { format: 'raw' });
  expect((await measure(graph, { format: 'qcow2', content: raw })).bitmaps).toBeUndefined();
  await createImage(graph, { filename: COPY, format: 'qcow2', size: 65536 });
  await using none = await graph.open(COPY, { format: 'qcow2' });
  expect((await measure(graph, { format: 'qcow2', content: none })).bitmaps).toBe(0);
});
