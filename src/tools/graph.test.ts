/** The graph of a server goes on when a mirror differs, that of other programs ends (BV-8, BV-17). */
import fs, { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, expect, test, vi } from 'vitest';
import { THREAD_POOL } from '../node/calls.ts';
import { storageOf } from '../node/storage.ts';
import type { Context } from './context.ts';
import { newGraph } from './graph.ts';

const folder = mkdtempSync(join(tmpdir(), 'diskwright-graph-'));
afterEach(() => vi.restoreAllMocks());
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function contextWith(printed: string[]): Context {
  return {
    dialect: { name: 'qemu-nbd', qemu: true },
    messages: { raw: (text: string) => printed.push(text) },
    out: { flush() {} },
    objects: { provideTo() {} },
  } as unknown as Context;
}

async function mirrored(survives: boolean) {
  const printed: string[] = [];
  const context = contextWith(printed);
  for (const [name, byte] of [
    ['raw', 1],
    ['test', 2],
  ] as const)
    writeFileSync(join(folder, name), Buffer.alloc(4096, byte));
  const graph = newGraph(context, { survives });
  const side = (name: string) => ({ driver: 'raw', file: { driver: 'file', filename: join(folder, name) } });
  const disk = await graph.open({ driver: 'blkverify', raw: side('raw'), test: side('test') }, { writable: true });
  return { disk, printed };
}

const TEXT = 'blkverify: read offset=512 bytes=512 contents mismatch at offset 512';

test('BV-17: a server tells of it, fails the request and serves on; BV-8: other programs end', async () => {
  const exit = vi.spyOn(process, 'exit').mockImplementation((status) => {
    throw new Error(`exit ${status}`);
  });
  const { disk, printed } = await mirrored(true);
  await expect(disk.read(512, 512)).rejects.toMatchObject({ code: 'EIO', message: TEXT });
  expect(printed).toEqual([`${TEXT}\n`]);
  await disk.write(512, new Uint8Array(512));
  await disk.read(512, 512);
  await disk.close();
  expect(exit).not.toHaveBeenCalled();
  const ending = await mirrored(false);
  await expect(ending.disk.read(512, 512)).rejects.toThrow('exit 1');
  expect(ending.printed).toEqual([`${TEXT}\n`]);
  await ending.disk.close();
});

test.each([
  ['other programs open files at once', {}, true],
  ['a server leaves that to the pool', { survives: true }, false],
  ['so does what is as busy', { busy: true }, false],
])('%s', async (_what, options, atOnce) => {
  const filename = join(folder, 'image');
  writeFileSync(filename, Buffer.alloc(4096));
  const opened = vi.spyOn(fs, 'openSync');
  const disk = await newGraph(contextWith([]), options).open({ driver: 'file', filename });
  const { quick } = await storageOf(folder, THREAD_POOL);
  expect(opened.mock.calls.some(([name]) => name === filename)).toBe(atOnce && quick);
  await disk.close();
});
