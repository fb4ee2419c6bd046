/** Large reads of files in the cache, which go out without being copied (N-151). */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { NbdClient } from '../../nbd/client/client.ts';
import { NodeFile } from '../file.ts';
import { nodeHost, open } from '../index.ts';
import { connectSocket } from './connect.ts';
import { type ServeOptions, serve } from './serve.ts';

const KIB = 1024;
const SIZE = 16 * KIB * KIB;
let folder: string;
let image: string;
let content: Buffer;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'diskwright-send-file-'));
  image = join(folder, 'image');
  content = randomBytes(SIZE);
  writeFileSync(image, content);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function setting(options: ServeOptions) {
  const disk = await open(image, { format: 'raw', writable: true });
  const served = await serve(disk, options);
  const { searchParams, port } = new URL(served.uri);
  const path = searchParams.get('socket');
  const client = await NbdClient.open({
    clock: nodeHost().clock,
    connect: (signal) =>
      connectSocket(path === null ? { type: 'inet', host: '127.0.0.1', port: Number(port) } : { type: 'unix', path }, {
        signal,
      }),
    handshake: { export: '', contexts: [] },
    connections: 1,
  });
  return {
    client,
    async [Symbol.asyncDispose]() {
      await client.close();
      await served.close();
      await disk.close();
    },
  };
}

/** Whether the files that were looked at were in the cache. */
function watchCache() {
  const seen: boolean[] = [];
  const original = NodeFile.prototype.isCached;
  const spy = vi.spyOn(NodeFile.prototype, 'isCached').mockImplementation(function (this: NodeFile, offset, length) {
    const cached = original.call(this, offset, length);
    seen.push(cached);
    return cached;
  });
  return { seen, [Symbol.dispose]: () => spy.mockRestore() };
}

const linux = process.platform === 'linux';

test.skipIf(!linux).each([
  ['a unix socket', () => ({ socket: join(folder, 's') })],
  ['TCP', () => ({ port: 0 })],
])('many reads and writes at a time over %s: all bytes, each in its place', async (_where, options) => {
  using cache = watchCache();
  await using server = await setting(options());
  const { client } = server;
  // Far more than the system has room for: what it has none for comes later, and others behind it.
  const reads = Array.from({ length: 40 }, (_, index) => {
    const length = [128 * KIB, 1000, 256 * KIB, 2048 * KIB + 512, 131_073][index % 5] ?? 0;
    return { offset: (index * 397_313) % (SIZE - length), target: Buffer.alloc(length) };
  });
  const own = randomBytes(512);
  await Promise.all([
    ...reads.map(({ offset, target }) => client.read(offset, target)),
    client.write(SIZE - 512, own),
    client.flush(),
  ]);
  own.copy(content, SIZE - 512);
  for (const { offset, target } of reads) {
    expect([offset, target.equals(content.subarray(offset, offset + target.length))]).toEqual([offset, true]);
  }
  const last = Buffer.alloc(256 * KIB);
  await client.read(SIZE - last.length, last);
  expect(last.equals(content.subarray(SIZE - last.length))).toBe(true);
  // Without the system call it was not asked, and all else is the same.
  if (cache.seen.length > 0) expect(cache.seen).toContain(true);
});

test.skipIf(!linux)('what is not in the cache is read by other threads', async () => {
  await using server = await setting({ socket: join(folder, 'cold') });
  execFileSync('dd', [`of=${image}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0'], { stdio: 'ignore' });
  using cache = watchCache();
  const target = Buffer.alloc(256 * KIB);
  await server.client.read(8 * KIB * KIB, target);
  expect(target.equals(content.subarray(8 * KIB * KIB, 8 * KIB * KIB + target.length))).toBe(true);
  // A file system in memory, or a kernel that keeps pages, has it still; then there is nothing to see.
  if (cache.seen[0] !== false) return;
  await server.client.read(8 * KIB * KIB, target);
  expect(cache.seen).toEqual([false, true]);
});
