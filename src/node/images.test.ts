import fs from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import {
  amend,
  BlockError,
  check,
  checksum,
  compact,
  compare,
  convert,
  create,
  dd,
  defaultGraph,
  info,
  map,
  measure,
  open,
  resize,
} from './index.ts';

const MIB = 1 << 20;
let folder = '';
const at = (name: string) => path.join(folder, name);

beforeEach(() => {
  folder = fs.mkdtempSync(path.join(tmpdir(), 'diskwright-'));
});
afterEach(() => {
  fs.rmSync(folder, { recursive: true });
  // Each function closes what it opens, also when it fails.
  expect(defaultGraph().nodes()).toEqual([]);
});

/** An image of 8 MiB with 1000 bytes in the second mebibyte. */
async function made(name: string): Promise<string> {
  await create(at(name), { size: '8M' });
  await using disk = await open(at(name), { writable: true, format: name.endsWith('.vdi') ? 'vdi' : 'raw' });
  await disk.write(MIB + 5, new Uint8Array(1000).fill(7));
  return at(name);
}

test('the name decides on the format of a new image, an option overrides it', async () => {
  await create(at('a.vdi'), { size: MIB });
  await create(at('b.img'), { size: MIB });
  await create(at('c.vdi'), { size: MIB, format: 'raw' });
  expect((await info(at('a.vdi'))).format).toBe('vdi');
  expect((await info(at('b.img'))).format).toBe('raw');
  expect(fs.statSync(at('c.vdi')).size).toBe(MIB);
});

test('info tells what is known, also while someone writes if it is told not to mind', async () => {
  const name = await made('a.vdi');
  expect(await info(name)).toMatchObject({
    filename: name,
    format: 'vdi',
    length: 8 * MIB,
    clusterSize: MIB,
    specific: { type: 'vdi' },
  });
  expect((await info({ driver: 'raw', file: { driver: 'file', filename: name } })).format).toBe('raw');
  await using writer = await open(name, { writable: true });
  await expect(info(name)).rejects.toMatchObject({ code: 'EAGAIN' });
  expect((await info(name, { forceShare: true })).length).toBe(writer.length);
});

test('convert, compare and checksum agree; several sources are put one behind another', async () => {
  const name = await made('a.vdi');
  await convert(name, at('b.raw'));
  expect(fs.statSync(at('b.raw')).size).toBe(8 * MIB);
  expect(await compare(name, at('b.raw'), { formats: ['vdi', 'raw'] })).toEqual({ kind: 'identical' });
  expect(await checksum(at('b.raw'), { format: 'raw' })).toEqual(await checksum(name));
  await convert([name, at('b.raw')], at('c.vdi'));
  expect((await info(at('c.vdi'))).length).toBe(16 * MIB);
  await expect(compare(name, at('c.vdi'), { strict: true })).resolves.not.toMatchObject({ kind: 'identical' });
});

test('dd copies a part', async () => {
  const name = await made('a.vdi');
  expect(await dd(name, at('part.raw'), { blockSize: 1024, skip: 1024, count: 1025 })).toEqual({
    skippedPastEnd: false,
  });
  const part = fs.readFileSync(at('part.raw'));
  expect([part.length, part.indexOf(7), part.lastIndexOf(7)]).toEqual([1024, 5, 1004]);
});

test('map, measure, resize, compact, check', async () => {
  const name = await made('a.vdi');
  const runs = [];
  for await (const { start, length, data } of map(name)) runs.push([start, length, data]);
  expect(runs).toEqual([
    [0, MIB, false],
    [MIB, MIB, true],
    [2 * MIB, 6 * MIB, false],
  ]);
  expect((await measure(name, { targetFormat: 'raw' })).required).toBeGreaterThanOrEqual(1000);
  expect(await resize(name, '+8M')).toBe(16 * MIB);
  await expect(resize(name, '4M')).rejects.toMatchObject({ code: 'EINVAL' });
  expect(await resize(name, 4 * MIB, { shrink: true })).toBe(4 * MIB);
  await using disk = await open(name, { writable: true });
  await disk.writeZeroes(MIB, MIB, { unmap: true });
  await disk.close();
  await compact(name);
  expect(await check(name)).toMatchObject({ report: { corruptions: 0, leaks: 0, allocatedClusters: 0 } });
});

test('amend', async () => {
  const name = at('a.qcow2');
  await create(name, { size: MIB });
  await amend(name, { compat: '0.10', size: '2M' });
  expect(await info(name)).toMatchObject({ length: 2 * MIB, specific: { data: { compat: '0.10' } } });
  await expect(amend(await made('a.vdi'), { size: 1 })).rejects.toMatchObject({ code: 'ENOTSUP' });
});

test('failures are BlockErrors, an abort is its own reason', async () => {
  for (const work of [info, check, checksum, compact]) {
    const error = await work(at('missing')).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(BlockError);
    expect(error).toMatchObject({ code: 'ENOENT' });
  }
  const name = await made('a.vdi');
  const reason = new TypeError('enough');
  await expect(convert(name, at('b.vdi'), { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  expect(fs.readdirSync(folder)).toEqual(['a.vdi']);
});
