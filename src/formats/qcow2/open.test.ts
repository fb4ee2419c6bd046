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

/** Offset and bytes of header fields. */
const FIELDS = {
  magic: [0, 4],
  version: [4, 4],
  backingOffset: [8, 8],
  backingLength: [16, 4],
  clusterBits: [20, 4],
  size: [24, 8],
  encryption: [32, 4],
  l1Entries: [36, 4],
  l1Offset: [40, 8],
  refcountTable: [48, 8],
  refcountTableClusters: [56, 4],
  snapshots: [60, 4],
  snapshotTable: [64, 8],
  incompatible: [72, 8],
  refcountOrder: [96, 4],
  headerLength: [100, 4],
  compression: [104, 1],
} as const;

type Fields = Partial<Record<keyof typeof FIELDS, number | bigint>>;

interface Refused {
  readonly what: string;
  readonly fields?: Fields;
  /** Type, length and words of a record where the first one is. */
  readonly extension?: readonly [type: number, length: number, ...words: (number | bigint)[]];
  /** Default: EINVAL. */
  readonly code?: string;
  readonly message: string;
}

function patchesOf({ fields = {}, extension }: Refused): Patch[] {
  const patches = Object.entries(fields).map(([name, value]): Patch => {
    const [offset, bytes] = FIELDS[name as keyof Fields];
    return [offset, bytes, value];
  });
  if (extension === undefined) return patches;
  const [type, length, ...words] = extension;
  patches.push([112, 4, type], [116, 4, length]);
  for (const [i, word] of words.entries()) patches.push([120 + i * 8, 8, word]);
  return patches;
}

const BITMAPS = 0x23852875;
/** Number and a reserved word of the extension for bitmaps. */
const count = (bitmaps: number) => BigInt(bitmaps) << 32n;

describe('headers that are refused (Q-HDR-5, Q-HDR-6, Q-FEAT-2, Q-FEAT-5)', () => {
  const bit = 'qcow2: Compression type incompatible feature bit must';
  const cases: readonly Refused[] = [
    { what: 'no magic', fields: { magic: 1 }, message: 'Image is not in qcow2 format' },
    { what: 'version 4', fields: { version: 4 }, code: 'ENOTSUP', message: 'Unsupported qcow2 version 4' },
    { what: 'clusters of 256 bytes', fields: { clusterBits: 8 }, message: 'Unsupported cluster size: 2^8' },
    { what: 'clusters of 4 MiB', fields: { clusterBits: 22 }, message: 'Unsupported cluster size: 2^22' },
    { what: 'a short header', fields: { headerLength: 103 }, message: 'qcow2 header too short' },
    { what: 'a long header', fields: { headerLength: 0x20000 }, message: 'qcow2 header exceeds cluster size' },
    { what: 'a backing name elsewhere', fields: { backingOffset: 0x20000 }, message: 'Invalid backing file offset' },
    {
      what: 'compression 2',
      fields: { compression: 2 },
      code: 'ENOTSUP',
      message: 'qcow2: unknown compression type: 2',
    },
    { what: 'zstd without its bit', fields: { compression: 1 }, message: `${bit} be set` },
    { what: 'the bit without zstd', fields: { incompatible: 8 }, message: `${bit} not be set` },
    {
      what: 'unknown features',
      fields: { incompatible: 0x180 },
      code: 'ENOTSUP',
      message: 'Unsupported qcow2 feature(s): Unknown incompatible feature: 180',
    },
    {
      what: 'wide refcounts',
      fields: { refcountOrder: 7 },
      message: 'Reference count entry width too large; may not exceed 64 bits',
    },
    {
      what: 'no refcount table',
      fields: { refcountTableClusters: 0 },
      message: 'Image does not contain a reference count table',
    },
    {
      what: 'a long refcount table',
      fields: { refcountTableClusters: 1000 },
      code: 'EFBIG',
      message: 'Reference count table too large',
    },
    {
      what: 'a refcount table between clusters',
      fields: { refcountTable: 1000 },
      message: 'Reference count table offset invalid',
    },
    { what: 'many snapshots', fields: { snapshots: 70000 }, code: 'EFBIG', message: 'Snapshot table too large' },
    {
      what: 'a snapshot table between clusters',
      fields: { snapshots: 1, snapshotTable: 1000 },
      message: 'Snapshot table offset invalid',
    },
    { what: 'a long L1 table', fields: { l1Entries: 1 << 27 }, code: 'EFBIG', message: 'Active L1 table too large' },
    { what: 'an L1 table between clusters', fields: { l1Offset: 1000 }, message: 'Active L1 table offset invalid' },
    { what: 'a huge disk', fields: { size: 1n << 62n }, code: 'EFBIG', message: 'Image is too big' },
    { what: 'an L1 table too small', fields: { size: 1n << 40n }, message: 'L1 table is too small' },
    {
      what: 'an L1 table past the end',
      fields: { l1Offset: 1n << 40n },
      code: 'EIO',
      message: 'Could not read L1 table: Input/output error',
    },
    { what: 'encryption 3', fields: { encryption: 3 }, message: 'Unsupported encryption method 3' },
    {
      what: 'AES without a secret',
      fields: { encryption: 1 },
      message: "Parameter 'encrypt.key-secret' is required for cipher",
    },
    {
      what: 'a long backing name',
      fields: { backingOffset: 0x300, backingLength: 1024 },
      message: 'Backing file name too long',
    },
    {
      what: 'an extension too large',
      fields: { backingOffset: 0x80, backingLength: 10 },
      message: 'Header extension too large',
    },
    {
      what: 'a backing name over the header (Q-HDR-10)',
      fields: { backingOffset: 8, backingLength: 10 },
      message: 'Backing file name overlaps the header',
    },
    {
      what: 'a long name of a backing format (Q-EXT-2)',
      extension: [0xe2792aca, 16],
      message: 'ERROR: ext_backing_format: len=16 too large (>=16)',
    },
    {
      what: 'an encryption pointer alone (Q-EXT-4)',
      extension: [0x0537be77, 16],
      message: 'CRYPTO header extension only expected with LUKS encryption method',
    },
    {
      what: 'LUKS without a pointer (Q-EXT-4)',
      fields: { encryption: 2 },
      message: "Parameter 'encrypt.key-secret' is required for cipher",
    },
    {
      what: 'no bitmaps in the extension for them (Q-EXT-5)',
      extension: [BITMAPS, 24, count(0), 0, 0, 0],
      message: 'found bitmaps extension with zero bitmaps',
    },
    {
      what: 'too many bitmaps (Q-EXT-5)',
      extension: [BITMAPS, 24, count(65536), 0, 0, 0],
      message: 'bitmaps_ext: Image has 65536 bitmaps, exceeding the QEMU supported maximum of 65535',
    },
    {
      what: 'a large directory of bitmaps (Q-EXT-5)',
      extension: [BITMAPS, 24, count(1), 67107841, 0x10000, 0],
      message: 'bitmaps_ext: bitmap directory size (67107841) exceeds the maximum supported size (67107840)',
    },
    {
      what: 'a directory of bitmaps between clusters (Q-EXT-5)',
      extension: [BITMAPS, 24, count(1), 100, 0x10001, 0],
      message: 'bitmaps_ext: invalid bitmap directory offset',
    },
  ];
  test.each(cases)('$what', async (refused) => {
    const { code = 'EINVAL', message } = refused;
    await expect(open(patched(await fresh(), patchesOf(refused)))).rejects.toMatchObject({ code, message });
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
  test('Q-HDR-2, Q-FEAT-1: fields are where they are to be', async () => {
    const options = { cluster_size: 16384, extended_l2: true, compression_type: 'zstd', refcount_bits: 32 };
    const bytes = await fresh({ ...options, lazy_refcounts: true }, 3 << 20);
    const view = new DataView(bytes.buffer);
    const field = (name: keyof Fields) => {
      const [offset, width] = FIELDS[name];
      if (width === 8) return Number(view.getBigUint64(offset));
      return width === 4 ? view.getUint32(offset) : view.getUint8(offset);
    };
    expect(Object.keys(FIELDS).map((name) => field(name as keyof Fields))).toEqual([
      ...[0x514649fb, 3, 0, 0, 14, 3 << 20, 0, 1, 3 * 16384, 16384, 1, 0, 0],
      // Compression and extended L2 entries; the order of 32 bits; bytes of the header; zstd.
      ...[8 | 16, 5, 112, 1],
    ]);
    expect([view.getBigUint64(80), view.getBigUint64(88)]).toEqual([1n, 0n]);
  });

  test('Q-EXT-1: records end with one of type 0, whatever comes behind it', async () => {
    const host = patched(await fresh(), [
      [112, 8, 0],
      [120, 4, 0xe2792aca],
      [124, 4, 0x7fffffff],
    ]);
    await (await open(host)).close();
    const twice: Patch[] = [112, 128].flatMap((at): Patch[] => [
      [at, 4, 0xe2792aca],
      [at + 4, 4, 3],
      [at + 8, 8, 0x7261770000000000n],
    ]);
    await expect(open(patched(await fresh(), twice))).rejects.toThrow('Header extension 0xe2792aca is there twice');
  });

  test('Q-HDR-7: a size between sectors is kept exact', async () => {
    const disk = await open(patched(await fresh({}, 65536), [[24, 8, 1000]]));
    expect(disk.length).toBe(1000);
    expect(await disk.read(990, 10)).toEqual(new Uint8Array(10));
    await disk.close();
  });

  test('Q-FEAT-7: without a data file, none can be said to be a raw image', async () => {
    const host = patched(await fresh(), [[95, 1, 2]]);
    const refusal = { code: 'EINVAL', message: 'data-file-raw requires a data file' };
    for (const writable of [false, true]) await expect(open(host, {}, writable)).rejects.toMatchObject(refusal);
    const checking = graphOn(host).open(PATH, { format: 'qcow2', checkOnly: true, writable: true });
    await expect(checking).rejects.toMatchObject({ code: 'EINVAL' });
    await using shown = await graphOn(host).open(PATH, { format: 'qcow2', noIO: true });
    expect(shown.length).toBe(1 << 30);
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
