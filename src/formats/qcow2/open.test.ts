/** Opening: what headers may be, in order and to the letter (Q-HDR, Q-FEAT, Q-EXT, Q-OPT). */
import { describe, expect, test } from 'vitest';
import { graphOn, PATH } from '../../../tests/support/sim-disks.ts';
import { createImage } from '../../core/create.ts';
import type { NestedOptions, OptionTree } from '../../core/options.ts';
import { SimHost } from '../../testing/index.ts';

type Patch = readonly [offset: number, bytes: 1 | 4 | 8, value: number | bigint];

async function fresh(options: OptionTree = {}, size = 1 << 30): Promise<Uint8Array> {
  const host = new SimHost({ record: false });
  await createImage(graphOn(host), { filename: PATH, format: 'qcow2', size, options });
  return host.contents(PATH);
}

function patched(bytes: Uint8Array, patches: readonly Patch[]): SimHost {
  const copy = bytes.slice();
  const view = new DataView(copy.buffer);
  for (const [offset, width, value] of patches) {
    if (width === 8) view.setBigUint64(offset, BigInt(value));
    else if (width === 4) view.setUint32(offset, Number(value));
    else view.setUint8(offset, Number(value));
  }
  const host = new SimHost({ record: false });
  host.put(PATH, copy);
  return host;
}

function open(host: SimHost, options: NestedOptions = {}, writable = false) {
  const tree = { driver: 'qcow2', file: { driver: 'file', filename: PATH }, ...options };
  return graphOn(host).open(tree, { writable });
}

describe('headers that are refused (Q-HDR-5, Q-HDR-6, Q-FEAT-2, Q-FEAT-5)', () => {
  const cases: readonly (readonly [string, readonly Patch[], string, string])[] = [
    ['no magic', [[0, 4, 1]], 'EINVAL', 'Image is not in qcow2 format'],
    ['version 4', [[4, 4, 4]], 'ENOTSUP', 'Unsupported qcow2 version 4'],
    ['clusters of 256 bytes', [[20, 4, 8]], 'EINVAL', 'Unsupported cluster size: 2^8'],
    ['clusters of 4 MiB', [[20, 4, 22]], 'EINVAL', 'Unsupported cluster size: 2^22'],
    ['a short header', [[100, 4, 103]], 'EINVAL', 'qcow2 header too short'],
    ['a long header', [[100, 4, 0x20000]], 'EINVAL', 'qcow2 header exceeds cluster size'],
    ['a backing name elsewhere', [[8, 8, 0x20000]], 'EINVAL', 'Invalid backing file offset'],
    ['compression 2', [[104, 1, 2]], 'ENOTSUP', 'qcow2: unknown compression type: 2'],
    ['zstd without its bit', [[104, 1, 1]], 'EINVAL', 'qcow2: Compression type incompatible feature bit must be set'],
    [
      'the bit without zstd',
      [[72, 8, 8]],
      'EINVAL',
      'qcow2: Compression type incompatible feature bit must not be set',
    ],
    [
      'unknown features',
      [[72, 8, 0x180]],
      'ENOTSUP',
      'Unsupported qcow2 feature(s): Unknown incompatible feature: 180',
    ],
    ['wide refcounts', [[96, 4, 7]], 'EINVAL', 'Reference count entry width too large; may not exceed 64 bits'],
    ['no refcount table', [[56, 4, 0]], 'EINVAL', 'Image does not contain a reference count table'],
    ['a long refcount table', [[56, 4, 1000]], 'EFBIG', 'Reference count table too large'],
    ['a refcount table between clusters', [[48, 8, 1000]], 'EINVAL', 'Reference count table offset invalid'],
    ['many snapshots', [[60, 4, 70000]], 'EFBIG', 'Snapshot table too large'],
    [
      'a snapshot table between clusters',
      [
        [60, 4, 1],
        [64, 8, 1000],
      ],
      'EINVAL',
      'Snapshot table offset invalid',
    ],
    ['a long L1 table', [[36, 4, 1 << 27]], 'EFBIG', 'Active L1 table too large'],
    ['an L1 table between clusters', [[40, 8, 1000]], 'EINVAL', 'Active L1 table offset invalid'],
    ['a huge disk', [[24, 8, 1n << 62n]], 'EFBIG', 'Image is too big'],
    ['an L1 table too small', [[24, 8, 1n << 40n]], 'EINVAL', 'L1 table is too small'],
    ['an L1 table past the end', [[40, 8, 1n << 40n]], 'EIO', 'Could not read L1 table: Input/output error'],
    [
      'a refcount table past the end',
      [[48, 8, 1n << 40n]],
      'EIO',
      'Could not initialize refcount handling: Input/output error',
    ],
    ['encryption 3', [[32, 4, 3]], 'EINVAL', 'Unsupported encryption method 3'],
    ['AES without a secret', [[32, 4, 1]], 'EINVAL', "Parameter 'encrypt.key-secret' is required for cipher"],
    [
      'a long backing name',
      [
        [8, 8, 0x300],
        [16, 4, 1024],
      ],
      'EINVAL',
      'Backing file name too long',
    ],
    [
      'an extension too large',
      [
        [8, 8, 0x80],
        [16, 4, 10],
      ],
      'EINVAL',
      'Header extension too large',
    ],
    [
      'a backing name over the header (Q-HDR-10)',
      [
        [8, 8, 8],
        [16, 4, 10],
      ],
      'EINVAL',
      'Backing file name overlaps the header',
    ],
    [
      'a long name of a backing format (Q-EXT-2)',
      [
        [112, 4, 0xe2792aca],
        [116, 4, 16],
      ],
      'EINVAL',
      'ERROR: ext_backing_format: len=16 too large (>=16)',
    ],
    [
      'an encryption pointer alone (Q-EXT-4)',
      [
        [112, 4, 0x0537be77],
        [116, 4, 16],
      ],
      'EINVAL',
      'CRYPTO header extension only expected with LUKS encryption method',
    ],
    [
      'LUKS without a pointer (Q-EXT-4)',
      [[32, 4, 2]],
      'EINVAL',
      "Parameter 'encrypt.key-secret' is required for cipher",
    ],
    [
      'no bitmaps in the extension for them (Q-EXT-5)',
      [
        [112, 4, 0x23852875],
        [116, 4, 24],
        [120, 8, 0],
        [128, 8, 0],
        [136, 8, 0],
        [144, 8, 0],
      ],
      'EINVAL',
      'found bitmaps extension with zero bitmaps',
    ],
    [
      'too many bitmaps (Q-EXT-5)',
      [
        [112, 4, 0x23852875],
        [116, 4, 24],
        [120, 4, 65536],
        [124, 4, 0],
        [128, 8, 0],
        [136, 8, 0],
        [144, 8, 0],
      ],
      'EINVAL',
      'bitmaps_ext: Image has 65536 bitmaps, exceeding the QEMU supported maximum of 65535',
    ],
    [
      'a large directory of bitmaps (Q-EXT-5)',
      [
        [112, 4, 0x23852875],
        [116, 4, 24],
        [120, 4, 1],
        [124, 4, 0],
        [128, 8, 67107841],
        [136, 8, 0x10000],
        [144, 8, 0],
      ],
      'EINVAL',
      'bitmaps_ext: bitmap directory size (67107841) exceeds the maximum supported size (67107840)',
    ],
    [
      'a directory of bitmaps between clusters (Q-EXT-5)',
      [
        [112, 4, 0x23852875],
        [116, 4, 24],
        [120, 4, 1],
        [124, 4, 0],
        [128, 8, 100],
        [136, 8, 0x10001],
        [144, 8, 0],
      ],
      'EINVAL',
      'bitmaps_ext: invalid bitmap directory offset',
    ],
  ];
  test.each(cases)('%s', async (_name, patches, code, message) => {
    await expect(open(patched(await fresh(), patches))).rejects.toMatchObject({ code, message });
  });

  test('subclusters below 512 bytes', async () => {
    const bytes = await fresh({ cluster_size: 8192 });
    const refused = { code: 'EINVAL', message: 'Unsupported subcluster size: 256' };
    await expect(open(patched(bytes, [[72, 8, 16]]))).rejects.toMatchObject(refused);
  });

  test('a corrupt image cannot be written (Q-FEAT-4), and can be read', async () => {
    const bytes = await fresh();
    const refused = { code: 'EACCES', message: 'qcow2: Image is corrupt; cannot be opened read/write' };
    await expect(open(patched(bytes, [[72, 8, 2]]), {}, true)).rejects.toMatchObject(refused);
    await (await open(patched(bytes, [[72, 8, 2]]))).close();
  });
});

describe('what opening does', () => {
  test('Q-HDR-7: a size between sectors is kept exact', async () => {
    const disk = await open(patched(await fresh({}, 65536), [[24, 8, 1000]]));
    expect(disk.length).toBe(1000);
    expect(await disk.read(990, 10)).toEqual(new Uint8Array(10));
    await disk.close();
  });

  test('Q-FEAT-7: a writer clears autoclear bits that it does not know, a reader leaves them', async () => {
    const autoclear = (host: SimHost) => new DataView(host.contents(PATH).buffer).getBigUint64(88);
    const host = patched(await fresh(), [[88, 8, 0x100]]);
    await (await open(host)).close();
    expect(autoclear(host)).toBe(0x100n);
    await (await open(host, {}, true)).close();
    expect(autoclear(host)).toBe(0n);
  });

  test('Q-HDR-3, Q-HDR-8, Q-FEAT-6: fields and compatible bits that are not known survive a rewrite', async () => {
    const host = patched(await fresh(), [
      [80, 8, 0x40],
      [88, 8, 0x100],
      [100, 4, 120],
      [112, 8, 0x1122334455667788n],
      [120, 4, 0],
    ]);
    await (await open(host, {}, true)).close();
    const view = new DataView(host.contents(PATH).buffer);
    expect([view.getBigUint64(80), view.getUint32(100), view.getBigUint64(112)]).toEqual([
      0x40n,
      120,
      0x1122334455667788n,
    ]);
  });

  test('Q-EXT-6: extensions of other types are kept verbatim', async () => {
    const host = patched(await fresh(), [
      [88, 8, 0x100],
      [112, 4, 0x12345678],
      [116, 4, 5],
      [120, 8, 0x0102030405000000n],
      [128, 4, 0],
    ]);
    await (await open(host, {}, true)).close();
    const bytes = host.contents(PATH);
    const view = new DataView(bytes.buffer);
    // Behind the names of features.
    const at = 112 + 8 + 384;
    expect([view.getUint32(112), view.getUint32(at), view.getUint32(at + 4)]).toEqual([0x6803f857, 0x12345678, 5]);
    expect([...bytes.subarray(at + 8, at + 16)]).toEqual([1, 2, 3, 4, 5, 0, 0, 0]);
  });

  test('Q-HDR-4: probed by magic and version', async () => {
    const graph = graphOn(patched(await fresh(), []));
    const disk = await graph.open(PATH);
    expect(graph.nodes().map((node) => node.driver.name)).toContain('qcow2');
    await disk.close();
  });
});

describe('runtime options (Q-OPT)', () => {
  const refused: readonly (readonly [string, NestedOptions, string])[] = [
    [
      'Q-OPT-4',
      { 'overlap-check': 'some' },
      "Unsupported value 'some' for qcow2 option 'overlap-check'. Allowed are any of the following: none, constant, cached, all",
    ],
    [
      'Q-OPT-2: all three',
      { 'cache-size': 1, 'l2-cache-size': 1, 'refcount-cache-size': 1 },
      'cache-size, l2-cache-size and refcount-cache-size may not be set at the same time',
    ],
    ['Q-OPT-2: L2', { 'cache-size': 1, 'l2-cache-size': 2 }, 'l2-cache-size may not exceed cache-size'],
    [
      'Q-OPT-2: refcounts',
      { 'cache-size': 1, 'refcount-cache-size': 2 },
      'refcount-cache-size may not exceed cache-size',
    ],
    [
      'Q-OPT-2: entries',
      { 'l2-cache-entry-size': 500 },
      'L2 cache entry size must be a power of two between 512 and the cluster size (65536)',
    ],
    ['Q-OPT-3', { 'cache-clean-interval': 2 ** 32 }, 'Cache clean interval too big'],
    ['Q-OPT-5', { encrypt: { format: 'luks' } }, "No encryption in image header, but options specified format 'luks'"],
    [
      'Q-DATA-2',
      { 'data-file': { driver: 'null-co' } },
      "'data-file' can only be set for images with an external data file",
    ],
  ];
  test.each(refused)('%s', async (_rule, options, message) => {
    await expect(open(patched(await fresh(), []), options)).rejects.toMatchObject({ code: 'EINVAL', message });
  });

  test('Q-OPT-1: version 2 has no lazy refcounts and no discard-no-unref', async () => {
    const bytes = await fresh({ compat: '0.10' });
    await expect(open(patched(bytes, []), { 'lazy-refcounts': true })).rejects.toThrow(
      'Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level',
    );
    await expect(open(patched(bytes, []), { 'discard-no-unref': true })).rejects.toThrow(
      'discard-no-unref is only supported since qcow2 version 3',
    );
  });
});
