import { expect, test } from 'vitest';
import type { CacheMode } from '../../core/cache.ts';
import type { Disk } from '../../core/disk.ts';
import { Graph } from '../../core/graph.ts';
import type { NestedOptions } from '../../core/options.ts';
import { DRIVERS } from '../../drivers.ts';
import { logEntries, replay } from '../../jobs/replay.ts';
import { SimHost } from '../../testing/index.ts';
import type { LogEntry } from './format.ts';
import { mark } from './node.ts';
import { readEntries } from './reader.ts';

const SIZE = 1 << 20;

function describe(entry: LogEntry): string {
  if (!('offset' in entry)) return entry.kind;
  return `${entry.kind} ${entry.offset}+${entry.length}${'fua' in entry && entry.fua ? ' fua' : ''}`;
}

async function entriesOf(log: Disk): Promise<string[]> {
  const lines: string[] = [];
  for await (const { entry } of logEntries(log)) lines.push(describe(entry));
  return lines;
}

async function recorded({
  driver = 'log',
  above = (below: NestedOptions) => below,
  cache = 'writeback' as CacheMode,
} = {}) {
  const host = new SimHost();
  host.put('/disk', SIZE);
  host.put('/log', 0);
  host.put('/copy', SIZE);
  const graph = new Graph({ host, drivers: DRIVERS });
  const disk = await graph.open(
    above({ driver, file: { driver: 'file', filename: '/disk' }, log: { driver: 'file', filename: '/log' } }),
    { writable: true, cache },
  );
  const raw = (filename: string, writable = false) =>
    graph.open({ driver: 'raw', file: { driver: 'file', filename } }, { writable });
  return { host, disk, raw };
}

test('everything is recorded in order, and replays to the same disk', async () => {
  const { disk, raw } = await recorded();
  await disk.write(0, new Uint8Array(1024).fill(1));
  await disk.flush();
  await mark(disk, 'half');
  await disk.writeZeroes(4096, 4096);
  await disk.write(100, new Uint8Array(8).fill(9), { fua: true });
  await disk.discard(8192, 4096);
  const content = await disk.read(0, SIZE);
  await disk.close();
  {
    await using log = await raw('/log');
    expect(await entriesOf(log)).toEqual([
      'write 0+1024',
      'flush',
      'mark',
      'write 4096+4096',
      'write 0+512 fua',
      'discard 8192+4096',
      'flush',
    ]);
    await using copy = await raw('/copy', true);
    expect(await replay(log, copy, { untilMark: 'half' })).toEqual({ entries: 2, next: 2 });
    expect((await copy.read(100, 1))[0]).toBe(1);
    await expect(replay(log, copy, { untilMark: 'no' })).rejects.toMatchObject({ code: 'ENOENT' });
    expect(await replay(log, copy, { from: 2 })).toEqual({ entries: 5, next: 7 });
    expect(Buffer.compare(await copy.read(0, SIZE), content)).toBe(0);
  }
});

test('durable writes and zero writes are FUA entries, which are in the log for good when they are answered', async () => {
  const { disk, raw, host } = await recorded();
  await disk.write(0, new Uint8Array(512));
  await disk.write(512, new Uint8Array(512), { fua: true });
  // So it is durable, and counted.
  expect(host.log.at(-1)).toMatchObject({ type: 'flush', path: '/log' });
  expect(new DataView(host.contents('/log').buffer).getUint32(16, true)).toBe(2);
  await disk.writeZeroes(4096, 4096, { fua: true });
  await disk.close();
  await using log = await raw('/log');
  expect(await entriesOf(log)).toEqual(['write 0+512', 'write 512+512 fua', 'write 4096+4096 fua', 'flush']);
});

test('a write-through disk is recorded by FUA, also through raw and a filter', async () => {
  const above = (file: NestedOptions) => ({ driver: 'raw', file: { driver: 'copy-on-read', file } });
  const { disk, raw } = await recorded({ above, cache: 'writethrough' });
  await disk.write(0, new Uint8Array(512));
  await disk.close();
  await using log = await raw('/log');
  expect((await entriesOf(log))[0]).toBe('write 0+512 fua');
});

test('a disk of another length is recorded: its last sector, or what is cut off', async () => {
  const { disk, raw } = await recorded();
  await disk.write(0, new Uint8Array(2048).fill(1));
  await disk.resize(1024, { shrink: true });
  await disk.resize(8192);
  await disk.resize(8192);
  await disk.close();
  await using log = await raw('/log');
  expect(await entriesOf(log)).toEqual(['write 0+2048', `discard 1024+${SIZE - 1024}`, 'write 7680+512', 'flush']);
  await using copy = await raw('/copy', true);
  await replay(log, copy);
  expect((await copy.read(0, 2048)).lastIndexOf(1)).toBe(1023);
});

test('a disk cut off in the midst of a sector: the rest of it is zero in the log', async () => {
  const { disk, raw } = await recorded();
  await disk.write(512, new Uint8Array(512).fill(1));
  await disk.resize(1000, { shrink: true });
  await disk.resize(2048);
  const content = await disk.read(0, 2048);
  expect(content.lastIndexOf(1)).toBe(999);
  await disk.close();
  await using log = await raw('/log');
  await using copy = await raw('/copy', true);
  await replay(log, copy);
  expect(Buffer.compare(await copy.read(0, 2048), content)).toBe(0);
});

test("blklogwrites records neither FUA nor lengths: its logs are QEMU's", async () => {
  const { disk, raw } = await recorded({ driver: 'blklogwrites' });
  await disk.write(512, new Uint8Array(512), { fua: true });
  await disk.resize(8192, { shrink: true });
  await disk.close();
  await using log = await raw('/log');
  expect(await entriesOf(log)).toEqual(['write 512+512', 'flush']);
});

test('what is written at once is in the log at once; what is not done leaves no entry', async () => {
  const host = new SimHost();
  const graph = new Graph({ host, drivers: DRIVERS });
  const disk = await graph.open(
    {
      driver: 'log',
      'log-super-update-interval': 3,
      file: { driver: 'memory', size: SIZE },
      log: { driver: 'memory', 'node-name': 'kept' },
    },
    { writable: true, cache: 'writeback' },
  );
  const sector = (value: number) => new Uint8Array(512).fill(value);
  expect(disk.tryWriteNow(0, sector(1))).toBe(true);
  const below = disk.node.filtered?.node.impl;
  if (below?.tryWriteNow === undefined) throw new Error('memory is written at once');
  const { tryWriteNow } = below;
  below.tryWriteNow = () => false;
  expect(disk.tryWriteNow(512, sector(9))).toBe(false);
  below.tryWriteNow = tryWriteNow;
  expect(disk.tryWriteNow(1024, sector(2))).toBe(true);
  // The superblock is due.
  expect(disk.tryWriteNow(1536, sector(3))).toBe(false);
  await disk.write(1536, sector(3));
  const kept = graph.lookUp('kept');
  const bytes = new Uint8Array(kept.impl.length());
  await kept.impl.read(0, bytes);
  const entries: string[] = [];
  const source = {
    length: () => bytes.length,
    read: async (offset: number, target: Uint8Array) => target.set(bytes.subarray(offset, offset + target.length)),
  };
  for await (const { entry, dataAt } of readEntries(source)) entries.push(`${describe(entry)}: ${bytes[dataAt]}`);
  expect(entries).toEqual(['write 0+512: 1', 'write 1024+512: 2', 'write 1536+512: 3']);
  await disk.close();
});
