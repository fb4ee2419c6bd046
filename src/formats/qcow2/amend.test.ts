/** Changing options of existing images (Q-AM): what is refused, to the letter and before anything is done, and what is done. */
import { describe, expect, test } from 'vitest';
import { readQcow2 } from '../../../tests/support/qcow2-bytes.ts';
import { graphOn, PATH } from '../../../tests/support/sim-disks.ts';
import { bitmaps } from '../../bitmaps/bitmaps.ts';
import { createImage } from '../../core/create.ts';
import type { Disk } from '../../core/disk.ts';
import type { AmendOptions } from '../../core/driver.ts';
import type { OptionTree } from '../../core/options.ts';
import { differsAt } from '../../testing/compare-bytes.ts';
import { operationData } from '../../testing/disk-operations.ts';
import { SimHost } from '../../testing/index.ts';

const DATA = '/data';
const BASE = '/base';

async function make(options: OptionTree, size = 1 << 20): Promise<SimHost> {
  const host = new SimHost({ record: false });
  if (options.backing_file !== undefined) host.put(BASE, operationData(3, 1 << 20));
  await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size, options });
  return host;
}

function open(host: SimHost, writable = true): Promise<Disk> {
  return graphOn(host).open(PATH, { format: 'qcow2', writable });
}

async function use<T>(host: SimHost, work: (disk: Disk) => Promise<T>): Promise<T> {
  const disk = await open(host);
  try {
    return await work(disk);
  } finally {
    await disk.close();
  }
}

async function amend(host: SimHost, options: OptionTree, how: AmendOptions = {}): Promise<void> {
  await use(host, (disk) => disk.amend(options, how));
}

function view(host: SimHost) {
  return readQcow2(host.contents(PATH), host.exists(DATA) ? host.contents(DATA) : undefined);
}

const u32 = (host: SimHost, at: number) => new DataView(host.contents(PATH).buffer).getUint32(at);
const u64 = (host: SimHost, at: number) => new DataView(host.contents(PATH).buffer).getBigUint64(at);

const based = { backing_file: BASE, backing_fmt: 'raw' };
const v2 = { compat: '0.10' };
const USE = '(use compat=1.1 or greater)';

describe('refusals, of which the first in order counts (Q-AM-1, Q-AM-2, Q-AM-3)', () => {
  const cases: readonly (readonly [make: OptionTree, amend: OptionTree, message: string, code?: string])[] = [
    [{}, { 'encrypt.state': 'active', compat: '2' }, "Can't amend encryption options - encryption not present"],
    [{}, { compat: '2', data_file: 'x', refcount_bits: 3 }, 'Unknown compatibility level 2'],
    [
      {},
      { data_file: 'x', data_file_raw: true, refcount_bits: 3 },
      'data-file can only be set for images that use an external data file',
    ],
    [{}, { data_file_raw: true, refcount_bits: 3 }, 'data-file-raw cannot be set on existing images'],
    [{ data_file: DATA }, { data_file_raw: 'on' }, 'data-file-raw cannot be set on existing images'],
    [
      {},
      { refcount_bits: 3, size: 1000, backing_file: 'x' },
      'Refcount width must be a power of two and may not exceed 64 bits',
    ],
    [{}, { refcount_bits: 128 }, 'Refcount width must be a power of two and may not exceed 64 bits'],
    [
      {},
      { compat: '0.10', refcount_bits: 8, lazy_refcounts: true },
      `Refcount widths other than 16 bits require compatibility level 1.1 or above ${USE}`,
    ],
    [v2, { refcount_bits: 1 }, `Refcount widths other than 16 bits require compatibility level 1.1 or above ${USE}`],
    [{}, { backing_file: 'x', lazy_refcounts: true, size: 1000 }, 'Cannot amend the backing file'],
    [based, { backing_file: BASE }, 'Cannot amend the backing file'],
    [based, { backing_fmt: 'raw' }, 'Cannot amend the backing file'],
    [
      {},
      { compat: 'v2', lazy_refcounts: true, size: 1000 },
      `Lazy refcounts only supported with compatibility level 1.1 and above ${USE}`,
    ],
    [v2, { lazy_refcounts: true }, `Lazy refcounts only supported with compatibility level 1.1 and above ${USE}`],
    [{}, { size: 1000 }, 'The new size must be a multiple of 512'],
    [{}, { size: '9E' }, 'Image size cannot be negative'],
    [{}, { size: '20P' }, 'Could not resize the image: File too large', 'EFBIG'],
    [{ cluster_size: 512 }, { size: '1T' }, 'Failed to grow the L1 table: File too large', 'EFBIG'],
    [{ refcount_bits: 8 }, { compat: '0.10' }, 'compat=0.10 requires refcount_bits=16', 'ENOTSUP'],
    [{ data_file: DATA }, { compat: '0.10' }, 'Cannot downgrade an image with a data file', 'ENOTSUP'],
    [
      { extended_l2: true, compression_type: 'zstd' },
      { compat: '0.10' },
      'Cannot downgrade an image with incompatible features 0x10 set',
      'ENOTSUP',
    ],
  ];
  test.each(cases.map(([options, changes, message, code = 'EINVAL']) => [options, changes, message, code] as const))(
    '%j, then %j',
    async (options, changes, message, code) => {
      const host = await make(options);
      const before = host.contents(PATH);
      // What would be done before the step that is refused is not (Q-AM-1).
      const isFixed = 'refcount_bits' in changes || 'compat' in changes || 'compat' in options;
      const more = isFixed ? {} : { refcount_bits: '64', compat: '1.1' };
      await expect(amend(host, { ...more, ...changes })).rejects.toMatchObject({ code, message });
      expect(differsAt(host.contents(PATH), before)).toBe(-1);
    },
  );

  test('Q-AM-1: a size of 0 is none, and cuts nothing off', async () => {
    const host = await make({});
    await use(host, (disk) => disk.write(0, new Uint8Array(65536).fill(7)));
    await amend(host, { size: 0, lazy_refcounts: true });
    const [length, bytes] = await use(host, async (disk) => [disk.length, await disk.read(0, 65536)]);
    expect([length, bytes]).toEqual([1 << 20, new Uint8Array(65536).fill(7)]);
  });

  test('the way to another backing file is told', async () => {
    const hint = "You can use 'qemu-img rebase' instead.";
    await expect(amend(await make({}), { backing_file: 'x' })).rejects.toMatchObject({ hint });
  });

  test('options that only a new image has, and values that cannot be', async () => {
    const host = await make({});
    const hint = 'This option is only supported for image creation';
    for (const name of ['cluster_size', 'encrypt.format', 'preallocation', 'compression_type', 'extended_l2']) {
      await expect(amend(host, { [name]: '1' })).rejects.toMatchObject({
        message: `Invalid parameter '${name}'`,
        hint,
      });
    }
    await expect(amend(host, { lazy_refcounts: 'x' })).rejects.toThrow(
      "Parameter 'lazy_refcounts' expects 'on' or 'off'",
    );
  });
});

describe('what is left as it is', () => {
  test.each([
    [{}, { compat: '1.1', refcount_bits: 16, lazy_refcounts: false, data_file_raw: false }],
    [based, based],
    [v2, { compat: 'v2', refcount_bits: 16 }],
    [{ data_file: DATA, data_file_raw: true }, { data_file_raw: true }],
  ])('%j, then %j', async (options, changes) => {
    const host = await make(options);
    const before = host.contents(PATH);
    await amend(host, changes);
    expect(differsAt(host.contents(PATH), before)).toBe(-1);
  });
});

describe('versions (Q-AM-3)', () => {
  test('up: the header of version 3, with all that goes with it', async () => {
    const host = await make({ ...v2, ...based });
    const content = await use(host, async (disk) => {
      await disk.write(100_000, operationData(9, 70_000));
      await disk.amend({ compat: 'v3', lazy_refcounts: true, refcount_bits: 32 });
      // The same session goes on.
      await disk.write(0, operationData(8, 1000));
      await disk.writeZeroes(300_000, 200_000, { unmap: true });
      return disk.read(0, disk.length);
    });
    const { version, problems, leaks, content: stored } = view(host);
    expect([version, problems, leaks]).toEqual([3, [], []]);
    expect([u32(host, 96), u32(host, 100), u64(host, 80), u32(host, 112)]).toEqual([5, 112, 1n, 0xe2792aca]);
    expect(differsAt(stored(host.contents(BASE)), content)).toBe(-1);
    expect(await use(host, async (disk) => disk.info().specific)).toMatchObject({
      data: { compat: '1.1', 'refcount-bits': 32, 'lazy-refcounts': true },
    });
  });

  test.each([true, false])('down: zero clusters become ordinary ones; with a backing file: %s', async (backed) => {
    const host = await make({ ...(backed ? based : {}), lazy_refcounts: true }, 3 << 20);
    const seen: number[] = [];
    const content = await use(host, async (disk) => {
      await disk.write(0, operationData(1, 5 * 65536));
      await disk.writeZeroes(65536, 65536);
      await disk.writeZeroes(2 * 65536, 65536, { unmap: true });
      await disk.writeZeroes(6 * 65536, 3 * 65536, { unmap: true });
      await disk.amend({ compat: '0.10' }, { progress: (done, total) => void seen.push(done / total) });
      await disk.write(7 * 65536 + 5, operationData(2, 100));
      return disk.read(0, disk.length);
    });
    const { version, problems, leaks, entries, content: stored } = view(host);
    expect([version, problems, leaks]).toEqual([2, [], []]);
    expect([...entries.values()].filter(({ entry }) => (entry & 1n) !== 0n)).toEqual([]);
    // Storage that was there stays, and no more is taken than must be.
    expect(entries.has(1)).toBe(true);
    expect(entries.has(2)).toBe(backed);
    expect(differsAt(stored(backed ? host.contents(BASE) : undefined), content)).toBe(-1);
    expect(seen.at(-1)).toBe(1);
    expect(await use(host, async (disk) => disk.info().specific)).toMatchObject({ data: { compat: '0.10' } });
  });

  test('down with zstd, as long as nothing is compressed', async () => {
    const host = await make({ compression_type: 'zstd' });
    await amend(host, v2);
    expect([u32(host, 4), host.contents(PATH)[104]]).toEqual([2, 0]);
    await amend(host, { compat: 'v3' });
    expect([u32(host, 4), host.contents(PATH)[104], u64(host, 72)]).toEqual([3, 0, 0n]);
  });

  test('a header without room for version 3 stays as it is', async () => {
    const host = await make({ ...v2, cluster_size: 512 });
    await use(host, (disk) => {
      const long = `/${'x'.repeat(400)}`;
      return disk.node.impl.changeBacking?.({ filename: long, format: '' }) ?? Promise.resolve();
    });
    const before = host.contents(PATH);
    const disk = await graphOn(host).open(PATH, { format: 'qcow2', writable: true, noBacking: true });
    await expect(disk.amend({ compat: '1.1' })).rejects.toMatchObject({
      code: 'ENOSPC',
      message: 'No space left in the file header',
    });
    await disk.close();
    expect(differsAt(host.contents(PATH), before)).toBe(-1);
  });
});

describe('the width of refcounts (Q-AM-4)', () => {
  test.each([
    [512, 16, 64],
    [512, 64, 1],
    [512, 1, 16],
    [4096, 8, 2],
    [65536, 16, 32],
  ])('clusters of %i bytes, from %i to %i bits', async (clusterSize, from, to) => {
    const host = await make({ cluster_size: clusterSize, refcount_bits: from });
    const content = await use(host, async (disk) => {
      await disk.write(1000, operationData(1, 600_000));
      await disk.discard(4 * 65536, 65536);
      await disk.amend({ refcount_bits: to });
      await disk.write(700_000, operationData(2, 200_000));
      return disk.read(0, disk.length);
    });
    const { problems, leaks, content: stored } = view(host);
    expect([problems, leaks, 2 ** u32(host, 96)]).toEqual([[], [], to]);
    expect(differsAt(stored(), content)).toBe(-1);
    const report = await use(host, (disk) => disk.check({ repair: 'none', finding: () => {} }));
    expect([report.corruptions, report.leaks, report.checkErrors]).toEqual([0, 0, 0]);
  });

  test('a count that would not fit is told, and nothing is changed', async () => {
    const host = await make({});
    await use(host, (disk) => disk.write(0, operationData(1, 65536)));
    const block = Number(u64(host, Number(u64(host, 48))));
    const file = await host.files.open(PATH, { write: true });
    await file.write(block + 2 * 5, Uint8Array.of(0, 2));
    await file.close();
    const before = host.contents(PATH);
    await expect(amend(host, { refcount_bits: 1, size: '2M' })).rejects.toMatchObject({
      code: 'EINVAL',
      message: 'Cannot decrease refcount entry width to 1 bits: Cluster at offset 0x50000 has a refcount of 2',
    });
    expect(differsAt(host.contents(PATH), before)).toBe(-1);
  });
});

describe('other options (Q-AM-1)', () => {
  test('the size grows and shrinks; what the backing file has behind the old end stays hidden (BL-SIZE-4)', async () => {
    const host = await make(based, 512 * 1024);
    await amend(host, { size: '2M' });
    const read = (offset: number) => use(host, async (disk) => (await disk.read(offset, 4096)).every((b) => b === 0));
    expect([view(host).size, await read(400_000), await read(600_000), await read(1_500_000)]).toEqual([
      2 << 20,
      false,
      true,
      true,
    ]);
    await use(host, async (disk) => {
      await disk.amend({ size: '256k' });
      expect(disk.length).toBe(256 << 10);
    });
    expect([view(host).size, view(host).problems]).toEqual([256 << 10, []]);
  });

  test('lazy refcounts begin and end with the session that is open', async () => {
    const host = await make({});
    const dirty = () => u64(host, 72) & 1n;
    await use(host, async (disk) => {
      await disk.amend({ lazy_refcounts: true });
      await disk.write(0, operationData(1, 100));
      await disk.flush();
      expect([u64(host, 80), dirty()]).toEqual([1n, 1n]);
      await disk.amend({ lazy_refcounts: false });
      expect([u64(host, 80), dirty(), view(host).problems]).toEqual([0n, 0n, []]);
      await disk.write(500_000, operationData(1, 100));
      await disk.flush();
      expect(dirty()).toBe(0n);
    });
  });

  test('the name of a data file, and that it is raw', async () => {
    const host = await make({ data_file: DATA, data_file_raw: true });
    const specific = () => use(host, async (disk) => disk.info().specific?.data);
    await amend(host, { data_file_raw: false });
    expect(await specific()).toMatchObject({ 'data-file': DATA, 'data-file-raw': false });
    await amend(host, { data_file: '/elsewhere' });
    expect(host.contents(PATH).includes(0x65)).toBe(true);
    host.put('/elsewhere', new Uint8Array(1 << 20));
    expect(await specific()).toMatchObject({ 'data-file': '/elsewhere', 'data-file-raw': false });
  });

  test('Q-AM-3: persistent bitmaps do not outlast a downgrade, which is warned of by the name of the image', async () => {
    const host = await make({});
    await use(host, async (disk) => {
      await bitmaps(disk).add('b0', { persistent: true });
    });
    await amend(host, { compat: '0.10' });
    expect(host.warnings).toEqual([`warning: Version 2 has no persistent bitmaps: 1 of '${PATH}' are dropped`]);
    const left = await use(host, async (disk) => bitmaps(disk).list().length);
    expect([left, view(host).problems, view(host).leaks]).toEqual([0, [], []]);
  });

  test('a reader may not', async () => {
    const disk = await open(await make({}), false);
    await expect(disk.amend({ size: '2M' })).rejects.toMatchObject({ code: 'EPERM' });
    await disk.close();
  });
});
