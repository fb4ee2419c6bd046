/** Images written in one pass: sound, complete, and as long as was said. */
import { describe, expect, test } from 'vitest';
import { readQcow2 } from '../../tests/support/qcow2-bytes.ts';
import { graphOn } from '../../tests/support/sim-disks.ts';
import type { OptionTree } from '../core/options.ts';
import { differsAt } from '../testing/compare-bytes.ts';
import { operationData } from '../testing/disk-operations.ts';
import { SeededRandom, SimHost } from '../testing/index.ts';
import { type StreamedImage, streamImage } from './stream.ts';

const SOURCE = '/source.raw';

/** A raw file with holes in random places. */
function sparseSource(seed: number, length: number): { host: SimHost; content: Uint8Array } {
  const host = new SimHost({ record: false, seed });
  host.put(SOURCE, length);
  const random = new SeededRandom(seed);
  const content = new Uint8Array(length);
  for (let i = 0; i < 12; i++) {
    const offset = random.below(length / 512) * 512;
    content.set(operationData(seed + i, Math.min(length - offset, random.between(1, 60) * 512)), offset);
  }
  return { host, content };
}

async function streamed(host: SimHost, content: Uint8Array, format: string, options: OptionTree = {}) {
  const graph = graphOn(host);
  const disk = await graph.open(SOURCE, { format: 'raw', writable: true });
  for (let at = 0; at < content.length; at += 512) {
    const sector = content.subarray(at, at + 512);
    if (sector.some((byte) => byte !== 0)) await disk.write(at, sector);
  }
  try {
    const image = await streamImage(graph, { format, options, sources: [disk] });
    const bytes = await gathered(image);
    expect(bytes.length).toBe(image.length);
    return bytes;
  } finally {
    await disk.close();
  }
}

async function gathered(image: StreamedImage): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const piece of image.pieces()) {
    expect(piece.length).toBeLessThanOrEqual(1 << 20);
    pieces.push(piece.slice());
  }
  const bytes = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

const PLANS: readonly OptionTree[] = [
  {},
  { cluster_size: 512 },
  { cluster_size: 512, refcount_bits: 64 },
  { cluster_size: 4096, refcount_bits: 1 },
  { cluster_size: 4096, compat: '0.10' },
  { cluster_size: 16384, extended_l2: true },
  { cluster_size: 65536, lazy_refcounts: true, compression_type: 'zstd' },
  { cluster_size: 2097152 },
];

describe('Q-BEY-2: qcow2 images written in one pass', () => {
  test.each(PLANS)('%j', async (options) => {
    for (const [seed, length] of [
      [1, 3 << 20],
      [2, (2 << 20) + 512],
      [3, 700 * 512],
    ] as const) {
      const { host, content } = sparseSource(seed, length);
      const bytes = await streamed(host, content, 'qcow2', options);
      const view = readQcow2(bytes);
      expect([view.problems, view.leaks, view.size]).toEqual([[], [], length]);
      expect(differsAt(view.content(), content)).toBe(-1);
      const made = new SimHost({ record: false });
      made.put('/made.qcow2', bytes);
      const disk = await graphOn(made).open('/made.qcow2', { format: 'qcow2', writable: true });
      await disk.write(512, new Uint8Array(1024).fill(9));
      content.fill(9, 512, 1536);
      expect(differsAt(await disk.read(0, length), content)).toBe(-1);
      await disk.close();
      expect(readQcow2(made.contents('/made.qcow2')).problems).toEqual([]);
    }
  });

  test('holes of the source take no clusters', async () => {
    const host = new SimHost({ record: false });
    host.put(SOURCE, 1 << 30);
    const bytes = await streamed(host, new Uint8Array(0), 'qcow2');
    // Header, refcount table, block, L1 table.
    expect(bytes.length).toBe(4 * 65536);
    expect(readQcow2(bytes)).toMatchObject({ size: 1 << 30, problems: [], leaks: [] });
  });

  test('preallocation stores everything', async () => {
    const { host, content } = sparseSource(1, (1 << 20) + 512);
    const bytes = await streamed(host, content, 'qcow2', { preallocation: 'metadata', cluster_size: 4096 });
    const view = readQcow2(bytes);
    expect([view.problems, view.leaks, view.entries.size]).toEqual([[], [], 257]);
    expect(differsAt(view.content(), content)).toBe(-1);
  });

  test('Q-DATA-1: a second file is refused', async () => {
    const { host, content } = sparseSource(1, 1 << 20);
    await expect(streamed(host, content, 'qcow2', { data_file: 'x' })).rejects.toMatchObject({
      code: 'ENOTSUP',
      message: "An image with 'data_file', which is a second file, cannot be written in one pass",
    });
  });

  test('options are checked as for creation', async () => {
    const { host, content } = sparseSource(1, 1 << 20);
    await expect(streamed(host, content, 'qcow2', { cluster_size: 100 })).rejects.toThrow('Cluster size must be');
    await expect(streamed(host, content, 'qcow2', { nothing: 1 })).rejects.toThrow("Invalid parameter 'nothing'");
    await expect(streamed(host, content, 'throttle')).rejects.toThrow(
      "Images of format 'throttle' cannot be written in one pass",
    );
  });

  test('raw is the disk itself', async () => {
    const { host, content } = sparseSource(4, (3 << 20) + 512);
    expect(differsAt(await streamed(host, content, 'raw'), content)).toBe(-1);
  });
});
