import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Worker } from 'node:worker_threads';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { Host, HostContext, HostFile, HostFileMode } from '../core/host.ts';
import type { NodeContext } from './context.ts';
import { nodeHost } from './host.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const linux = process.platform === 'linux';
/** Threads of the pool that all of the process shares. */
const POOL = Number(process.env.UV_THREADPOOL_SIZE ?? 4);

let folder = '';
const closers: (() => Promise<void> | void)[] = [];

beforeEach(() => {
  folder = fs.mkdtempSync(path.join(tmpdir(), 'diskwright-'));
});
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
  vi.restoreAllMocks();
  vi.useRealTimers();
  fs.rmSync(folder, { recursive: true });
});

const withKoffi = nodeHost();
const withoutKoffi = nodeHost({
  loadKoffi: () => {
    throw new Error('not installed');
  },
});

function contextOf(host: typeof withKoffi, threads?: number): HostContext {
  const context = host.createContext('disk1', threads === undefined ? {} : { threads });
  closers.push(() => context.close());
  return context;
}

function pattern(length: number, seed = 1): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index * 31 + (index >> 8) + seed) & 0xff);
}

async function made(host: Host, content: Uint8Array, mode: Partial<HostFileMode> = {}): Promise<HostFile> {
  const name = path.join(folder, `file-${closers.length}`);
  fs.writeFileSync(name, content);
  const file = await host.files.open(name, { write: true, aio: 'threads', ...mode });
  closers.push(() => file.close());
  return file;
}

/** A file whose reads hang until {@link HungFile.release} gives them a byte each. */
interface HungFile {
  readonly file: HostFile;
  /** A read of one byte, which hangs. */
  read(): Promise<number>;
  /** Lets so many reads end, begun already or not. */
  release(reads: number): void;
}

async function hungFile(mode: Partial<HostFileMode> = {}): Promise<HungFile> {
  const name = path.join(folder, `hung-${closers.length}`);
  execFileSync('mkfifo', [name]);
  // Open for writing as well: such a pipe has no end.
  const file = await withKoffi.files.open(name, { write: true, ...mode });
  const writer = fs.openSync(name, fs.constants.O_RDWR);
  closers.push(async () => {
    await file.close();
    fs.closeSync(writer);
  });
  return {
    file,
    read: () => file.read(0, new Uint8Array(1)),
    release: (reads) => {
      if (reads > 0) fs.writeSync(writer, new Uint8Array(reads));
    },
  };
}

/** Counts what has ended of `started`. */
function counted(started: readonly Promise<unknown>[]): { ended: number } {
  const count = { ended: 0 };
  for (const one of started) {
    void one.then(() => {
      count.ended++;
    });
  }
  return count;
}

/** Enough round trips through a context for a read of the pool to be long over, if it has a thread. */
async function manyReads(file: HostFile): Promise<void> {
  const target = new Uint8Array(512);
  for (let turn = 0; turn < 300; turn++) await file.read(0, target);
}

describe.skipIf(!linux)('a disk that hangs (BL-CTX-5) (skipped without named pipes)', () => {
  test('in the main context it takes the threads of the pool, and another file gets none', async () => {
    const hung = await hungFile();
    const other = await made(withKoffi, pattern(4096));
    const elsewhere = await made(withKoffi, pattern(4096), { context: contextOf(withKoffi) });
    const stuck = Array.from({ length: POOL }, () => hung.read());
    const stuckEnded = counted(stuck);
    const starved = other.read(0, new Uint8Array(4096));
    let whenServed = -1;
    void starved.then(() => {
      whenServed = stuckEnded.ended;
    });
    try {
      await manyReads(elsewhere);
      expect([stuckEnded.ended, whenServed]).toEqual([0, -1]);
    } finally {
      hung.release(POOL);
    }
    await Promise.all([...stuck, starved]);
    expect(whenServed).toBeGreaterThan(0);
  });

  test('in a context of its own it holds up itself only', async () => {
    const context = contextOf(withKoffi);
    const hung = await hungFile({ context });
    const stuck = Array.from({ length: POOL + 2 }, () => hung.read());
    const ended = counted(stuck);
    const other = await made(withKoffi, pattern(4096));
    const elsewhere = await made(withKoffi, pattern(4096), { context: contextOf(withKoffi) });
    try {
      const target = new Uint8Array(4096);
      expect(await other.read(0, target)).toBe(4096);
      expect(target).toEqual(pattern(4096));
      await other.write(0, pattern(4096, 2));
      await other.flush();
      await manyReads(elsewhere);
      expect(ended.ended).toBe(0);
    } finally {
      hung.release(stuck.length);
    }
    expect(await Promise.all(stuck)).toEqual(stuck.map(() => 1));
  });

  test('moved there, requests from then on run there; those under way end where they began', async () => {
    const hung = await hungFile();
    const other = await made(withKoffi, pattern(4096));
    const context = contextOf(withKoffi, 2);
    const before = hung.read();
    hung.file.setContext?.(context);
    const stuck = Array.from({ length: POOL }, () => hung.read());
    try {
      // One thread of the pool is stuck, not all.
      expect(await other.read(0, new Uint8Array(4096))).toBe(4096);
      expect((context as NodeContext).threads).toBe(2);
    } finally {
      hung.release(stuck.length + 1);
    }
    await Promise.all([before, ...stuck]);
    hung.file.setContext?.(undefined);
    hung.release(1);
    expect(await hung.read()).toBe(1);
    await context.close();
    expect((context as NodeContext).threads).toBe(0);
  });

  test('opening a pipe that nobody writes to hangs in the context it is opened in', async () => {
    const name = path.join(folder, 'pipe');
    execFileSync('mkfifo', [name]);
    const context = contextOf(withKoffi);
    const opened = Array.from({ length: POOL }, () => withKoffi.files.open(name, { write: false, context }));
    const other = await made(withKoffi, pattern(4096));
    expect(await other.read(0, new Uint8Array(4096))).toBe(4096);
    expect(await withKoffi.files.stat(name)).toMatchObject({ kind: 'pipe' });
    const writer = fs.openSync(name, fs.constants.O_RDWR);
    for (const file of await Promise.all(opened)) await file.close();
    fs.closeSync(writer);
  });
});

describe.each([
  ['by address', withKoffi],
  ['through shared memory, without koffi', withoutKoffi],
])('a file in a context, %s', (_, host) => {
  test('is read and written as in the main one, also in more than one piece', async () => {
    const file = await made(host, pattern(3 * MIB), { context: contextOf(host) });
    const target = new Uint8Array(5 * MIB).subarray(7);
    expect(await file.read(100, target)).toBe(3 * MIB - 100);
    expect(Buffer.compare(target.subarray(0, 3 * MIB - 100), pattern(3 * MIB).subarray(100))).toBe(0);
    expect(await file.read(4 * MIB, target)).toBe(0);
    const source = pattern(2 * MIB + 4000, 9).subarray(1000);
    await file.write(2 * MIB, source);
    expect(file.size()).toBe(4 * MIB + 3000);
    await file.flush();
    const back = new Uint8Array(source.length);
    expect(await file.read(2 * MIB, back)).toBe(source.length);
    expect(Buffer.compare(back, source)).toBe(0);
    await file.truncate(1000);
    expect([file.size(), await file.read(0, back)]).toEqual([1000, 1000]);
  });

  test('tells errors as the main context does', async () => {
    const context = contextOf(host);
    const file = await made(host, pattern(100), { write: false, context });
    await expect(file.write(0, pattern(10))).rejects.toMatchObject({ name: 'BlockError', code: 'EBADF' });
    await expect(file.truncate(10)).rejects.toMatchObject({ name: 'BlockError', code: 'EINVAL' });
    const missing = path.join(folder, 'missing');
    const noSuch = { name: 'BlockError', code: 'ENOENT', message: 'No such file or directory' };
    await expect(host.files.open(missing, { write: true, context })).rejects.toMatchObject(noSuch);
    await expect(host.files.stat(missing, context)).rejects.toMatchObject(noSuch);
  });

  test('a failed open leaves the context as it was', async () => {
    const context = contextOf(host);
    await expect(host.files.open(path.join(folder, 'a', 'b'), { write: true, context })).rejects.toThrow();
    await expect(context.close()).resolves.toBeUndefined();
  });

  test('what is known of a file by name is the same', async () => {
    const context = contextOf(host);
    const name = path.join(folder, 'a');
    fs.writeFileSync(name, pattern(5000));
    expect(await host.files.stat(name, context)).toEqual(await host.files.stat(name));
    expect(await host.files.stat(folder, context)).toEqual(await host.files.stat(folder));
  });
});

describe.skipIf(!linux)('a file in a context', () => {
  test('has its storage reserved, freed, zeroed and looked up there', async () => {
    const file = await made(withKoffi, pattern(256 * KIB), { context: contextOf(withKoffi) });
    // Nothing is asked for on the event loop.
    expect(file.extent(0, 256 * KIB)).toBeUndefined();
    await file.punchHole(64 * KIB, 64 * KIB);
    await file.allocate(256 * KIB, 64 * KIB);
    expect(file.size()).toBe(320 * KIB);
    expect(await file.findExtent?.(0, 320 * KIB)).toEqual({ kind: 'data', length: 64 * KIB });
    expect(file.extent(4096, 320 * KIB)).toEqual({ kind: 'data', length: 60 * KIB });
    expect(await file.findExtent?.(64 * KIB, 320 * KIB)).toEqual({ kind: 'hole', length: 64 * KIB });
    expect(await file.findExtent?.(400 * KIB, 4096)).toEqual({ kind: 'hole', length: 4096 });
    await file.flush();
    const held = file.allocated();
    await file.truncate(64 * KIB);
    await file.flush();
    expect(file.allocated()).toBeLessThan(held ?? 0);
  });

  test('copies inside the host', async () => {
    const source = await made(withKoffi, pattern(64 * KIB));
    const file = await made(withKoffi, new Uint8Array(), { context: contextOf(withKoffi) });
    const copied = await file.copyFrom(source, 4096, 0, 32 * KIB).catch((error) => error.code);
    if (copied === 'ENOTSUP') return;
    expect(copied).toBe(32 * KIB);
    const target = new Uint8Array(32 * KIB);
    await file.read(0, target);
    expect(target).toEqual(pattern(64 * KIB).subarray(4096, 36 * KIB));
  });

  test('is read past the cache', async (test) => {
    const context = contextOf(withKoffi);
    const name = path.join(folder, 'a');
    fs.writeFileSync(name, pattern(64 * KIB));
    const file = await withKoffi.files.open(name, { write: true, direct: true, context }).catch(() => undefined);
    if (file === undefined) return test.skip('the temporary folder cannot be accessed past the cache');
    closers.push(() => file.close());
    const target = new Uint8Array(16 * KIB + 1).subarray(1);
    expect(await file.read(4096, target)).toBe(16 * KIB);
    expect(target).toEqual(pattern(64 * KIB).subarray(4096, 20 * KIB));
  });

  test('is not written at once: that may wait for the disk; in the main context it is', async (test) => {
    const file = await made(withKoffi, pattern(8192), { aio: 'auto' });
    if (!file.tryWriteNow(0, pattern(4096, 2))) return test.skip('the temporary folder is on slow storage');
    const context = contextOf(withKoffi);
    if (fs.statfsSync(folder).type === 0x01021994) return test.skip('the temporary folder is in memory');
    file.setContext?.(context);
    expect(file.tryWriteNow(0, pattern(4096, 3))).toBe(false);
    file.setContext?.(undefined);
    expect(file.tryWriteNow(0, pattern(4096, 3))).toBe(true);
  });
});

describe('a context', () => {
  test('has a limited number of threads, started as they are needed', async () => {
    const context = contextOf(withKoffi, 3) as NodeContext;
    const file = await made(withKoffi, pattern(4096), { context });
    for (let turn = 0; turn < 5; turn++) await file.read(0, new Uint8Array(16));
    // Opening asks for two things at once.
    expect(context.threads).toBeLessThanOrEqual(2);
    await Promise.all(Array.from({ length: 20 }, () => file.read(0, new Uint8Array(16))));
    expect(context.threads).toBe(3);
  });

  test.each([0, 65, 1.5, Number.NaN])('of %s threads is refused', (threads) => {
    expect(() => withKoffi.createContext('x', { threads })).toThrow(
      new TypeError(`A context has 1 to 64 threads, not ${threads}`),
    );
  });

  test('is not closed while files are in it, and takes none when it is', async () => {
    const context = contextOf(withKoffi);
    const file = await made(withKoffi, pattern(4096), { context });
    const inUse = { code: 'EBUSY', message: "Context 'disk1' is in use" };
    await expect(context.close()).rejects.toMatchObject(inUse);
    file.setContext?.(context);
    await expect(context.close()).rejects.toMatchObject(inUse);
    file.setContext?.(undefined);
    await context.close();
    await context.close();
    const closed = { code: 'ECANCELED', message: "Context 'disk1' is closed" };
    expect(() => file.setContext?.(context)).toThrow(expect.objectContaining(closed));
    await expect(withKoffi.files.stat(folder, context)).rejects.toMatchObject(closed);
    await expect(withKoffi.files.open(folder, { write: false, context })).rejects.toMatchObject(closed);
    expect(await file.read(0, new Uint8Array(4096))).toBe(4096);
  });

  test('of another host is misuse', async () => {
    const file = await made(withKoffi, pattern(16));
    const strange: HostContext = { name: 'strange', close: async () => {} };
    expect(() => file.setContext?.(strange)).toThrow(new TypeError("Context 'strange' is not one of this host"));
  });

  test('ends threads that had no work for 30 s, and starts others when there is work again', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const workers: Worker[] = [];
    const onWorker = (worker: Worker) => workers.push(worker);
    process.on('worker', onWorker);
    const context = contextOf(withKoffi, 1) as NodeContext;
    await withKoffi.files.stat(folder, context);
    await vi.advanceTimersByTimeAsync(29_999);
    await withKoffi.files.stat(folder, context);
    await vi.advanceTimersByTimeAsync(29_999);
    expect([workers.length, context.threads]).toEqual([1, 1]);
    const ended = once(workers[0] as Worker, 'exit');
    await vi.advanceTimersByTimeAsync(1);
    const next = withKoffi.files.stat(folder, context);
    await ended;
    expect(await next).toMatchObject({ kind: 'directory' });
    process.off('worker', onWorker);
    expect([workers.length, context.threads]).toEqual([2, 1]);
  });
});

describe('where threads cannot be had', () => {
  function workerThreads(replacement: object): void {
    const real = process.getBuiltinModule('node:worker_threads');
    vi.spyOn(process, 'getBuiltinModule').mockReturnValue({ ...real, ...replacement });
  }

  test('outside the main thread there are no contexts', () => {
    workerThreads({ isMainThread: false });
    expect(() => withKoffi.createContext('x')).toThrow(
      expect.objectContaining({
        code: 'ENOTSUP',
        message: "Cannot create context 'x': only the main thread has contexts",
      }),
    );
  });

  test('a system without threads to spare fails the request', async () => {
    const context = contextOf(withKoffi);
    workerThreads({
      Worker: class {
        constructor() {
          throw new Error('no more threads');
        }
      },
    });
    await expect(withKoffi.files.stat(folder, context)).rejects.toMatchObject({
      code: 'EAGAIN',
      message: "Cannot start a thread of context 'disk1'",
    });
  });

  test('a thread that ends by itself fails its request only', async () => {
    const context = contextOf(withKoffi, 1) as NodeContext;
    process.once('worker', (worker) => void worker.terminate());
    const [failed, next] = [withKoffi.files.stat(folder, context), withKoffi.files.stat(folder, context)];
    await expect(failed).rejects.toMatchObject({
      code: 'EAGAIN',
      message: "Cannot run a thread of context 'disk1'",
    });
    expect(await next).toMatchObject({ kind: 'directory' });
  });

  test('a call that cannot be made is our mistake, told as such', async () => {
    const context = contextOf(withKoffi) as NodeContext;
    await expect(context.run({ prototype: 'no prototype', parameters: [] })).rejects.toThrow();
    await expect(context.run({ fs: 'readSync', parameters: ['no number'] })).rejects.toMatchObject({
      name: 'Error',
      code: 'ERR_INVALID_ARG_TYPE',
    });
    expect(await withKoffi.files.stat(folder, context)).toMatchObject({ kind: 'directory' });
  });
});
