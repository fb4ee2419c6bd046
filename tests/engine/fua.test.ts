/** Durable writes: by the driver where it takes FUA, else by a flush behind them. */
import { expect, test } from 'vitest';
import type { OpenOptions } from '../../src/core/disk.ts';
import { failing, graphOf, plainFormat, Storage, storageProtocol } from './storage.ts';

async function opened(length: number, change: (storage: Storage) => void, options: OpenOptions = {}) {
  const storage = new Storage(length);
  change(storage);
  const graph = graphOf([storageProtocol(storage)]);
  return { storage, disk: await graph.open({ driver: 'store' }, { writable: true, ...options }) };
}

test('a driver that takes FUA gets it in every part of a request, and no flush', async () => {
  const { storage, disk } = await opened(65536, (it) => {
    it.fua = ['write', 'zeroes'];
    it.limits = { requestAlign: 512, zeroAlign: 4096, zeroMax: 8192, transferMax: 4096 };
  });
  await disk.write(100, new Uint8Array(5000), { fua: true });
  await disk.writeZeroes(512, 16384, { fua: true });
  await disk.write(0, new Uint8Array(512));
  expect(storage.story.filter((line) => !line.startsWith('read'))).toEqual([
    ...['write 0+4096 fua', 'write 4096+1024 fua'],
    ...['write 512+3584 fua', 'zero 4096+8192 fua', 'zero 12288+4096 fua', 'write 16384+512 fua'],
    'write 0+512',
  ]);
});

test('zeroes written as data are durable, too; one that takes FUA for data alone is flushed', async () => {
  const both = await opened(8192, (it) => {
    it.fua = ['write', 'zeroes'];
    it.before = ({ kind }) => (kind === 'zero' ? failing('ENOTSUP')() : undefined);
  });
  await both.disk.writeZeroes(0, 512, { fua: true });
  expect(both.storage.story).toEqual(['zero 0+512 fua', 'write 0+512 fua']);
  const data = await opened(8192, (it) => {
    it.fua = ['write'];
  });
  await data.disk.writeZeroes(0, 512, { fua: true });
  await data.disk.write(0, new Uint8Array(512), { fua: true });
  expect(data.storage.story).toEqual(['zero 0+512', 'flush', 'write 0+512 fua']);
});

test('write-through is FUA; where flushes are ignored, nothing is asked to be durable', async () => {
  for (const [cache, story] of [
    ['writethrough', 'write 0+512 fua'],
    ['unsafe', 'write 0+512'],
  ] as const) {
    const fua = (it: Storage) => {
      it.fua = ['write'];
    };
    const { storage, disk } = await opened(8192, fua, { cache });
    await disk.write(0, new Uint8Array(512), { fua: cache === 'unsafe' });
    expect([cache, storage.story]).toEqual([cache, [story]]);
  }
});

test('a format that does not take FUA flushes its file, though that would take it', async () => {
  const storage = new Storage(8192);
  storage.fua = ['write'];
  const graph = graphOf([storageProtocol(storage), plainFormat]);
  await using disk = await graph.open({ driver: 'plain', file: { driver: 'store' } }, { writable: true });
  await disk.write(0, new Uint8Array(512), { fua: true });
  expect(storage.story).toEqual(['write 0+512', 'flush']);
});
