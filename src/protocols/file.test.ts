import { describe, expect, test } from 'vitest';
import { copyRange } from '../core/copy-range.ts';
import { createImage } from '../core/create.ts';
import { Graph } from '../core/graph.ts';
import type { NestedOptions } from '../core/options.ts';
import * as request from '../core/request.ts';
import { raw } from '../formats/raw.ts';
import { SimHost } from '../testing/index.ts';
import { file, hostDevice } from './file.ts';

const PATH = '/disk.raw';
const KIB = 1024;

const graphOn = (host: SimHost) => new Graph({ host, drivers: [file, hostDevice, raw] });
const filled = (length: number) => new Uint8Array(length).fill(7);

function hostWith(content: Uint8Array | number, options: ConstructorParameters<typeof SimHost>[0] = {}): SimHost {
  const host = new SimHost(options);
  host.put(PATH, content);
  return host;
}

function openFile(host: SimHost, more: NestedOptions = {}, writable = true) {
  return graphOn(host).open({ driver: 'file', filename: PATH, ...more }, { writable });
}

describe('names', () => {
  test.each([
    ['disk.raw', 'disk.raw'],
    ['file:disk.raw', 'disk.raw'],
    ['file:a:b', './a:b'],
    ['file:file:x', './file:x'],
  ])('%s is the file %s (BL-NAME-9)', (name, filename) => {
    expect(file.parseFilename?.(name)).toEqual({ filename });
  });

  test('host_device takes its own prefix off', () => {
    expect(hostDevice.parseFilename?.('host_device:/dev/sda')).toEqual({ filename: '/dev/sda' });
  });

  test('devices are recognised by what they are, /dev/cdrom by its name (BL-DRV-7)', async () => {
    const host = new SimHost();
    host.put('/dev/sda', 4096, { kind: 'block' });
    host.put('/dev/zero', 0, { kind: 'character' });
    host.put('/dev/a:b', 4096, { kind: 'block' });
    host.put(PATH, 4096);
    const score = (name: string) => hostDevice.probeDevice?.(name, host);
    expect(await Promise.all(['/dev/sda', '/dev/zero', '/dev/a:b', '/dev/cdrom1', PATH, '/none'].map(score))).toEqual([
      100, 100, 100, 50, 0, 0,
    ]);
  });
});

describe('opening', () => {
  test.each<[NestedOptions, string]>([
    [{ driver: 'file', filename: '/none' }, "Could not open '/none': No such file or directory"],
    [{ driver: 'file', filename: '/dev/sda' }, "'file' driver requires '/dev/sda' to be a regular file"],
    [{ driver: 'file', filename: '/pipe' }, "'file' driver requires '/pipe' to be a regular file"],
    [
      { driver: 'host_device', filename: PATH },
      `'host_device' driver requires '${PATH}' to be either a character or block device`,
    ],
    [{ driver: 'file' }, "The 'file' block driver requires a file name"],
    [{ driver: 'file', filename: PATH, locking: 'foo' }, 'invalid parameter value: foo'],
    [{ driver: 'file', filename: PATH, aio: 'foo' }, 'invalid parameter value: foo'],
    [
      { driver: 'file', filename: PATH, aio: 'native' },
      'aio=native was specified, but it requires cache.direct=on, which was not specified.',
    ],
    [{ driver: 'file', filename: PATH, 'drop-cache': 'foo' }, "Parameter 'drop-cache' expects 'on' or 'off'"],
    [{ driver: 'file', filename: PATH, foo: 1 }, "Block protocol 'file' doesn't support the option 'foo'"],
  ])('%j is refused: %s', async (tree, message) => {
    const host = hostWith(4096);
    host.put('/dev/sda', 4096, { kind: 'block' });
    host.put('/pipe', 0, { kind: 'pipe' });
    await expect(graphOn(host).open(tree)).rejects.toMatchObject({ message });
    expect(host.openFiles).toEqual([]);
  });

  test('aio=native is fine past the cache, and io_uring always', async () => {
    await (await openFile(hostWith(4096), { aio: 'native', 'cache.direct': true })).close();
    await (await openFile(hostWith(4096), { aio: 'io_uring' })).close();
  });

  test('aio=threads takes no fast path', async () => {
    await using slow = await openFile(hostWith(4096), { aio: 'threads' });
    expect(slow.tryReadNow(0, new Uint8Array(512))).toBe(false);
    await using fast = await openFile(hostWith(4096));
    expect(fast.tryReadNow(0, new Uint8Array(512))).toBe(true);
  });

  test('what may not be written is EACCES, or only read if that is allowed (BL-OPEN-22)', async () => {
    const host = new SimHost();
    host.put(PATH, 4096, { readOnly: true });
    await expect(openFile(host)).rejects.toMatchObject({
      code: 'EACCES',
      message: `Could not open '${PATH}': Permission denied`,
    });
    const context = {
      options: { filename: PATH, locking: 'auto', aio: 'auto', 'drop-cache': true, 'x-check-cache-dropped': false },
      host,
      hostContext: undefined,
      node: 'n',
      child: () => undefined,
      event: () => undefined,
      track() {},
      eventsHeard: () => false,
      openNamed: async () => {},
      writable: true,
      autoReadOnly: true,
      inactive: false,
      namedByImage: false,
      backingGiven: false,
      childInfo: () => undefined,
      noIO: false,
      checkOnly: false,
      salvage: false,
      cache: { writeBack: true, direct: false, noFlush: false },
      discard: 'ignore' as const,
      signal: undefined,
    } as const;
    const node = await file.open({
      ...context,
      get file(): never {
        throw new TypeError('none');
      },
    });
    expect(node.readOnly).toBe(true);
    await node.close?.();
    expect(host.openFiles).toEqual([]);
  });
});

describe('zeroes', () => {
  test('inside the file keep their storage, or free it when allowed', async () => {
    await using disk = await openFile(hostWith(filled(64 * KIB)));
    await disk.writeZeroes(0, 16 * KIB);
    expect(disk.allocatedSize()).toBe(64 * KIB);
    await disk.writeZeroes(0, 32 * KIB, { unmap: true });
    expect(disk.allocatedSize()).toBe(32 * KIB);
    expect((await disk.read(0, 32 * KIB)).every((byte) => byte === 0)).toBe(true);
    expect(await disk.read(32 * KIB, 32 * KIB)).toEqual(filled(32 * KIB));
  });

  test('past the end make it longer, and store next to nothing', async () => {
    const host = hostWith(filled(6 * KIB));
    const graph = graphOn(host);
    await using disk = await graph.open({ driver: 'file', filename: PATH }, { writable: true });
    await request.writeZeroes(disk.node, 2 * KIB, 1024 * KIB, {});
    expect(disk.length).toBe(1026 * KIB);
    expect(disk.allocatedSize()).toBeLessThanOrEqual(16 * KIB);
    const content = await disk.read(0, 1026 * KIB);
    expect(content.subarray(0, 2 * KIB)).toEqual(filled(2 * KIB));
    expect(content.subarray(2 * KIB).every((byte) => byte === 0)).toBe(true);
  });

  test('never cut off what another request has written behind them meanwhile', async () => {
    const host = hostWith(filled(4 * KIB), { latency: { min: 1, max: 9 }, seed: 3 });
    await using disk = await openFile(host);
    const far = disk.node.impl.write?.(1024 * KIB, filled(4 * KIB), {});
    await disk.node.impl.writeZeroes?.(4 * KIB, 64 * KIB, { unmap: true });
    await far;
    expect(disk.length).toBe(1028 * KIB);
    expect(await disk.read(1024 * KIB, 4 * KIB)).toEqual(filled(4 * KIB));
  });

  test('without zero ranges storage is freed and reserved anew', async () => {
    const host = hostWith(filled(64 * KIB), { missing: ['zeroRange'] });
    await using disk = await openFile(host);
    await disk.writeZeroes(0, 64 * KIB);
    expect(disk.allocatedSize()).toBe(64 * KIB);
    expect((await disk.read(0, 64 * KIB)).every((byte) => byte === 0)).toBe(true);
  });

  test('without any of it they are written, and what is missing is noted once', async () => {
    const host = hostWith(filled(64 * KIB), { missing: ['zeroRange', 'punchHole', 'allocate'] });
    await using disk = await openFile(host);
    await disk.writeZeroes(0, 16 * KIB, { unmap: true });
    await disk.writeZeroes(16 * KIB, 16 * KIB);
    await disk.discard(0, 64 * KIB);
    expect((await disk.read(0, 32 * KIB)).every((byte) => byte === 0)).toBe(true);
    expect(await disk.read(32 * KIB, 32 * KIB)).toEqual(filled(32 * KIB));
    expect(host.notices.filter((text) => text.includes('make holes'))).toHaveLength(1);
    expect(host.notices.filter((text) => text.includes('zero ranges'))).toHaveLength(1);
    await expect(request.writeZeroes(disk.node, 0, 4096, { noFallback: true })).rejects.toMatchObject({
      code: 'ENOTSUP',
    });
  });
});

describe('discard and status', () => {
  test('a discarded range is a hole: zero, at its place', async () => {
    await using disk = await openFile(hostWith(filled(64 * KIB)));
    await disk.discard(16 * KIB, 16 * KIB);
    expect(await disk.status(0, 64 * KIB)).toMatchObject({ length: 16 * KIB, data: true, zero: false });
    expect(disk.tryStatusNow(16 * KIB, 48 * KIB)).toMatchObject({
      length: 16 * KIB,
      data: false,
      zero: true,
      at: { filename: PATH, offset: 16 * KIB },
    });
  });
});

describe('resizing', () => {
  test.each([
    [{ preallocation: 'metadata' }, 128, 'Unsupported preallocation mode: metadata'],
    [{ preallocation: 'falloc' }, 32, 'Cannot use preallocation for shrinking files'],
  ] as const)('%j to %i KiB is refused: %s', async (options, size, message) => {
    await using disk = await openFile(hostWith(filled(64 * KIB)));
    await expect(request.truncate(disk.node, size * KIB, options)).rejects.toMatchObject({ code: 'ENOTSUP', message });
    expect(disk.length).toBe(64 * KIB);
  });

  test.each(['falloc', 'full'] as const)('%s reserves what is added', async (preallocation) => {
    await using disk = await openFile(hostWith(filled(64 * KIB)));
    await request.truncate(disk.node, 3000 * KIB, { preallocation });
    expect([disk.length, disk.allocatedSize()]).toEqual([3000 * KIB, 3000 * KIB]);
    expect(await disk.read(0, 64 * KIB)).toEqual(filled(64 * KIB));
  });

  test.each([
    ['falloc', 'Could not preallocate new data: No space left on device'],
    ['full', 'Could not write zeros for preallocation: No space left on device'],
  ] as const)('%s without room fails, and the size is as before: %s', async (preallocation, message) => {
    await using disk = await openFile(hostWith(filled(64 * KIB), { capacity: 256 * KIB }));
    await expect(request.truncate(disk.node, 3000 * KIB, { preallocation })).rejects.toMatchObject({ message });
    expect([disk.length, disk.allocatedSize()]).toEqual([64 * KIB, 64 * KIB]);
  });

  test('a size no file can have is refused before the storage is full', async () => {
    const host = hostWith(filled(64 * KIB));
    host.faults.inject({ operation: 'truncate', code: 'EFBIG', times: 1 });
    await using disk = await openFile(host);
    await expect(request.truncate(disk.node, 3000 * KIB, { preallocation: 'full' })).rejects.toMatchObject({
      code: 'EFBIG',
      message: 'Could not resize file: File too large',
    });
    expect([disk.length, disk.allocatedSize()]).toEqual([64 * KIB, 64 * KIB]);
  });

  test('falloc writes zeroes where the host cannot reserve', async () => {
    await using disk = await openFile(hostWith(0, { missing: ['allocate'] }));
    await request.truncate(disk.node, 100 * KIB, { preallocation: 'falloc' });
    expect(disk.allocatedSize()).toBe(100 * KIB);
  });

  test('a device keeps its size', async () => {
    const host = new SimHost();
    host.put('/dev/sda', 64 * KIB, { kind: 'block' });
    await using disk = await graphOn(host).open({ driver: 'host_device', filename: '/dev/sda' }, { writable: true });
    const resize = (size: number, options = {}) => request.truncate(disk.node, size * KIB, options);
    await resize(32);
    await resize(64, { exact: true });
    await expect(resize(32, { exact: true })).rejects.toThrow(/^Cannot resize device files$/);
    await expect(resize(128)).rejects.toThrow(/^Cannot grow device files$/);
    await expect(resize(128, { preallocation: 'falloc' })).rejects.toThrow(
      /^Preallocation mode 'falloc' unsupported for this non-regular file$/,
    );
    expect(disk.length).toBe(64 * KIB);
  });
});

describe('locks', () => {
  const LOCKED = { code: 'EAGAIN', hint: `Is another process using the image [${PATH}]?` };

  /** Another process's shared locks, as bytes. */
  async function others(host: SimHost, bytes: readonly number[]) {
    const other = await host.files.open(PATH, { write: true });
    for (const byte of bytes) expect(other.lock('shared', byte, 1)).toBe(true);
    return other;
  }

  test.each([
    ['a writer that shares nothing', [100, 101, 103, 201, 203], true, 'Failed to get "write" lock'],
    ['a reader that shares no writing', [100, 201, 203], true, 'Failed to get "write" lock'],
    ['one that shares no reading', [200], false, 'Failed to get "consistent read" lock'],
  ])('%s keeps us away (BL-PERM-7)', async (_who, bytes, writable, message) => {
    const host = hostWith(4096);
    const other = await others(host, bytes);
    await expect(openFile(host, {}, writable)).rejects.toMatchObject({ ...LOCKED, message });
    await other.close();
    await (await openFile(host, {}, writable)).close();
    expect(host.openFiles).toEqual([]);
  });

  test('a refused change leaves what was held; a granted one drops what is no longer needed', async () => {
    const host = hostWith(4096);
    const other = await host.files.open(PATH, { write: true });
    const held = () => [100, 101, 102, 103, 200, 201, 202, 203].filter((byte) => other.isLocked('exclusive', byte, 1));
    await using disk = await openFile(host, {}, false);
    const prepare = disk.node.impl.preparePermissions?.bind(disk.node.impl);
    if (prepare === undefined) throw new TypeError('files have locks');
    const before = held();
    const change = prepare({ need: 3, share: 13 });
    expect(held()).toEqual([100, 101, 201]);
    change.abort();
    expect(held()).toEqual(before);
    other.lock('shared', 201, 1);
    expect(() => prepare({ need: 3, share: 15 })).toThrow('Failed to get "write" lock');
    other.lock('none', 201, 1);
    expect(held()).toEqual(before);
    prepare({ need: 1, share: 7 }).commit();
    expect(held()).toEqual([100, 203]);
    other.lock('exclusive', 102, 1);
    expect(() => prepare({ need: 5, share: 15 })).toThrow('Failed to lock byte 102');
    prepare({ need: 0, share: 15 }).commit();
    expect(held()).toEqual([]);
    await other.close();
  });

  test('locking=off takes none and minds none', async () => {
    const host = hostWith(4096);
    const other = await others(host, [200, 201, 203]);
    await using disk = await openFile(host, { locking: 'off' });
    expect(other.isLocked('exclusive', 101, 1)).toBe(false);
    expect(disk.writable).toBe(true);
    await other.close();
  });

  test('where the host has none: auto does without and says so, on refuses', async () => {
    const host = hostWith(4096, { missing: ['lock'] });
    await (await openFile(host)).close();
    expect(host.notices).toHaveLength(1);
    await expect(openFile(host, { locking: 'on' })).rejects.toMatchObject({ code: 'ENOTSUP' });
    expect(host.openFiles).toEqual([]);
  });
});

describe('making files', () => {
  const make = (host: SimHost, options: NestedOptions = {}) =>
    createImage(graphOn(host), { filename: PATH, format: 'raw', size: 64 * KIB, options: options as never });

  test('sizes and reserves', async () => {
    const host = new SimHost();
    await make(host, { preallocation: 'falloc' });
    expect(await host.files.stat(PATH)).toMatchObject({ size: 64 * KIB, allocated: 64 * KIB });
    await make(host, {});
    expect(await host.files.stat(PATH)).toMatchObject({ size: 64 * KIB, allocated: 0 });
    expect(host.openFiles).toEqual([]);
  });

  test('what another process uses is not touched', async () => {
    const host = hostWith(filled(4096));
    const other = await host.files.open(PATH, { write: false });
    other.lock('shared', 201, 1);
    await expect(make(host)).rejects.toMatchObject({
      message: 'Failed to get "write" lock',
      hint: `Is another process using the image [${PATH}]?`,
    });
    expect(host.contents(PATH)).toEqual(filled(4096));
    await other.close();
    expect(host.openFiles).toEqual([]);
  });

  test('a link to nothing makes what it names', async () => {
    const host = new SimHost();
    host.link(PATH, '/elsewhere');
    await make(host);
    expect(host.contents('/elsewhere').length).toBe(64 * KIB);
  });

  test.each<[NestedOptions, string]>([
    [{ preallocation: 'metadata' }, 'Unsupported preallocation mode: metadata'],
    [{ preallocation: 'foo' }, 'invalid parameter value: foo'],
    [{ extent_size_hint: '4G' }, 'Extent size hint is too large'],
  ])('%j is refused after the first line (T-CREATE-2): %s', async (options, message) => {
    const lines: string[] = [];
    const host = new SimHost();
    const asked = { filename: PATH, format: 'raw', size: 512, options: options as never };
    await expect(createImage(graphOn(host), { ...asked, report: (line) => lines.push(line) })).rejects.toMatchObject({
      message,
    });
    expect(lines).toHaveLength(1);
    expect(host.exists(PATH)).toBe(false);
  });

  test('a device is checked, and its first sector cleared (BL-CREATE-2)', async () => {
    const host = new SimHost();
    host.put('/dev/sda', filled(64 * KIB), { kind: 'block' });
    const ready = (size: number, options: NestedOptions = {}) =>
      createImage(graphOn(host), { filename: '/dev/sda', format: 'raw', size, options: options as never });
    await expect(ready(65 * KIB)).rejects.toThrow(/^Cannot grow device files$/);
    await expect(ready(KIB, { preallocation: 'full' })).rejects.toThrow(/^Unsupported preallocation mode 'full'$/);
    await expect(ready(KIB, { nocow: 'on' })).rejects.toThrow(/^Invalid parameter 'nocow'$/);
    expect(host.contents('/dev/sda')).toEqual(filled(64 * KIB));
    await ready(KIB);
    expect(host.contents('/dev/sda').findIndex((byte) => byte !== 0)).toBe(512);
    expect(host.openFiles).toEqual([]);
  });

  test('an abort ends the filling and leaves nothing behind', async () => {
    const host = new SimHost({ latency: { min: 1, max: 1 } });
    const abort = new AbortController();
    const made = createImage(graphOn(host), {
      filename: PATH,
      format: 'raw',
      size: 1024 * KIB * KIB,
      options: { preallocation: 'full' },
      signal: abort.signal,
    });
    void host.clock.sleep(20).then(() => abort.abort(new TypeError('enough')));
    await expect(made).rejects.toThrow('enough');
    expect(host.exists(PATH)).toBe(false);
    expect(host.openFiles).toEqual([]);
  });
});

test('copying between two files goes through the host, between other things it does not', async () => {
  const host = hostWith(filled(64 * KIB));
  host.put('/other', 0);
  const graph = graphOn(host);
  const source = await graph.open({ driver: 'file', filename: PATH });
  const target = await graph.open({ driver: 'file', filename: '/other' }, { writable: true });
  await target.resize(64 * KIB);
  expect(await copyRange(source.node, 0, target.node, 4096, 8192)).toBe(8192);
  expect(await target.read(4096, 8192)).toEqual(filled(8192));
  const copy = target.node.impl.copyFrom?.bind(target.node.impl);
  await expect(copy?.({ ...source.node.impl }, 0, 0, 10)).rejects.toMatchObject({ code: 'ENOTSUP' });
  await source.close();
  await target.close();
});
