import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { bytesWith, contentOf, randomBytes, same, type World, withDisk, world } from '../../tests/support/job-disks.ts';
import { createImage } from '../core/create.ts';
import type { OptionTree } from '../core/options.ts';
import { type ConvertOptions, convert } from './convert.ts';

const SOURCE = '/source';
const TARGET = '/target';

/** Converts `/source` (raw unless told otherwise). */
async function convertTo(
  { graph }: World,
  options: Omit<ConvertOptions, 'graph' | 'sources'>,
  format = 'raw',
): Promise<void> {
  await withDisk(graph, SOURCE, { format }, (disk) => convert({ graph, sources: [disk], ...options }));
}

describe('compressed (T-CONV-2, T-CONV-4)', () => {
  const CLUSTER = 4096;
  const qcow2 = (options: OptionTree = {}) => ({
    filename: TARGET,
    format: 'qcow2',
    createOptions: { cluster_size: CLUSTER, ...options },
  });

  /** Allocated and compressed clusters of the target, which must be sound. */
  async function clusters(made: World) {
    return withDisk(made.graph, TARGET, { format: 'qcow2' }, async (disk) => {
      const report = await disk.check({ repair: 'none', finding() {} });
      expect(report).toMatchObject({ corruptions: 0, leaks: 0 });
      return [report.allocatedClusters, report.compressedClusters];
    });
  }

  test('content arrives whole, with any settings, in whole clusters', async () => {
    const settings = fc.record({
      seed: fc.integer({ min: 0, max: 1_000_000 }),
      sectors: fc.integer({ min: 0, max: 700 }),
      sparseSize: fc.constantFrom(0, 512, 4096, 65536),
      parallel: fc.integer({ min: 1, max: 16 }),
      outOfOrder: fc.boolean(),
      zstd: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(settings, async ({ seed, sectors, zstd, ...options }) => {
        const bytes = randomBytes(sectors * 512, seed).map((byte, i) => (i % 3 === 0 || byte === 0 ? byte : 7));
        const made = world({ seed, latency: { min: 0, max: 5 }, refuseNow: 0.3, record: false });
        made.host.put(SOURCE, bytes);
        const target = qcow2(zstd ? { compression_type: 'zstd' } : {});
        await convertTo(made, { target, compress: true, ...options });
        expect(same(await contentOf(made.graph, TARGET, 'qcow2'), bytes)).toBe(true);
        const stored = Array.from({ length: Math.ceil(bytes.length / CLUSTER) }, (_, i) =>
          bytes.subarray(i * CLUSTER, (i + 1) * CLUSTER).some((byte) => byte !== 0),
        ).filter((any) => any || options.sparseSize === 0).length;
        expect(await clusters(made)).toEqual([stored, stored]);
        expect(made.host.openFiles).toEqual([]);
      }),
      { numRuns: 25 },
    );
  }, 60_000);

  test('several sources share clusters', async () => {
    const made = world();
    const [first, second] = [bytesWith(3 * CLUSTER + 512, [[0, 100]], 1), bytesWith(9000, [[8000, 1000]], 2)];
    made.host.put('/a', first);
    made.host.put('/b', second);
    const sources = [await made.graph.open('/a', { format: 'raw' }), await made.graph.open('/b', { format: 'raw' })];
    await convert({ graph: made.graph, sources, target: qcow2(), compress: true });
    for (const disk of sources) await disk.close();
    const whole = new Uint8Array(first.length + 9216);
    whole.set(first);
    whole.set(second, first.length);
    expect(same(await contentOf(made.graph, TARGET, 'qcow2'), whole)).toBe(true);
    expect(await clusters(made)).toEqual([2, 2]);
  });

  test('into an existing image, whose last cluster keeps what the source does not reach', async () => {
    const made = world();
    const before = bytesWith(8 * CLUSTER, [[0, 8 * CLUSTER]], 3);
    const bytes = bytesWith(5 * CLUSTER + 512, [[CLUSTER, 2 * CLUSTER]], 4);
    bytes.fill(5, 5 * CLUSTER);
    made.host.put(SOURCE, bytes);
    await createImage(made.graph, { ...qcow2(), options: { cluster_size: CLUSTER }, size: before.length });
    await withDisk(made.graph, TARGET, { format: 'qcow2', writable: true }, async (existing) => {
      await existing.write(0, before);
      await convertTo(made, { target: { existing }, compress: true });
    });
    before.set(bytes);
    expect(same(await contentOf(made.graph, TARGET, 'qcow2'), before)).toBe(true);
  });

  test('over an image below, clusters that are stored in part are copied whole', async () => {
    const made = world();
    const below = bytesWith(8 * CLUSTER, [[0, 8 * CLUSTER]], 5);
    made.host.put('/below', below);
    const options = { backing_file: '/below', backing_fmt: 'raw', cluster_size: 512 };
    await createImage(made.graph, { filename: SOURCE, format: 'qcow2', options });
    await withDisk(made.graph, SOURCE, { format: 'qcow2', writable: true }, (disk) =>
      disk.write(3 * CLUSTER + 700, new Uint8Array(10).fill(1)),
    );
    below.fill(1, 3 * CLUSTER + 700, 3 * CLUSTER + 710);
    const target = { ...qcow2(), backing: { filename: '/below', format: 'raw' } };
    await convertTo(made, { target, compress: true }, 'qcow2');
    expect(same(await contentOf(made.graph, TARGET, 'qcow2'), below)).toBe(true);
    expect((await clusters(made))[0]).toBe(1);
  });

  test.each<[string, OptionTree, string]>([
    ['raw', {}, 'Compression not supported for this file format'],
    ['vdi', {}, 'Compression not supported for this file format'],
    ['qcow2', { encryption: 'on' }, 'Compression and encryption not supported at the same time'],
    ['qcow2', { 'encrypt.format': 'luks' }, 'Compression and encryption not supported at the same time'],
    ['qcow2', { preallocation: 'full', encryption: true }, 'Compression and encryption not supported at the same time'],
    ['qcow2', { preallocation: 'metadata' }, 'Compression and preallocation not supported at the same time'],
  ])('refused for %s with %j, before anything is made', async (format, createOptions, message) => {
    const made = world();
    made.host.put(SOURCE, 4096);
    const target = { filename: TARGET, format, createOptions };
    await expect(convertTo(made, { target, compress: true })).rejects.toThrow(message);
    expect(await made.host.files.list('/')).toEqual(['source']);
  });

  test('refused for an open image that cannot, and where data are kept elsewhere', async () => {
    const made = world();
    made.host.put(SOURCE, bytesWith(4096, [[0, 4096]]));
    made.host.put(TARGET, 4096);
    await withDisk(made.graph, TARGET, { format: 'raw', writable: true }, async (existing) => {
      await expect(convertTo(made, { target: { existing }, compress: true })).rejects.toMatchObject({
        code: 'ENOTSUP',
        message: 'Compression not supported for this file format',
      });
    });
    const target = qcow2({ data_file: '/data' });
    await expect(convertTo(made, { target, compress: true })).rejects.toThrow(
      'error while writing at byte 0: Operation not supported',
    );
  });
});
