/** Making images: refusals to the letter, the layout, sizes (Q-CR, Q-ME, Q-SIZE). */
import { describe, expect, test, vi } from 'vitest';
import { readQcow2 } from '../../../tests/support/qcow2-bytes.ts';
import { graphOn, PATH } from '../../../tests/support/sim-disks.ts';
import { createImage } from '../../core/create.ts';
import { type OptionTree, parseOptions } from '../../core/options.ts';
import { SimHost } from '../../testing/index.ts';
import { createOptions } from './create-options.ts';
import { measure } from './measure.ts';
import { refcountWidth } from './refcount-width.ts';

async function make(options: OptionTree, size = 1 << 20, host = new SimHost({ record: false })): Promise<SimHost> {
  await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size, options, unchecked: true });
  return host;
}

const ONLY_V3 = 'with compatibility level 1.1 and above (use version=v3 or greater)';
const based = { backing_file: '/base', backing_fmt: 'raw' };

describe('a data file (Q-CR-4, Q-DATA-2)', () => {
  test('that another user has open is not emptied', async () => {
    const host = new SimHost({ record: false });
    host.put('/d', new Uint8Array(1024).fill(5));
    const user = await graphOn(host).open('/d', { format: 'raw', writable: true });
    await expect(make({ data_file: '/d' }, 1 << 20, host)).rejects.toThrow('lock');
    await user.close();
    expect(host.contents('/d')).toEqual(new Uint8Array(1024).fill(5));
    expect(host.exists(PATH)).toBe(false);
  });

  test('that is there is emptied, and one whose name looks like a protocol is a file', async () => {
    const host = new SimHost({ record: false });
    host.put('./nbd:d', new Uint8Array(4 << 20).fill(5));
    await make({ data_file: 'nbd:d' }, 1 << 20, host);
    expect(host.contents('./nbd:d')).toEqual(new Uint8Array(1 << 20));
  });
});

describe('refusals (Q-CR-2)', () => {
  const cases: readonly (readonly [OptionTree, string])[] = [
    [{ compat: '2' }, "Parameter 'version' does not accept value '2'"],
    [{ preallocation: 'foo' }, "Parameter 'preallocation' does not accept value 'foo'"],
    [{ compression_type: 'lzma' }, "Parameter 'compression-type' does not accept value 'lzma'"],
    [{ 'encrypt.format': 'foo' }, "Parameter 'format' does not accept value 'foo'"],
    [{ 'encrypt.format': 'luks' }, "Parameter 'encrypt.key-secret' is required for cipher"],
    [{ compat: '0.10', extended_l2: true }, `Extended L2 entries are only supported ${ONLY_V3}`],
    [{ cluster_size: 300 }, 'Cluster size must be a power of two between 512 and 2048k'],
    [{ cluster_size: '4M' }, 'Cluster size must be a power of two between 512 and 2048k'],
    [
      { cluster_size: '8k', extended_l2: true },
      'Extended L2 entries are only supported with cluster sizes of at least 16384 bytes',
    ],
    [
      { ...based, preallocation: 'metadata' },
      'Backing file and preallocation can only be used at the same time if extended_l2 is on',
    ],
    [{ backing_fmt: 'raw' }, 'Backing format cannot be used without backing file'],
    [{ compat: '0.10', lazy_refcounts: true }, `Lazy refcounts only supported ${ONLY_V3}`],
    [{ refcount_bits: 7 }, 'Refcount width must be a power of two and may not exceed 64 bits'],
    [{ refcount_bits: 128 }, 'Refcount width must be a power of two and may not exceed 64 bits'],
    [
      { compat: '0.10', refcount_bits: 8 },
      'Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)',
    ],
    [{ data_file_raw: true }, 'data-file-raw requires data-file'],
    [
      { ...based, data_file: '/d', data_file_raw: true },
      'Backing file and data-file-raw cannot be used at the same time',
    ],
    [{ compat: '0.10', data_file: '/d' }, `External data files are only supported ${ONLY_V3}`],
    [{ compat: '0.10', compression_type: 'zstd' }, `Non-zlib compression type is only supported ${ONLY_V3}`],
  ];
  test.each(cases)('%j', async (options, message) => {
    const host = new SimHost({ record: false });
    await expect(make(options, 1 << 20, host)).rejects.toMatchObject({ code: 'EINVAL', message });
    // Q-CR-4: nothing is left of it, and no data file is made.
    expect([host.exists(PATH), host.exists('/d')]).toEqual([false, false]);
  });

  test.each<[OptionTree, number]>([
    ...cases.map(([options]): [OptionTree, number] => [options, 1 << 20]),
    [{ cluster_size: 512 }, 2 ** 50],
    [{ 'encrypt.format': 'luks', 'encrypt.key-secret': 'nobody' }, 1 << 20],
  ])('%j: an image that is there stays as it is', async (options, size) => {
    const host = new SimHost({ record: false });
    host.put(PATH, new Uint8Array(1024).fill(5));
    await expect(make(options, size, host)).rejects.toThrow();
    expect(host.contents(PATH)).toEqual(new Uint8Array(1024).fill(5));
  });

  test('a disk too large for its clusters', async () => {
    const message = "The image size is too large for file format 'qcow2' (try using a larger cluster size)";
    await expect(make({ cluster_size: 512 }, 2 ** 50)).rejects.toMatchObject({ code: 'EFBIG', message });
    await expect(make({}, 2 ** 53)).rejects.toMatchObject({ code: 'EFBIG', message });
  });

  test('a disk too large for offsets: no cluster size is to blame', async () => {
    const message = 'The image size is too large: sizes of 2^53 bytes (8 PiB) and more are not supported';
    for (const size of [2 ** 53 - 511, 2 ** 53, 2 ** 63]) {
      // The L1 table of the last would be too long as well.
      const expected = size < 2 ** 63 ? { code: 'ENOTSUP', message } : { code: 'EFBIG' };
      await expect(make({ cluster_size: 131072 }, size)).rejects.toMatchObject(expected);
    }
  });
});

describe('what is made', () => {
  test('Q-CR-3: header, refcount table, block, L1 table; cut short in the last (Q-HDR-1)', async () => {
    const bytes = (await make({}, 1 << 30)).contents(PATH);
    const view = new DataView(bytes.buffer);
    expect([view.getBigUint64(48), view.getBigUint64(0x10000), view.getBigUint64(40)]).toEqual([
      0x10000n,
      0x20000n,
      0x30000n,
    ]);
    expect(bytes.length).toBe(3 * 65536 + 16);
    expect(readQcow2(bytes).problems).toEqual([]);
  });

  test('Q-CR-1: sizes are rounded up to sectors', async () => {
    expect(readQcow2((await make({}, 1025)).contents(PATH)).size).toBe(1536);
  });

  test('Q-EXT-3: names of features only in version 3 with clusters above 4096 bytes (Q-HDR-8)', async () => {
    const type = async (options: OptionTree) =>
      new DataView((await make(options)).contents(PATH).buffer).getUint32(options.compat === '0.10' ? 72 : 112);
    expect(await type({})).toBe(0x6803f857);
    expect(await type({ cluster_size: 4096 })).toBe(0);
    expect(await type({ compat: '0.10' })).toBe(0);
  });

  test.each(['metadata', 'falloc', 'full'])(
    'Q-SIZE-4: preallocation=%s links all clusters, which read as zeroes',
    async (mode) => {
      const host = await make({ preallocation: mode, cluster_size: 4096 });
      const view = readQcow2(host.contents(PATH));
      expect([view.problems, view.leaks, view.entries.size]).toEqual([[], [], 256]);
      expect(view.content().every((byte) => byte === 0)).toBe(true);
    },
  );
});

describe('measure (Q-ME-3)', () => {
  const sized = (options: OptionTree) =>
    measure({ options: parseOptions(createOptions, options).values, size: 1 << 30, extents: undefined });
  test('vectors', async () => {
    expect(await sized({})).toEqual({ required: 393216, fullyAllocated: 1074135040 });
    expect(await sized({ cluster_size: 512 })).toEqual({ required: 21385216, fullyAllocated: 1095127040 });
  });
  test('Q-ME-1, Q-ME-2: other shapes, as qemu-img measures them', async () => {
    expect(await sized({ extended_l2: true })).toEqual({ required: 524288, fullyAllocated: 1074266112 });
    expect(await sized({ refcount_bits: 64 })).toEqual({ required: 524288, fullyAllocated: 1074266112 });
    expect(await sized({ preallocation: 'full' })).toEqual({ required: 1074135040, fullyAllocated: 1074135040 });
  });
});

test('Q-REF-6: a run of clusters that the refcount table has no room for makes it grow once, and leaves no hole', async () => {
  const host = await make({ cluster_size: 512, refcount_bits: 64 }, 20 * 2 ** 30);
  const { problems, leaks } = readQcow2(host.contents(PATH));
  expect([problems, leaks]).toEqual([[], []]);
  // The L1 table has 5 MiB.
  expect(host.contents(PATH).length).toBeLessThan(5.5 * 2 ** 20);
});

test('Q-REF-3: blocks that are free as a whole are passed over when a long run of clusters needs more of them', async () => {
  const looks = vi.spyOn(refcountWidth(6), 'get');
  try {
    const host = await make({ cluster_size: 512, refcount_bits: 64, preallocation: 'metadata' }, 4 << 20);
    const { problems, leaks } = readQcow2(host.contents(PATH));
    expect([problems, leaks]).toEqual([[], []]);
    // Of 8192 clusters each was looked at 60 times.
    expect(looks.mock.calls.length).toBeLessThan(10 * 8192);
  } finally {
    looks.mockRestore();
  }
});
