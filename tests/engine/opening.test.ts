/** Opening: BL-DRV, BL-OPEN, with the wordings of the rules. */
import { describe, expect, test } from 'vitest';
import type { OpenOptions } from '../../src/core/disk.ts';
import { type DriverSpec, defineFormat, defineProtocol } from '../../src/core/driver.ts';
import { BlockError } from '../../src/core/errors.ts';
import { Graph } from '../../src/core/graph.ts';
import { type NestedOptions, option } from '../../src/core/options.ts';
import { raw } from '../../src/formats/raw.ts';
import { SimHost } from '../../src/testing/index.ts';
import { failing, failureOf, graphOf, plainFormat, Storage, storageProtocol } from './storage.ts';

/** A stand-in for the protocol that names without a prefix go to. */
function named(storage: Storage, name: string, more: object = {}): DriverSpec {
  return { ...storageProtocol(storage, name), ...more } as DriverSpec;
}

function files(storage = new Storage(8192), more: object = {}): DriverSpec {
  return named(storage, 'file', { needsFilename: true, ...more });
}

/** A format that knows its images by a first byte. */
function marked(name: string, mark: number, score: number): DriverSpec {
  return { ...plainFormat, name, probe: (head: Uint8Array) => (head[0] === mark ? score : 0) };
}

function failure(graph: Graph, source: string | NestedOptions, options: OpenOptions = {}) {
  return failureOf(graph.open(source, options));
}

describe('drivers', () => {
  test('BL-DRV-1: of two drivers of one name the newer is found', async () => {
    const older = new Storage(1000);
    const newer = new Storage(2000);
    const disk = await graphOf([storageProtocol(older), storageProtocol(newer)]).open({ driver: 'store' });
    expect(disk.length).toBe(2000);
  });

  test('BL-DRV-2: names are exact', async () => {
    const graph = graphOf([storageProtocol(new Storage(10))]);
    expect(await failure(graph, { driver: 'Store' })).toEqual({ code: 'ENOENT', message: "Unknown driver 'Store'" });
  });

  test('BL-DRV-4, BL-DRV-5: whitelists', async () => {
    const whitelist = { readWrite: ['store'], readOnly: ['plain'] };
    const graph = graphOf([storageProtocol(new Storage(512)), plainFormat, raw], { whitelist });
    const tree = (driver: string) => ({ driver, file: { driver: 'store' } });
    await (await graph.open({ driver: 'store' }, { writable: true })).close();
    await (await graph.open(tree('plain'))).close();
    expect(await failure(graph, tree('plain'), { writable: true })).toEqual({
      code: 'ENOTSUP',
      message: "Driver 'plain' can only be used for read-only devices",
    });
    expect(await failure(graph, tree('raw'))).toEqual({
      code: 'ENOTSUP',
      message: "Driver 'raw' is not whitelisted",
    });
    expect(graph.nodes()).toEqual([]);
  });

  test('BL-DRV-6: names of formats, each once, sorted by bytes', () => {
    const drivers = ['b', 'a', 'a', 'B'].map((name) => ({ ...plainFormat, name }));
    expect(graphOf(drivers).driverNames()).toEqual(['B', 'a', 'b']);
    const whitelist = { readWrite: ['a'], readOnly: ['b'] };
    expect(graphOf(drivers, { whitelist }).driverNames()).toEqual(['a', 'b']);
    expect(graphOf(drivers, { whitelist }).driverNames({ writable: true })).toEqual(['a']);
  });

  test('BL-DRV-7, BL-DRV-8: devices first, then prefixes, else file; unknown prefixes are refused', async () => {
    const device = named(new Storage(3000), 'device', {
      probeDevice: async (name: string) => (name.startsWith('/dev/a:') ? 50 : 0),
    });
    const better = named(new Storage(4000), 'better', {
      probeDevice: async (name: string) => (name === '/dev/a:b' ? 100 : 0),
    });
    const graph = graphOf([files(new Storage(1024)), named(new Storage(2000), 'net'), device, better, raw]);
    const length = async (name: string) => {
      const disk = await graph.open(name, { format: 'raw' });
      await disk.close();
      return disk.length;
    };
    expect(await length('/dev/a:b')).toBe(4096);
    expect(await length('/dev/a:c')).toBe(3072);
    expect(await length('net:x')).toBe(2048);
    expect(await length('x')).toBe(1024);
    expect(await length('./net:x')).toBe(1024);
    expect(await failure(graph, 'nope:x')).toEqual({ code: 'ENOENT', message: "Unknown protocol 'nope'" });
    expect(await failure(graph, 'raw:x')).toEqual({ code: 'ENOENT', message: "Unknown protocol 'raw'" });
  });
});

describe('options and names', () => {
  test('BL-OPEN-1, BL-OPEN-17: nothing to open', async () => {
    const graph = graphOf([files(), plainFormat]);
    const message = 'Must specify either driver or file';
    expect(await failure(graph, {})).toEqual({ code: 'EINVAL', message });
    expect(await failure(graph, { file: { 'read-only': true } })).toEqual({ code: 'EINVAL', message });
  });

  test('BL-OPEN-2: a reference takes no options beside it and must be there', async () => {
    const graph = graphOf([storageProtocol(new Storage(512)), plainFormat]);
    const disk = await graph.open({ driver: 'store' }, { nodeName: 'below' });
    const upper = await graph.open({ driver: 'plain', file: 'below' });
    expect(graph.nodes().length).toBe(2);
    await disk.close();
    expect((await upper.read(0, 1)).length).toBe(1);
    await upper.close();
    expect(graph.nodes()).toEqual([]);
    expect(await failure(graph, { driver: 'plain', file: 'below' })).toEqual({
      code: 'ENODEV',
      message: "Cannot find device='below' nor node-name='below'",
    });
    expect(await failure(graph, { driver: 'plain', file: 'below', 'file.driver': 'store' })).toEqual({
      code: 'EINVAL',
      message: 'Cannot reference an existing block device with additional options or a new filename',
    });
  });

  test('BL-OPEN-4: given options win over those of a json: name, which win over the flags', async () => {
    const graph = graphOf([files(), named(new Storage(512), 'net'), plainFormat, raw]);
    const disk = await graph.open('json:{"driver": "plain", "file": {"driver": "net"}}', { format: 'raw' });
    expect(disk.format).toBe('raw');
    await disk.close();
    const readOnly = await graph.open({ driver: 'plain', 'read-only': 'on', file: { driver: 'net' } });
    expect(readOnly.writable).toBe(false);
    await readOnly.close();
    const refused = { driver: 'plain', 'read-only': true, file: { driver: 'net' } };
    expect(await failure(graph, refused, { writable: true })).toEqual({
      code: 'EPERM',
      message: 'Block node is read-only',
    });
    expect(graph.nodes()).toEqual([]);
  });

  test('BL-OPEN-18: the file of a format too needs its name', async () => {
    const graph = graphOf([files(), raw]);
    expect(await failure(graph, 'json:{"driver": "raw", "file": {"driver": "file"}}')).toEqual({
      code: 'EINVAL',
      message: "The 'file' block driver requires a file name",
    });
  });

  test('BL-OPEN-8: a driver that parses names gets the name, and options instead of it', async () => {
    let seen: unknown;
    const parsing = defineProtocol({
      name: 'net',
      summary: '',
      options: {
        host: option.text<string | undefined>({ help: '', fallback: undefined }),
        filename: option.text<string | undefined>({ help: '', fallback: undefined }),
      },
      parseFilename: (name) => ({ host: name.slice(4) }),
      open: async ({ options }) => {
        seen = options;
        return new Storage(512).node();
      },
    });
    await graphOf([parsing, raw]).open('net:there', { format: 'raw' });
    expect(seen).toEqual({ host: 'there', filename: undefined });
  });

  test('BL-OPEN-12: no file for a format', async () => {
    const graph = graphOf([files(), plainFormat]);
    expect(await failure(graph, { driver: 'plain' })).toEqual({
      code: 'EINVAL',
      message: 'A block device must be specified for "file"',
    });
  });

  test('BL-OPEN-18: a driver that needs a name gets none, or an empty one', async () => {
    const graph = graphOf([files()]);
    const message = "The 'file' block driver requires a file name";
    expect(await failure(graph, { driver: 'file' })).toEqual({ code: 'EINVAL', message });
    expect(await failure(graph, { driver: 'file', filename: '' })).toEqual({ code: 'EINVAL', message });
  });

  test('BL-OPEN-19: a failure that is only an errno is told with the name', async () => {
    const broken = named(new Storage(512), 'net', { open: failing('EACCES'), needsFilename: false });
    const graph = graphOf([broken]);
    expect(await failure(graph, { driver: 'net', filename: 'x' })).toEqual({
      code: 'EACCES',
      message: "Could not open 'x': Permission denied",
    });
    expect(await failure(graph, { driver: 'net' })).toEqual({
      code: 'EACCES',
      message: 'Could not open image: Permission denied',
    });
    const worded = named(new Storage(512), 'net', {
      open: () => Promise.reject(new BlockError('EINVAL', 'Own words')),
    });
    expect(await failure(graphOf([worded]), { driver: 'net' })).toEqual({ code: 'EINVAL', message: 'Own words' });
  });

  test('BL-OPEN-20: node names', async () => {
    const graph = graphOf([storageProtocol(new Storage(512))]);
    const named = (nodeName: string) => failureOf(graph.open({ driver: 'store' }, { nodeName }));
    for (const bad of ['', '1a', '-a', 'a b', 'a#', 'ä', 'a/b']) {
      expect(await named(bad)).toEqual({ code: 'EINVAL', message: `Invalid node-name: '${bad}'` });
    }
    const disk = await graph.open({ driver: 'store', 'node-name': 'a.b-c_9' });
    expect(disk.nodeName).toBe('a.b-c_9');
    expect(await named('a.b-c_9')).toEqual({
      code: 'EINVAL',
      message: "Duplicate nodes with node-name='a.b-c_9'",
    });
    expect(await named('x'.repeat(32))).toEqual({ code: 'EINVAL', message: 'Node name too long' });
    await (await graph.open({ driver: 'store' }, { nodeName: 'x'.repeat(31) })).close();
    const first = await graph.open({ driver: 'store' });
    const second = await graph.open({ driver: 'store' });
    expect(first.nodeName).toMatch(/^#block\d+\d\d$/);
    expect(second.nodeName).not.toBe(first.nodeName);
    await disk.close();
    await (await graph.open({ driver: 'store' }, { nodeName: 'a.b-c_9' })).close();
  });

  test('BL-OPEN-22: auto-read-only degrades what can only be read; without it that is refused', async () => {
    const storage = new Storage(512);
    storage.readOnly = true;
    const graph = graphOf([storageProtocol(storage), plainFormat]);
    const tree = { driver: 'plain', 'read-only': false, file: { driver: 'store' } };
    expect(await failure(graph, tree)).toEqual({ code: 'EACCES', message: 'Image is read-only' });
    const disk = await graph.open({ ...tree, 'auto-read-only': true });
    expect(disk.node.writable).toBe(false);
    await disk.close();
    // Whoever wants to write is refused all the same.
    expect(await failure(graph, { ...tree, 'auto-read-only': true }, { writable: true })).toEqual({
      code: 'EPERM',
      message: 'Block node is read-only',
    });
    expect(graph.nodes()).toEqual([]);
  });

  test('BL-OPEN-22: not while copy-on-read is active, which must write', async () => {
    const storage = new Storage(512);
    storage.readOnly = true;
    const graph = graphOf([storageProtocol(storage), plainFormat]);
    const tree = { driver: 'plain', 'read-only': false, 'auto-read-only': true, file: { driver: 'store' } };
    const refusal = { code: 'EACCES', message: 'Image is read-only' };
    expect(await failure(graph, tree, { copyOnRead: true })).toEqual(refusal);
    expect(await failure(graph, { ...tree, driver: 'store', file: undefined }, { copyOnRead: true })).toEqual(refusal);
    expect(graph.nodes()).toEqual([]);
  });

  test('BL-OPEN-23: sharing by force is for readers', async () => {
    const graph = graphOf([storageProtocol(new Storage(512))]);
    expect(await failure(graph, { driver: 'store' }, { writable: true, forceShare: true })).toEqual({
      code: 'EINVAL',
      message: 'force-share=on can only be used with read-only images',
    });
  });

  test('BL-OPEN-25, BL-OPEN-26: modes', async () => {
    const graph = graphOf([storageProtocol(new Storage(512))]);
    expect(await failure(graph, { driver: 'store' }, { cache: 'fast' as 'none' })).toEqual({
      code: 'EINVAL',
      message: 'Invalid cache option: fast',
    });
    expect(await failure(graph, { driver: 'store', discard: 'maybe' })).toEqual({
      code: 'EINVAL',
      message: 'Invalid discard option',
    });
    expect(await failure(graph, { driver: 'store', 'detect-zeroes': 'unmap', discard: 'off' })).toEqual({
      code: 'EINVAL',
      message: 'setting detect-zeroes to unmap is not allowed without setting discard operation to unmap',
    });
    for (const discard of ['on', 'off', 'unmap', 'ignore']) {
      await (await graph.open({ driver: 'store', discard })).close();
    }
  });

  test('BL-OPEN-27: cache.direct and read-only come down to the file, unless it has its own', async () => {
    const graph = graphOf([storageProtocol(new Storage(512)), plainFormat]);
    const settings = async (tree: NestedOptions, options: OpenOptions = {}) => {
      const disk = await graph.open({ driver: 'plain', ...tree }, options);
      const { readOnly, cache, discard, detectZeroes } = disk.node.child('file')?.node.settings ?? {};
      await disk.close();
      return {
        readOnly,
        direct: cache?.direct,
        noFlush: cache?.noFlush,
        writeBack: cache?.writeBack,
        discard,
        detectZeroes,
      };
    };
    const file = { driver: 'store' };
    expect(await settings({ file }, { cache: 'directsync', discard: 'ignore', detectZeroes: 'on' })).toEqual({
      readOnly: true,
      direct: true,
      noFlush: false,
      writeBack: true,
      discard: 'unmap',
      detectZeroes: 'off',
    });
    expect(
      await settings({ file: { ...file, cache: { direct: false } } }, { cache: 'none', writable: true }),
    ).toMatchObject({ readOnly: false, direct: false });
    expect(await settings({ 'cache.no-flush': 'on', file })).toMatchObject({ noFlush: true });
  });

  test('BL-OPEN-29: options that nobody understood, the first of them', async () => {
    const graph = graphOf([storageProtocol(new Storage(512)), plainFormat]);
    expect(await failure(graph, { driver: 'store', colour: 'red', size: 1 })).toEqual({
      code: 'EINVAL',
      message: "Block protocol 'store' doesn't support the option 'colour'",
    });
    expect(await failure(graph, { driver: 'plain', file: { driver: 'store' }, colour: 'red' })).toEqual({
      code: 'EINVAL',
      message: "Block format 'plain' does not support the option 'colour'",
    });
    expect(graph.nodes()).toEqual([]);
  });

  test('BL-OPEN-31: a failure undoes everything, the node name too', async () => {
    const storage = new Storage(512);
    const refusing = defineFormat({ name: 'bad', summary: '', options: {}, open: failing('EINVAL') });
    const graph = graphOf([storageProtocol(storage), refusing]);
    await failure(graph, { driver: 'bad', file: { driver: 'store', 'node-name': 'x' } }, { nodeName: 'top' });
    expect(graph.nodes()).toEqual([]);
    expect(storage.story).toEqual(['close']);
  });

  test('nodes one below the other have a limit', async () => {
    let tree: NestedOptions = { driver: 'store' };
    for (let i = 0; i < 20; i++) tree = { driver: 'plain', file: tree };
    const graph = graphOf([storageProtocol(new Storage(512)), plainFormat]);
    expect((await failure(graph, tree)).code).toBe('ELOOP');
    expect(graph.nodes()).toEqual([]);
  });

  test('an abort before or while opening leaves nothing open', async () => {
    const storage = new Storage(512);
    const aborter = new AbortController();
    const slow = defineFormat({
      name: 'slow',
      summary: '',
      options: {},
      async open(context) {
        aborter.abort(new BlockError('ECANCELED', 'enough'));
        return plainFormat.open(context as never);
      },
    });
    const graph = graphOf([storageProtocol(storage), slow]);
    const tree = { driver: 'slow', file: { driver: 'store' } };
    expect((await failure(graph, tree, { signal: aborter.signal })).message).toBe('enough');
    expect((await failure(graph, tree, { signal: aborter.signal })).message).toBe('enough');
    expect(graph.nodes()).toEqual([]);
    expect(storage.story).toEqual(['close']);
  });
});

describe('probing', () => {
  async function probed(first: number, drivers: DriverSpec[], length = 8192): Promise<string> {
    const storage = new Storage(length);
    if (length > 0) storage.bytes[0] = first;
    const disk = await graphOf([files(storage), ...drivers]).open('x');
    await disk.close();
    return disk.format;
  }

  test('BL-OPEN-14: the highest score wins, ties go to the newest', async () => {
    const drivers = [raw, marked('a', 7, 50), marked('b', 7, 100), marked('c', 7, 100), marked('d', 7, 20)];
    expect(await probed(7, drivers)).toBe('c');
    expect(await probed(6, drivers)).toBe('raw');
  });

  test('BL-OPEN-13: 512 bytes are read, zero-padded; an empty file is raw without reading', async () => {
    const heads: number[] = [];
    const watching = {
      ...plainFormat,
      name: 'watching',
      probe: (head: Uint8Array) => {
        heads.push(head.length);
        return 0;
      },
    };
    expect(await probed(1, [raw, watching], 100)).toBe('raw');
    expect(await probed(1, [raw, watching], 10)).toBe('raw');
    expect(await probed(1, [raw, watching], 0)).toBe('raw');
    expect(new Set(heads)).toEqual(new Set([512]));
  });

  test('BL-OPEN-14: no format', async () => {
    expect(await failure(graphOf([files(), marked('a', 7, 1)]), 'x')).toEqual({
      code: 'ENOENT',
      message: 'Could not determine image format: No compatible driver found',
    });
  });

  test('BL-OPEN-13: a file that cannot be read', async () => {
    const storage = new Storage(512);
    storage.before = ({ kind }) => (kind === 'read' ? failing('EIO')() : undefined);
    expect(await failure(graphOf([files(storage), raw]), 'x')).toEqual({
      code: 'EIO',
      message: 'Could not read image for determining its format: Input/output error',
    });
  });

  test('BL-OPEN-14: the probe gets the name', async () => {
    const byName = { ...plainFormat, name: 'byname', probe: (_: Uint8Array, name: string) => (name === 'x' ? 2 : 0) };
    expect(await probed(0, [raw, byName])).toBe('byname');
  });

  describe('BL-OPEN-16: a guessed raw image', () => {
    async function guessed(options: OpenOptions) {
      const storage = new Storage(8192);
      const host = new SimHost();
      const graph = new Graph({ host, drivers: [files(storage), raw, marked('a', 7, 100)] });
      return { storage, host, disk: await graph.open('x.raw', options) };
    }

    test('is warned of when writable, to the letter', async () => {
      const { host } = await guessed({ writable: true });
      expect(host.warnings).toEqual([
        "WARNING: Image format was not specified for 'x.raw' and probing guessed raw.\n" +
          '         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.\n' +
          "         Specify the 'raw' format explicitly to remove the restrictions.",
      ]);
      expect((await guessed({})).host.warnings).toEqual([]);
      expect((await guessed({ writable: true, format: 'raw' })).host.warnings).toEqual([]);
    });

    test('refuses writes that would make it probe as something else', async () => {
      const { storage, disk } = await guessed({ writable: true });
      const bad = new Uint8Array(1024).fill(7);
      const refused = { code: 'EPERM', message: 'Operation not permitted' };
      expect(await failureOf(disk.write(0, bad))).toEqual(refused);
      expect(await failureOf(disk.write(0, bad.subarray(0, 1)))).toEqual(refused);
      expect(disk.tryWriteNow(0, bad)).toBe(false);
      await disk.write(1, bad);
      await disk.write(512, bad);
      await disk.write(0, new Uint8Array(1024).fill(8));
      expect(storage.bytes[0]).toBe(8);
      expect(disk.limits.requestAlign).toBe(512);
    });

    test('takes anything when the format was given', async () => {
      const { disk } = await guessed({ writable: true, format: 'raw' });
      await disk.write(0, new Uint8Array(1024).fill(7));
      expect(disk.limits.requestAlign).toBe(1);
    });
  });
});
