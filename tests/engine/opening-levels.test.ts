/** Which driver opens what, and what it gets: BL-DRV-3, BL-DRV-5, BL-OPEN-3 to BL-OPEN-15, BL-OPEN-21, BL-SIZE-1. */
import { describe, expect, test } from 'vitest';
import { type DriverSpec, defineFilter, defineFormat, defineProtocol } from '../../src/core/driver.ts';
import type { Graph, GraphOptions } from '../../src/core/graph.ts';
import { openNode } from '../../src/core/open.ts';
import type { OpenOptions } from '../../src/core/open-options.ts';
import { type NestedOptions, option } from '../../src/core/options.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { raw } from '../../src/formats/raw.ts';
import { namingFormat } from './naming-format.ts';
import { failureOf, graphOf, plainFormat, Storage, storageProtocol } from './storage.ts';

function named(name: string, more: object = {}, storage = new Storage(8192)): DriverSpec {
  return { ...storageProtocol(storage, name), ...more } as DriverSpec;
}

const filter = defineFilter({ name: 'filter', summary: '', options: {}, open: async () => ({}) });
const tap = defineFilter({
  ...filter,
  name: 'tap',
  parseFilename: (file) => ({ options: {}, children: { file: file.slice('tap:'.length) } }),
});

function newGraph(drivers: DriverSpec[] = [], options: Pick<GraphOptions, 'whitelist'> = {}): Graph {
  const all = [named('file', { needsFilename: true }), named('net'), filter, tap, plainFormat, namingFormat, raw];
  return graphOf([...all, ...drivers], options);
}

function failure(source: string | NestedOptions, options: OpenOptions = {}, graph = newGraph()) {
  return failureOf(graph.open(source, options));
}

/** The drivers of a disk from the top down. */
async function layers(source: string | NestedOptions, options: OpenOptions = {}, graph = newGraph()): Promise<string> {
  await using disk = await graph.open(source, options);
  const names: string[] = [];
  for (let node = disk.node; node !== undefined; node = node.primary?.node as typeof node) names.push(node.driver.name);
  return names.join(' ');
}

describe('drivers', () => {
  test('BL-DRV-3: all drivers that a graph is given are there, and nothing is forbidden', () => {
    const graph = graphOf(DRIVERS);
    expect(graph.driverNames({ writable: true })).toEqual([...new Set(DRIVERS.map(({ name }) => name))].sort());
    for (const { name } of DRIVERS) expect(graph.driver(name)?.name).toBe(name);
  });

  test('BL-DRV-5: a node that may degrade does, where only reading is allowed', async () => {
    const whitelist = { readWrite: ['file', 'plain'], readOnly: ['net'] };
    const graph = newGraph([], { whitelist });
    const source = { driver: 'net', 'read-only': false };
    expect((await failureOf(graph.open(source))).message).toBe("Driver 'net' can only be used for read-only devices");
    const disk = await graph.open({ ...source, 'auto-read-only': true });
    expect(disk.node.writable).toBe(false);
    const none = { driver: 'raw', 'auto-read-only': true, 'read-only': false, file: { driver: 'file', filename: 'x' } };
    expect((await failureOf(graph.open(none))).message).toBe("Driver 'raw' is not whitelisted");
  });

  test('BL-DRV-8: a prefix can be that of a filter which has names of its own', async () => {
    expect(await layers('tap:x', { format: 'plain' })).toBe('plain tap file');
    expect(await failure('filter:x')).toEqual({ code: 'ENOENT', message: "Unknown protocol 'filter'" });
  });
});

describe('levels', () => {
  test('BL-OPEN-3: every opening makes a node', async () => {
    const graph = newGraph();
    const first = await graph.open('x', { format: 'raw' });
    const second = await graph.open('x', { format: 'raw' });
    expect(second.node).not.toBe(first.node);
    expect(graph.nodes().length).toBe(4);
  });

  test('BL-OPEN-4: of file names of a json: name, the members are explicit, and win over what is inherited', async () => {
    const graph = newGraph();
    const name = 'json:{"driver": "plain", "file": {"driver": "net", "read-only": true}}';
    const disk = await graph.open(name);
    expect(disk.node.child('file')?.node.origin.explicit).toMatchObject({ driver: 'net', 'read-only': true });
  });

  test('BL-OPEN-5: the driver decides the level, whoever asks', async () => {
    expect(await layers({ driver: 'file', filename: 'x' })).toBe('file');
    expect(await layers({ driver: 'plain', file: { driver: 'plain', file: { driver: 'net' } } })).toBe(
      'plain plain net',
    );
    expect(await failure({ driver: 'nope' })).toEqual({ code: 'ENOENT', message: "Unknown driver 'nope'" });
    expect(await failure({ driver: null })).toEqual({ code: 'EINVAL', message: 'Must specify either driver or file' });
  });

  test('BL-OPEN-6: a name becomes the option filename, and must not be given twice', async () => {
    const disk = await newGraph().open('x', { format: 'file' });
    expect([disk.format, { ...disk.node.options }]).toEqual(['file', { filename: 'x' }]);
    // Below the format level: the name of the file, and its own option.
    const parsing = { parseFilename: undefined };
    const twice = newGraph([named('net', parsing)]).open(
      'json:{"driver": "plain", "file": {"driver": "net", "filename": "a"}}',
    );
    expect((await twice).filename).toBe('a');
    const graph = newGraph();
    const both = openNode(graph, { filename: 'x', tree: { driver: 'net', filename: 'y' }, options: {} });
    expect(await failureOf(both)).toEqual({
      code: 'EINVAL',
      message: "Can't specify 'file' and 'filename' options at the same time",
    });
  });

  test('BL-OPEN-7: below a format the driver follows from the name, prefixes only where it came as a name', async () => {
    expect(await layers('net:x', { format: 'plain' })).toBe('plain net');
    expect(await layers({ driver: 'plain', file: { filename: 'net:x' } })).toBe('plain file');
    expect(await layers({ driver: 'plain', file: { driver: 'net', filename: 'net:x' } })).toBe('plain net');
    expect(await failure({ driver: 'plain', file: { 'read-only': true } })).toEqual({
      code: 'EINVAL',
      message: 'Must specify either driver or file',
    });
  });

  test('BL-OPEN-7: the choice is as good as given', async () => {
    const disk = await newGraph().open('net:x', { format: 'plain' });
    expect(disk.node.child('file')?.node.fullOptions).toMatchObject({ driver: 'net' });
  });

  test('BL-OPEN-8: an empty rest of a name is none', async () => {
    const parsing = {
      needsFilename: true,
      parseFilename: (name: string) => ({ filename: name.slice('file:'.length) }),
    };
    expect(await failure('file:', {}, newGraph([named('file', parsing)]))).toEqual({
      code: 'EINVAL',
      message: "The 'file' block driver requires a file name",
    });
  });

  test('BL-OPEN-10: the node keeps its options; the driver gets them parsed', async () => {
    let seen: unknown;
    const sized = defineProtocol({
      name: 'sized',
      summary: '',
      options: { size: option.size({ help: '', fallback: 0 }) },
      open: async ({ options }) => {
        seen = options;
        return new Storage(options.size).node();
      },
    });
    const disk = await newGraph([sized]).open({ driver: 'sized', size: '1k' });
    expect([seen, { ...disk.node.options }]).toEqual([{ size: 1024 }, { size: '1k' }]);
  });

  test('BL-OPEN-11: a format opens its file by the name given', async () => {
    expect(await layers('x', { format: 'raw' })).toBe('raw file');
    expect(await layers('x')).toBe('raw file');
    expect(await layers({ driver: 'filter', file: { filename: 'x' } })).toBe('filter file');
  });

  test('BL-OPEN-13: an empty file, or none, is raw without a look at it', async () => {
    const byName = defineFormat({ ...plainFormat, name: 'byname', probe: () => 100 });
    const empty = named('file', {}, new Storage(0));
    const drive = named('file', { open: async () => ({ ...new Storage(8192).node(), inserted: () => false }) });
    expect(await layers('x', {}, newGraph([byName]))).toBe('byname file');
    expect(await layers('x', {}, newGraph([byName, empty]))).toBe('raw file');
    expect(await layers('x', {}, newGraph([byName, drive]))).toBe('raw file');
  });

  test('BL-OPEN-15: scores', () => {
    const score = (name: string, head: Uint8Array) => {
      const driver = DRIVERS.find((each) => each.name === name);
      return driver?.kind === 'format' ? driver.probe?.(head, 'x') : undefined;
    };
    const head = new Uint8Array(512);
    expect([score('raw', head), score('vdi', head)]).toEqual([1, 0]);
    head.set([0x7f, 0x10, 0xda, 0xbe], 0x40);
    expect([score('raw', head), score('vdi', head)]).toEqual([1, 100]);
  });

  test('BL-OPEN-29: what is named like a protocol is called one', async () => {
    expect(await failure({ driver: 'tap', colour: 1, file: { driver: 'net' } })).toEqual({
      code: 'EINVAL',
      message: "Block protocol 'tap' doesn't support the option 'colour'",
    });
    expect(await failure({ driver: 'filter', colour: 1, file: { driver: 'net' } })).toEqual({
      code: 'EINVAL',
      message: "Block format 'filter' does not support the option 'colour'",
    });
  });
});

describe('modes', () => {
  test('BL-OPEN-21: a node is writable unless it is said not to be; backing images are read-only', async () => {
    const graph = newGraph();
    const source = { driver: 'naming', file: { driver: 'net' }, backing: { driver: 'net' } };
    const node = await graph.add(source);
    const writable = () => [node.writable, node.child('file')?.node.writable, node.backing?.node.writable];
    expect(writable()).toEqual([true, true, false]);
    const readOnly = await graph.add({ ...source, 'read-only': true });
    expect([readOnly.writable, readOnly.child('file')?.node.writable]).toEqual([false, false]);
    const promoted = await graph.add({ ...source, backing: { driver: 'net', 'read-only': false } });
    expect(promoted.backing?.node.writable).toBe(true);
  });

  test('BL-OPEN-27: without its backing file an image is opened, not those that it is stored in', async () => {
    const overlay = { driver: 'naming', file: { driver: 'net' }, names: '/below', format: 'raw' };
    const graph = newGraph();
    const depth = async (source: NestedOptions) => {
      await using _disk = await graph.open(source, { noBacking: true });
      return graph.nodes().length;
    };
    expect(await depth(overlay)).toBe(2);
    expect(await depth({ driver: 'plain', file: overlay })).toBe(5);
  });

  test('BL-OPEN-29: options of a backing file that is left out are as unknown as others', async () => {
    const source = { driver: 'naming', file: { driver: 'net' }, backing: { driver: 'net' } };
    expect(await failure(source, { noBacking: true })).toEqual({
      code: 'EINVAL',
      message: "Block format 'naming' does not support the option 'backing.driver'",
    });
  });

  test('BL-OPEN-22: what offers only reading is refused to a writer, unless it may degrade', async () => {
    const storage = new Storage(512);
    storage.readOnly = true;
    const graph = newGraph([named('ro', {}, storage)]);
    expect(await failureOf(graph.add({ driver: 'ro' }))).toEqual({ code: 'EACCES', message: 'Image is read-only' });
    expect((await graph.add({ driver: 'ro', 'auto-read-only': true })).writable).toBe(false);
    expect((await graph.add({ driver: 'ro', 'read-only': true })).writable).toBe(false);
  });
});

describe('lengths', () => {
  test('BL-SIZE-1, BL-OPEN-18: the length is asked for once the driver is open', async () => {
    const length = (value: () => number) =>
      named('odd', { open: async () => ({ ...new Storage(0).node(), length: value }) });
    const text = 'Could not refresh total sector count';
    for (const tooLong of [2 ** 63, Number.MAX_SAFE_INTEGER + 1]) {
      const graph = newGraph([length(() => tooLong)]);
      expect(await failure({ driver: 'odd' }, {}, graph)).toEqual({
        code: 'EFBIG',
        message: `${text}: File too large`,
      });
      expect(graph.nodes()).toEqual([]);
    }
    const failing = length(() => {
      throw Object.assign(new RangeError('no'), { code: 'EIO' });
    });
    expect(await failure({ driver: 'odd' }, {}, newGraph([failing]))).toEqual({
      code: 'EIO',
      message: `${text}: Input/output error`,
    });
  });

  test('BL-SIZE-2: a length that changes by itself is asked for anew', async () => {
    const storage = new Storage(8192);
    const disk = await newGraph([named('growing', {}, storage)]).open({ driver: 'plain', file: { driver: 'growing' } });
    expect(disk.length).toBe(8192);
    storage.bytes = new Uint8Array(9216);
    expect(disk.length).toBe(9216);
    expect((await disk.read(9215, 1)).length).toBe(1);
  });

  test('BL-INFO-5: zeroes free storage where the driver can, the user asks for it, and the nodes below let it', async () => {
    const storage = new Storage(8192);
    const graph = newGraph([named('store', {}, storage)]);
    const zeroed = async (tree: NestedOptions, unmap: boolean) => {
      const disk = await graph.open(tree, { writable: true });
      storage.calls.length = 0;
      await disk.writeZeroes(0, 512, { unmap });
      await disk.close();
      return storage.story.filter((line) => line.startsWith('zero'));
    };
    for (const discard of ['unmap', 'ignore']) {
      expect(await zeroed({ driver: 'store', discard }, true)).toEqual(['zero 0+512 unmap']);
      expect(await zeroed({ driver: 'store', discard }, false)).toEqual(['zero 0+512']);
      const over = (below: string) => ({ driver: 'plain', discard, file: { driver: 'store', discard: below } });
      expect(await zeroed(over('unmap'), true)).toEqual(['zero 0+512 unmap']);
      expect(await zeroed(over('ignore'), true)).toEqual(['zero 0+512']);
    }
  });
});
