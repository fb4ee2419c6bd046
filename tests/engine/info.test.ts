/** What nodes tell of themselves: BL-INFO, BL-MEDIA-1, BL-SIZE-5 and -6, through filters and formats. */
import { describe, expect, test } from 'vitest';
import { amend } from '../../src/core/amend.ts';
import type { DriverInfo, DriverNode, DriverSpec, FormatSpec } from '../../src/core/driver.ts';
import { defineFilter, defineFormat, defineProtocol } from '../../src/core/driver.ts';
import type { Graph } from '../../src/core/graph.ts';
import { allocatedSize, blockSizes, diskGeometry, isInserted, nodeInfo, zeroInit } from '../../src/core/info.ts';
import { namedNodes, nodeRecord } from '../../src/core/named-nodes.ts';
import { BlockNode } from '../../src/core/node.ts';
import { type NestedOptions, option } from '../../src/core/options.ts';
import { raw } from '../../src/formats/raw.ts';
import { namingFormat } from './naming-format.ts';
import { failureOf, graphOf, plainFormat, Storage, storageProtocol } from './storage.ts';

/** A protocol with more to it. */
function leaf(more: Partial<DriverNode>, name = 'leaf'): DriverSpec {
  return defineProtocol({
    name,
    summary: '',
    options: {},
    open: async () => ({ ...new Storage(8192).node(), ...more }),
  });
}

/** A format with more to it. */
function format(more: Partial<DriverNode>, spec: Partial<FormatSpec<never, never>> = {}): DriverSpec {
  return defineFormat({
    ...plainFormat,
    ...spec,
    name: 'format',
    open: async (context) => ({ ...(await plainFormat.open(context)), ...more }),
  });
}

const filter = defineFilter({ name: 'filter', summary: '', options: {}, open: async () => ({}) });
/** Such as blkdebug. */
const named = defineFilter({
  ...filter,
  name: 'named',
  parseFilename: (file) => ({ options: {}, children: { file } }),
});
/** Two children. */
const pair = defineFormat({
  ...plainFormat,
  name: 'pair',
  children: { data: { role: 'data' }, more: { role: 'metadata', optional: true } },
});

async function nodeOf(drivers: DriverSpec[], source: NestedOptions): Promise<BlockNode> {
  const graph = graphOf([...drivers, filter, named, pair, raw, plainFormat, namingFormat]);
  return (await graph.open(source)).node;
}

/** A node that has no driver yet. */
function emptyNode({ node }: { readonly node: BlockNode }): BlockNode {
  return new BlockNode('empty', node.driver, node.settings, {}, node.origin);
}

const LEAF = { driver: 'leaf' };
const SPECIFIC = { type: 'x', data: { a: 1 } };

describe('information (BL-INFO-1, BL-INFO-2)', () => {
  test('is the driver’s; subclusters are as large as clusters unless it says otherwise', async () => {
    const info: DriverInfo = { clusterSize: 4096, vmStateOffset: 1 << 20, dirty: true, specific: SPECIFIC };
    expect(nodeInfo(await nodeOf([leaf({ info: () => info })], LEAF))).toEqual({ ...info, subclusterSize: 4096 });
    const split = { clusterSize: 4096, subclusterSize: 128 };
    expect(nodeInfo(await nodeOf([leaf({ info: () => split })], LEAF))).toEqual(split);
  });

  test('a filter forwards it, but not what only the format has', async () => {
    const info: DriverInfo = { clusterSize: 4096, dirty: true, specific: SPECIFIC };
    const drivers = [leaf({ info: () => info })];
    const found = nodeInfo(await nodeOf(drivers, { driver: 'filter', file: { driver: 'filter', file: LEAF } }));
    expect(found).toEqual({ clusterSize: 4096, subclusterSize: 4096, dirty: true });
    await expect(nodeOf([leaf({})], { driver: 'filter', file: LEAF }).then(nodeInfo)).rejects.toThrow('information');
  });

  test('none, and a node without driver, are refused', async () => {
    const node = await nodeOf([leaf({})], LEAF);
    expect(() => nodeInfo(node)).toThrow(expect.objectContaining({ code: 'ENOTSUP' }));
    expect(() => nodeInfo(emptyNode({ node }))).toThrow(expect.objectContaining({ code: 'ENOMEDIUM' }));
  });

  test('clusters have at most 2^30 bytes', async () => {
    const withClusters = (clusterSize: number) => nodeOf([leaf({ info: () => ({ clusterSize }) })], LEAF);
    expect(nodeInfo(await withClusters(2 ** 30)).clusterSize).toBe(2 ** 30);
    const tooLarge = await withClusters(2 ** 30 + 1);
    expect(() => nodeInfo(tooLarge)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  });
});

describe('zero-init (BL-INFO-3)', () => {
  test('is the driver’s answer, else no; filters forward', async () => {
    const yes = [leaf({ zeroInit: () => true })];
    expect(zeroInit(await nodeOf(yes, LEAF))).toBe(true);
    expect(zeroInit(await nodeOf([leaf({})], LEAF))).toBe(false);
    expect(zeroInit(await nodeOf([leaf({ zeroInit: () => false })], LEAF))).toBe(false);
    expect(zeroInit(await nodeOf(yes, { driver: 'plain', file: LEAF }))).toBe(false);
    expect(zeroInit(await nodeOf(yes, { driver: 'filter', file: LEAF }))).toBe(true);
    expect(zeroInit(emptyNode({ node: await nodeOf(yes, LEAF) }))).toBe(false);
  });

  test('an image with a backing file is never so, under a filter or a child neither', async () => {
    const drivers = [leaf({ zeroInit: () => true })];
    const alone = { driver: 'naming', file: LEAF };
    const over = { driver: 'naming', file: LEAF, backing: LEAF };
    expect(zeroInit(await nodeOf(drivers, alone))).toBe(true);
    expect(zeroInit(await nodeOf(drivers, over))).toBe(false);
    expect(zeroInit(await nodeOf(drivers, { driver: 'filter', file: over }))).toBe(false);
    expect(zeroInit(await nodeOf(drivers, { driver: 'raw', file: over }))).toBe(false);
    expect(zeroInit(await nodeOf(drivers, { driver: 'raw', file: alone }))).toBe(true);
  });
});

describe('allocated size (BL-SIZE-5)', () => {
  const knows = (bytes: number, name: string) => leaf({ allocatedSize: () => bytes }, name);
  const drivers = [knows(1000, 'a'), knows(200, 'b'), leaf({}, 'unknown')];
  const size = async (source: NestedOptions) => allocatedSize(await nodeOf(drivers, source));
  const [a, b, unknown] = [{ driver: 'a' }, { driver: 'b' }, { driver: 'unknown' }];

  test('a protocol tells its own, or nothing', async () => {
    expect(await size(a)).toBe(1000);
    expect(await size(unknown)).toBeUndefined();
  });

  test('others: the sum over data, metadata and filtered children, unless one is not known', async () => {
    expect(await size({ driver: 'plain', file: a })).toBe(1000);
    expect(await size({ driver: 'pair', file: a, data: b })).toBe(1200);
    expect(await size({ driver: 'pair', file: a, data: b, more: b })).toBe(1400);
    expect(await size({ driver: 'pair', file: a, data: unknown })).toBeUndefined();
    expect(await size({ driver: 'raw', file: a })).toBe(1000);
  });

  test('the backing image is not counted', async () => {
    expect(await size({ driver: 'naming', file: a, backing: b })).toBe(1000);
  });

  test('a filter tells its child’s; one that is named like a protocol tells nothing, as other programs have it', async () => {
    expect(await size({ driver: 'filter', file: { driver: 'naming', file: a, backing: b } })).toBe(1000);
    expect(await size({ driver: 'named', file: a })).toBeUndefined();
    expect(await size({ driver: 'raw', file: { driver: 'named', file: a } })).toBeUndefined();
  });
});

describe('probes of devices (BL-SIZE-6)', () => {
  const sizes = { physical: 4096, logical: 512 };
  const geometry = { cylinders: 20, heads: 16, sectors: 63 };
  const drivers = [leaf({ blockSizes: () => sizes, geometry: () => geometry })];

  test('go through filters', async () => {
    for (const source of [LEAF, { driver: 'filter', file: { driver: 'filter', file: LEAF } }]) {
      const node = await nodeOf(drivers, source);
      expect([blockSizes(node), diskGeometry(node)]).toEqual([sizes, geometry]);
    }
  });

  test('but not through formats, and are refused where nobody knows', async () => {
    const missing = expect.objectContaining({ code: 'ENOTSUP' });
    for (const [more, source] of [
      [drivers, { driver: 'plain', file: LEAF }],
      [[leaf({})], LEAF],
      [[leaf({ blockSizes: () => undefined, geometry: () => undefined })], { driver: 'filter', file: LEAF }],
    ] as [DriverSpec[], NestedOptions][]) {
      const node = await nodeOf(more, source);
      expect(() => blockSizes(node)).toThrow(missing);
      expect(() => diskGeometry(node)).toThrow(missing);
    }
  });
});

test('BL-MEDIA-1: there is a medium by the driver’s answer, else if all children have one', async () => {
  const [full, empty] = [leaf({ inserted: () => true }, 'full'), leaf({ inserted: () => false }, 'empty')];
  const inserted = async (source: NestedOptions) => isInserted(await nodeOf([full, empty, leaf({})], source));
  expect(await inserted({ driver: 'full' })).toBe(true);
  expect(await inserted({ driver: 'empty' })).toBe(false);
  expect(await inserted(LEAF)).toBe(true);
  expect(await inserted({ driver: 'plain', file: { driver: 'empty' } })).toBe(false);
  expect(await inserted({ driver: 'naming', file: LEAF, backing: { driver: 'empty' } })).toBe(false);
  expect(await inserted({ driver: 'naming', file: LEAF, backing: { driver: 'full' } })).toBe(true);
  expect(isInserted(emptyNode({ node: await nodeOf([leaf({})], LEAF) }))).toBe(false);
  const graph = graphOf([empty]);
  const device = graph.devices.add('cd');
  expect(device.isInserted).toBe(false);
  await device.insert({ driver: 'empty' });
  expect(device.isInserted).toBe(false);
});

describe('reads of a node (BL-INFO-9, BL-INFO-12)', () => {
  test('names, formats, modes', async () => {
    const graph = graphOf([storageProtocol(new Storage(8192)), plainFormat]);
    const disk = await graph.open({ driver: 'plain', file: { driver: 'store' } }, { nodeName: 'n', cache: 'unsafe' });
    expect([disk.nodeName, disk.format, disk.writable, disk.writeCache]).toEqual(['n', 'plain', false, true]);
    expect(disk.node.settings.cache).toEqual({ writeBack: true, direct: false, noFlush: true });
    expect([disk.node.deviceName, disk.node.deviceOrNodeName]).toEqual(['', 'n']);
  });

  test('BL-INFO-12: nodes are found by exact name, and listed in order', async () => {
    const graph = graphOf([storageProtocol(new Storage(8192))]);
    for (const name of ['a', 'b', 'c']) await graph.open({ driver: 'store', 'node-name': name });
    expect(graph.node('b')?.name).toBe('b');
    expect(graph.node('B')).toBeUndefined();
    expect(graph.nodes().map(({ name }) => name)).toEqual(['a', 'b', 'c']);
  });
});

describe('listing (BL-INFO-14)', () => {
  async function chain(): Promise<Graph> {
    const known = leaf({ info: () => ({ clusterSize: 4096, specific: SPECIFIC }), allocatedSize: () => 100 });
    const graph = graphOf([known, storageProtocol(new Storage(1000), 'file'), namingFormat, plainFormat], {
      openPolicy: { allow: () => true, probe: true, depthMax: 10 },
    });
    await graph.add({
      driver: 'naming',
      'node-name': 'top',
      names: '/base',
      format: 'plain',
      'detect-zeroes': 'on',
      cache: { 'no-flush': true },
      file: { driver: 'leaf', 'node-name': 'top-file' },
      backing: { 'node-name': 'base', file: { 'node-name': 'base-file' } },
    });
    return graph;
  }

  test('one record a node, newest first', async () => {
    const names = namedNodes(await chain()).map((record) => record['node-name']);
    expect(names).toEqual(['base', 'base-file', 'top', 'top-file']);
  });

  test('a record, to the letter', async () => {
    const graph = await chain();
    const [base, , top] = namedNodes(graph);
    const noLimits = { bps: 0, bps_rd: 0, bps_wr: 0, iops: 0, iops_rd: 0, iops_wr: 0 };
    const baseImage = { filename: '/base', format: 'plain', 'virtual-size': 1024 };
    const filename = graph.node('top')?.filename;
    expect(top).toEqual({
      'node-name': 'top',
      drv: 'naming',
      file: filename,
      ro: false,
      encrypted: false,
      detect_zeroes: 'on',
      cache: { writeback: true, direct: false, 'no-flush': true },
      backing_file: '/base',
      backing_file_depth: 1,
      write_threshold: 0,
      ...noLimits,
      image: {
        filename,
        format: 'naming',
        'virtual-size': 1024,
        'actual-size': 100,
        'backing-filename': '/base',
        'full-backing-filename': '/base',
        'backing-filename-format': 'plain',
        'backing-image': baseImage,
      },
    });
    expect(base).toEqual({
      'node-name': 'base',
      drv: 'plain',
      file: '/base',
      ro: true,
      encrypted: false,
      detect_zeroes: 'off',
      cache: { writeback: true, direct: false, 'no-flush': true },
      backing_file_depth: 0,
      write_threshold: 0,
      ...noLimits,
      image: baseImage,
    });
  });

  test('flat leaves out images below images', async () => {
    const images = namedNodes(await chain(), { flat: true }).map(({ image }) => image);
    expect(images.filter((image) => 'backing-image' in image)).toEqual([]);
    expect(images.at(-1)).toMatchObject({ 'cluster-size': 4096, 'format-specific': SPECIFIC, 'dirty-flag': false });
  });

  test('bitmaps are listed with the node', async () => {
    const graph = await chain();
    const node = graph.lookUp('top');
    const bitmap = { name: 'b', count: 0, granularity: 65536 };
    node.trackers = [{ changed() {}, checkResize() {}, resized() {}, query: () => [bitmap] }];
    expect(nodeRecord(graph, node, true)['dirty-bitmaps']).toEqual([bitmap]);
    node.writeThreshold = 4096;
    expect(nodeRecord(graph, node, true).write_threshold).toBe(4096);
  });

  test('one failure fails all', async () => {
    const broken = leaf({ info: () => ({ clusterSize: 2 ** 31 }) });
    const graph = graphOf([broken, storageProtocol(new Storage(8192))]);
    await graph.open(LEAF);
    await graph.open({ driver: 'store' });
    expect(() => namedNodes(graph)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  });

  test('a node without driver', async () => {
    const graph = await chain();
    const record = () => nodeRecord(graph, emptyNode({ node: graph.lookUp('top') }), false);
    expect(record).toThrow('Block device empty is ejected');
    expect(record).toThrow(expect.objectContaining({ code: 'ENOMEDIUM' }));
  });
});

describe('amend (BL-INFO-15)', () => {
  test('refusals', async () => {
    const graph = graphOf([storageProtocol(new Storage(8192)), plainFormat]);
    const disk = await graph.open({ driver: 'plain', file: { driver: 'store' } }, { writable: true });
    expect(await failureOf(disk.amend({ compat: 'v3' }))).toEqual({
      code: 'ENOTSUP',
      message: "Block driver 'plain' does not support option amendment",
    });
    expect(await failureOf(amend(emptyNode(disk), {}))).toEqual({ code: 'ENOMEDIUM', message: 'Node is ejected' });
  });

  test('the driver gets the options, and tells its progress; nothing else runs meanwhile', async () => {
    const seen: unknown[] = [];
    const amendOptions = { 'a.b': option.number({ help: '', fallback: 0 }) };
    const create = { options: { made: option.boolean({ help: '', fallback: false }) }, run: async () => {} };
    const graph = graphOf([
      storageProtocol(new Storage(8192)),
      format(
        {
          async amend(options, { force, progress }) {
            seen.push(
              { ...options },
              force,
              graph.nodes().every(({ tracker }) => tracker.idle),
            );
            progress?.(1, 2);
          },
        },
        { amendOptions, create },
      ),
    ]);
    const source = { driver: 'format', file: { driver: 'store' } };
    const disk = await graph.open(source, { writable: true });
    const reading = disk.read(0, 512);
    await disk.amend({ 'a.b': 1 }, { force: true, progress: (done, total) => void seen.push(done / total) });
    await reading;
    expect(seen).toEqual([{ 'a.b': 1 }, true, true, 0.5]);
    expect(await failureOf(disk.amend({ other: 1, made: true }))).toMatchObject({
      code: 'EINVAL',
      message: "Invalid parameter 'other'",
    });
    await expect(disk.amend({ made: true })).rejects.toMatchObject({
      message: "Invalid parameter 'made'",
      hint: 'This option is only supported for image creation',
    });
    await expect(disk.amend({ 'a.b': 'x' })).rejects.toThrow("Parameter 'a.b' expects a number");
    expect(seen).toHaveLength(4);
    await disk.close();
    const reader = await graph.open(source);
    expect((await failureOf(reader.amend({}))).code).toBe('EPERM');
  });
});
