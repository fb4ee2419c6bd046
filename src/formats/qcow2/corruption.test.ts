/** Damage found in use (Q-CORR-1, Q-CORR-2, Q-MAP-8), on images broken by hand. */
import { describe, expect, test } from 'vitest';
import { graphOn, PATH } from '../../../tests/support/sim-disks.ts';
import { createImage } from '../../core/create.ts';
import type { NestedOptions, OptionTree } from '../../core/options.ts';
import { SimHost } from '../../testing/index.ts';

/** An image with data in its first clusters; entries patched by their L2 index. */
async function broken(
  entries: Readonly<Record<number, bigint>>,
  l1?: bigint,
  options: OptionTree = {},
): Promise<SimHost> {
  const made = new SimHost({ record: false });
  await createImage(graphOn(made), { filename: PATH, format: 'qcow2', size: 1 << 20, options });
  const disk = await graphOn(made).open(PATH, { format: 'qcow2', writable: true });
  await disk.write(0, new Uint8Array(4 * 65536).fill(1));
  await disk.close();
  const bytes = made.contents(PATH);
  const view = new DataView(bytes.buffer);
  const l2 = Number(view.getBigUint64(0x30000) & 0x00fffffffffffe00n);
  for (const [index, entry] of Object.entries(entries)) view.setBigUint64(l2 + Number(index) * 8, entry);
  if (l1 !== undefined) view.setBigUint64(0x30000, l1);
  const host = new SimHost({ record: false });
  host.put(PATH, bytes);
  return host;
}

function open(host: SimHost, writable: boolean, options: NestedOptions = {}) {
  return graphOn(host).open({ driver: 'qcow2', file: { driver: 'file', filename: PATH }, ...options }, { writable });
}

function corruptBit(host: SimHost): bigint {
  return new DataView(host.contents(PATH).buffer).getBigUint64(72) & 2n;
}

const MARKING = (text: string) =>
  `qcow2: Marking image as corrupt: ${text}; further corruption events will be suppressed`;

describe('fatal damage', () => {
  test('an L2 table between clusters (Q-MAP-8), on reading', async () => {
    const host = await broken({}, 0x8000000000040200n);
    const disk = await open(host, true);
    await expect(disk.read(0, 512)).rejects.toMatchObject({ code: 'EIO' });
    expect(host.warnings).toEqual([MARKING('L2 table offset 0x40200 unaligned (L1 index: 0)')]);
    expect(corruptBit(host)).toBe(2n);
    // The node is unusable from here on, with the code that qemu-io's later requests get (Q-CORR-1).
    await expect(disk.read(900_000, 512)).rejects.toMatchObject({ code: 'ENOMEDIUM' });
    expect(host.warnings).toHaveLength(1);
    await disk.close();
  });

  test('a cluster between clusters, on reading and on writing', async () => {
    const read = await open(await broken({ 1: 0x8000000000050200n }), true);
    await expect(read.read(65536, 512)).rejects.toThrow(
      'Cluster allocation offset 0x50200 unaligned (L2 offset: 0x40000, L2 index: 0x1)',
    );
    await read.close();
    const write = await open(await broken({ 1: 0x8000000000050200n }), true);
    await expect(write.write(65536, new Uint8Array(512))).rejects.toThrow(
      'Data cluster offset 0x50200 unaligned (guest offset: 0x10000)',
    );
    await write.close();
  });

  test('a reader tells of it as not fatal, and writes nothing', async () => {
    const host = await broken({}, 0x8000000000040200n);
    const disk = await open(host, false);
    await expect(disk.read(0, 512)).rejects.toMatchObject({ code: 'EIO' });
    expect(host.warnings).toEqual([
      'qcow2: Image is corrupt: L2 table offset 0x40200 unaligned (L1 index: 0); further non-fatal corruption events will be suppressed',
    ]);
    expect(corruptBit(host)).toBe(0n);
    await disk.close();
  });

  test('zero clusters in version 2', async () => {
    const disk = await open(await broken({ 2: 1n }, undefined, { compat: '0.10' }), false);
    await expect(disk.read(2 * 65536, 512)).rejects.toThrow(
      'Zero cluster entry found in pre-v3 image (L2 offset: 0x40000, L2 index: 0x2)',
    );
    await disk.close();
  });

  test('Q-HDR-1: guest data past the end of the file are no zeroes', async () => {
    const disk = await open(await broken({ 1: 0x8000000010000000n }), true);
    await expect(disk.read(65536, 512)).rejects.toMatchObject({ code: 'EIO' });
    expect((await disk.read(0, 1))[0]).toBe(1);
    await disk.close();
  });
});

describe('writes that would hit metadata (Q-CORR-2, Q-CORR-3)', () => {
  const places: readonly (readonly [bigint, string])[] = [
    [0x8000000000010000n, 'refcount table'],
    [0x8000000000020000n, 'refcount block'],
    [0x8000000000030000n, 'active L1 table'],
    [0x8000000000040000n, 'active L2 table'],
  ];
  test.each(places)('%s: the %s', async (entry, what) => {
    const host = await broken({ 1: entry });
    const disk = await open(host, true);
    const text = `Preventing invalid write on metadata (overlaps with ${what})`;
    await expect(disk.write(65536, new Uint8Array(512))).rejects.toThrow(text);
    expect(host.warnings).toEqual([MARKING(text)]);
    expect(host.events.filter(({ channel }) => channel === 'diskwright:image-corrupted')).toMatchObject([
      { message: { device: '', msg: text, fatal: true, size: 512 } },
    ]);
    await disk.close();
  });

  test('Q-OPT-4: not where the class is not checked', async () => {
    for (const options of [{ 'overlap-check': 'none' }, { 'overlap-check': { template: 'all', 'active-l2': false } }]) {
      const disk = await open(await broken({ 1: 0x8000000000040000n }), true, options);
      await disk.write(65536 + 32768, new Uint8Array(512));
      await disk.close();
    }
  });
});
