import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Host, HostFile, HostFileMode } from '../core/host.ts';
import { nodeHost } from './host.ts';

const MIB = 1024 * 1024;
const linux = process.platform === 'linux';
const hasMemoryDisk = linux && fs.existsSync('/dev/shm');

const withoutKoffi = () =>
  nodeHost({
    loadKoffi: () => {
      throw new Error('not installed');
    },
  });

let folder = '';
const open: HostFile[] = [];

beforeEach(() => {
  folder = fs.mkdtempSync(path.join(tmpdir(), 'diskwright-'));
});
afterEach(async () => {
  for (const file of open.splice(0)) await file.close();
  fs.rmSync(folder, { recursive: true });
});

function pattern(length: number, seed = 1): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index * 31 + (index >> 8) + seed) & 0xff);
}

async function made(content: Uint8Array, mode: Partial<HostFileMode> = {}, host = nodeHost()): Promise<HostFile> {
  const name = path.join(folder, `file-${open.length}`);
  fs.writeFileSync(name, content);
  return opened(name, mode, host);
}

async function opened(name: string, mode: Partial<HostFileMode> = {}, host: Host = nodeHost()): Promise<HostFile> {
  const file = await host.files.open(name, { write: true, ...mode });
  open.push(file);
  return file;
}

describe('reading and writing', () => {
  test('reads what is there, and less only at the end', async () => {
    const file = await made(pattern(10_000));
    const target = new Uint8Array(4096);
    expect(await file.read(1000, target)).toBe(4096);
    expect(target).toEqual(pattern(10_000).subarray(1000, 5096));
    expect(await file.read(9000, target)).toBe(1000);
    expect(await file.read(20_000, target)).toBe(0);
  });

  test('a write past the end makes the file longer, and size() says so', async () => {
    const file = await made(pattern(100));
    await file.write(1000, pattern(24, 7));
    expect(file.size()).toBe(1024);
    const target = new Uint8Array(1024);
    expect(await file.read(0, target)).toBe(1024);
    expect(target.subarray(1000)).toEqual(pattern(24, 7));
    expect(target.subarray(100, 1000).every((byte) => byte === 0)).toBe(true);
  });

  test('truncating changes size and content', async () => {
    const file = await made(pattern(5000));
    await file.truncate(100);
    await file.truncate(200);
    expect(file.size()).toBe(200);
    const target = new Uint8Array(200);
    await file.read(0, target);
    expect(target.subarray(0, 100)).toEqual(pattern(100));
    expect(target.subarray(100).every((byte) => byte === 0)).toBe(true);
  });

  test('writing to a file opened for reading is EBADF', async () => {
    const file = await made(pattern(100), { write: false });
    await expect(file.write(0, pattern(10))).rejects.toMatchObject({ name: 'BlockError', code: 'EBADF' });
    expect(file.tryWriteNow(0, pattern(10))).toBe(false);
  });

  test.skipIf(!linux)('a full device is ENOSPC', async () => {
    const file = await opened('/dev/full');
    expect(file.kind).toBe('character');
    await expect(file.write(0, pattern(512))).rejects.toMatchObject({ code: 'ENOSPC' });
    await file.flush();
  });

  test('flush makes no complaint', async () => {
    const file = await made(pattern(100));
    await file.write(0, pattern(100, 2));
    await file.flush();
  });
});

describe.each([
  ['the temporary folder', () => folder],
  ['memory', () => '/dev/shm'],
])('at once, in %s', (where, parent) => {
  const missing = where === 'memory' ? !hasMemoryDisk : !linux;
  let name = '';
  beforeEach(() => {
    if (!missing) name = path.join(fs.mkdtempSync(path.join(parent(), 'now-')), 'file');
  });
  afterEach(() => {
    if (!missing) fs.rmSync(path.dirname(name), { recursive: true });
  });

  test.skipIf(missing)('cached data is read', async () => {
    fs.writeFileSync(name, pattern(3 * MIB));
    const file = await opened(name);
    const target = new Uint8Array(5000);
    expect(file.tryReadNow(12_345, target)).toBe(5000);
    expect(Buffer.from(target).equals(pattern(3 * MIB).subarray(12_345, 17_345))).toBe(true);
    expect(file.tryReadNow(3 * MIB - 10, target)).toBe(10);
    expect(file.tryReadNow(4 * MIB, target)).toBe(0);
    expect(file.tryReadNow(0, new Uint8Array(MIB))).toBe(MIB);
    expect(file.tryReadNow(0, new Uint8Array(2 * MIB))).toBe(2 * MIB);
    expect(file.tryReadNow(0, new Uint8Array(3 * MIB))).toBe(-1);
  });

  test.skipIf(missing)('what another process appends is not taken for the end of the file', async () => {
    fs.writeFileSync(name, pattern(100));
    const file = await opened(name);
    fs.appendFileSync(name, pattern(100, 9));
    const target = new Uint8Array(200);
    const count = file.tryReadNow(0, target);
    expect(count === -1 || count === 200).toBe(true);
  });

  test.skipIf(missing)('short writes go into the cache', async () => {
    fs.writeFileSync(name, pattern(256 * 1024));
    const file = await opened(name);
    expect(file.tryWriteNow(4096, pattern(4096, 3))).toBe(true);
    expect(file.tryWriteNow(100, pattern(50, 4))).toBe(true);
    expect(file.tryWriteNow(256 * 1024 + 10, pattern(50, 5))).toBe(true);
    expect(file.tryWriteNow(0, new Uint8Array(65_537))).toBe(false);
    expect(file.size()).toBe(256 * 1024 + 60);
    const expected = new Uint8Array(256 * 1024 + 60);
    expected.set(pattern(256 * 1024));
    expected.set(pattern(4096, 3), 4096);
    expected.set(pattern(50, 4), 100);
    expected.set(pattern(50, 5), 256 * 1024 + 10);
    expect(fs.readFileSync(name).equals(expected)).toBe(true);
  });

  test.skipIf(missing)('never with aio=threads, and never when closed', async () => {
    fs.writeFileSync(name, pattern(8192));
    const file = await opened(name, { aio: 'threads' });
    expect(file.tryReadNow(0, new Uint8Array(10))).toBe(-1);
    expect(file.tryWriteNow(0, new Uint8Array(4096))).toBe(false);
    const other = await nodeHost().files.open(name, { write: true });
    expect(other.tryReadNow(0, new Uint8Array(10))).toBe(10);
    await other.close();
    expect(other.tryReadNow(0, new Uint8Array(10))).toBe(-1);
    expect(other.tryWriteNow(0, new Uint8Array(4096))).toBe(false);
  });

  test.skipIf(missing)('holes are found, made and filled', async () => {
    fs.writeFileSync(name, pattern(MIB));
    const file = await opened(name);
    await file.truncate(4 * MIB);
    expect(file.extent(0, 4 * MIB)).toEqual({ kind: 'data', length: MIB });
    expect(file.extent(MIB, 4096)).toEqual({ kind: 'hole', length: 4096 });
    expect(file.extent(MIB, 3 * MIB)).toEqual({ kind: 'hole', length: 3 * MIB });
    await file.write(2 * MIB, pattern(65_536));
    expect(file.extent(MIB, 3 * MIB)).toEqual({ kind: 'hole', length: MIB });
    await file.punchHole(0, 65_536);
    expect(file.extent(0, MIB)).toEqual({ kind: 'hole', length: 65_536 });
    const target = new Uint8Array(65_536);
    await file.read(0, target);
    expect(target.every((byte) => byte === 0)).toBe(true);
    expect(file.size()).toBe(4 * MIB);
    await file.truncate(65_536);
    await file.truncate(MIB);
    expect(file.extent(0, MIB)).toEqual({ kind: 'hole', length: MIB });
  });

  test.skipIf(missing)('the end of a stored run is looked for once', async () => {
    fs.writeFileSync(name, pattern(MIB));
    const file = await opened(name);
    expect(file.extent(0, 4096)).toEqual({ kind: 'data', length: 4096 });
    fs.truncateSync(name, 8192);
    // Another process's hole is not seen, which is safe.
    expect(file.extent(16_384, MIB)).toEqual({ kind: 'data', length: MIB - 16_384 });
  });

  test.skipIf(missing)('storage is reserved and counted', async () => {
    const file = await opened(name, { create: 'new' });
    expect(file.allocated()).toBe(0);
    await file.allocate(0, MIB);
    expect(file.size()).toBe(MIB);
    expect(file.allocated()).toBeGreaterThanOrEqual(MIB);
  });
});

describe('a cold cache', () => {
  test.skipIf(!linux)('is not waited for: the read says "ask read", and a partial page is not written', async () => {
    const file = await made(pattern(4 * MIB));
    await file.flush();
    const name = path.join(folder, 'file-0');
    execFileSync('dd', [`of=${name}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0'], { stdio: 'ignore' });
    const target = new Uint8Array(4096);
    // Another file system, or a kernel that keeps pages, may not have dropped them; then there is nothing to see.
    if (file.tryReadNow(MIB, target) === -1) {
      // Far from what that attempt made the kernel read ahead.
      expect(file.tryWriteNow(3 * MIB + 10, new Uint8Array(10))).toBe(false);
      expect(await file.read(MIB, target)).toBe(4096);
      expect(file.tryReadNow(MIB, target)).toBe(4096);
      expect(file.tryWriteNow(MIB + 10, new Uint8Array(10))).toBe(true);
    }
  });
});

describe('zeroing a range', () => {
  test.skipIf(!linux)('keeps the size right whether or not the file system can', async () => {
    const file = await made(pattern(65_536));
    try {
      await file.zeroRange(32_768, 65_536);
    } catch (error) {
      expect(error).toMatchObject({ code: 'ENOTSUP' });
      return;
    }
    expect(file.size()).toBe(98_304);
    const target = new Uint8Array(98_304);
    await file.read(0, target);
    expect(target.subarray(0, 32_768)).toEqual(pattern(32_768));
    expect(target.subarray(32_768).every((byte) => byte === 0)).toBe(true);
  });
});

describe('copying inside the host', () => {
  test.skipIf(!linux)('moves bytes between two files, up to the end of the first', async () => {
    const source = await made(pattern(10_000));
    const target = await made(new Uint8Array(0));
    expect(await target.copyFrom(source, 100, 5000, 20_000)).toBe(9900);
    expect(target.size()).toBe(14_900);
    const bytes = new Uint8Array(9900);
    await target.read(5000, bytes);
    expect(bytes).toEqual(pattern(10_000).subarray(100));
    expect(await target.copyFrom(source, 10_000, 0, 10)).toBe(0);
  });

  test.skipIf(!hasMemoryDisk)('is ENOTSUP where the kernel cannot', async () => {
    const source = await made(pattern(100));
    const foreign = { ...source } as HostFile;
    const target = await made(new Uint8Array(0));
    await expect(target.copyFrom(foreign, 0, 0, 10)).rejects.toMatchObject({ code: 'ENOTSUP' });
    await expect(source.copyFrom(source, 0, 10, 50)).rejects.toMatchObject({ code: 'ENOTSUP' });
  });
});

describe('past the host cache (O_DIRECT)', () => {
  test.skipIf(!linux)('unaligned memory is bounced, data arrives', async () => {
    const content = pattern(65_536);
    const file = await made(content, { direct: true });
    expect(file.requestAlign).toBeGreaterThanOrEqual(512);
    const memory = new Uint8Array(20_000);
    const target = memory.subarray(3, 3 + 8192);
    expect(await file.read(4096, target)).toBe(8192);
    expect(target).toEqual(content.subarray(4096, 12_288));
    await file.write(8192, memory.subarray(3, 3 + 4096));
    expect(new Uint8Array(fs.readFileSync(path.join(folder, 'file-0'))).subarray(8192, 12_288)).toEqual(
      content.subarray(4096, 8192),
    );
    expect(file.tryReadNow(0, new Uint8Array(4096))).toBe(-1);
    expect(file.tryWriteNow(0, new Uint8Array(4096))).toBe(false);
  });

  test.skipIf(!linux)('without system calls it is refused', async () => {
    await expect(made(pattern(4096), { direct: true }, withoutKoffi())).rejects.toMatchObject({ code: 'EINVAL' });
  });
});

describe('without koffi', () => {
  test('one notice is given; bytes still move and the rest is ENOTSUP', async () => {
    const notices: string[] = [];
    const host = nodeHost({
      notice: (message) => notices.push(message),
      loadKoffi: () => {
        throw new Error('not installed');
      },
    });
    const file = await made(pattern(8192), {}, host);
    await file.write(0, pattern(4096, 2));
    const target = new Uint8Array(4096);
    expect(await file.read(0, target)).toBe(4096);
    expect(target).toEqual(pattern(4096, 2));
    expect(file.extent(0, 8192)).toEqual({ kind: 'data', length: 8192 });
    for (const refused of [
      () => file.punchHole(0, 4096),
      () => file.zeroRange(0, 4096),
      () => file.allocate(0, 4096),
      () => file.discard?.(0, 4096),
      () => file.copyFrom(file, 0, 4096, 4096),
      async () => file.lock('shared', 100, 1),
      async () => file.isLocked('exclusive', 100, 1),
    ]) {
      await expect(refused()).rejects.toMatchObject({ name: 'BlockError', code: 'ENOTSUP' });
    }
    expect(file.tryReadNow(0, target)).toBeOneOf([-1, 4096]);
    expect(notices).toHaveLength(1);
    expect(notices[0]).toContain('not installed');
  });

  test('a call that the C library lacks is noted and done without', async () => {
    const notices: string[] = [];
    const host = nodeHost({
      notice: (message) => notices.push(message),
      loadKoffi: () => ({
        load: () => ({
          func: () => {
            throw new Error('no such function');
          },
        }),
        address: () => 0n,
        errno: () => 0,
      }),
    });
    const file = await made(pattern(8192), {}, host);
    await expect(file.punchHole(0, 4096)).rejects.toMatchObject({ code: 'ENOTSUP' });
    await expect(file.punchHole(0, 4096)).rejects.toMatchObject({ code: 'ENOTSUP' });
    expect(notices).toHaveLength(1);
  });
});

describe('a slow synchronous write', () => {
  test.skipIf(!linux)('pauses the fast path for a while', async (context) => {
    let now = 0;
    let cost = 0.01;
    const clock = {
      now: () => {
        now += cost;
        return now;
      },
      wall: () => 0,
      sleep: async () => {},
    };
    const file = await made(pattern(65_536), {}, nodeHost({ clock }));
    const block = new Uint8Array(4096);
    if (!file.tryWriteNow(0, block)) return context.skip('the temporary folder is on a file system we do not know');
    cost = 30;
    file.tryWriteNow(0, block);
    cost = 0.01;
    expect(file.tryWriteNow(0, block)).toBe(false);
    now += 1000;
    expect(file.tryWriteNow(0, block)).toBe(true);
  });
});
