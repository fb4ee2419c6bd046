/** The graph of a server goes on when a mirror differs, that of other programs ends (BV-8, BV-17). */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test, vi } from 'vitest';
import type { Context } from './context.ts';
import { newGraph } from './graph.ts';

const folder = mkdtempSync(join(tmpdir(), 'diskwright-graph-'));
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true, force: true });
});

async function mirrored(survives: boolean) {
  const printed: string[] = [];
  const context = {
    dialect: { name: 'qemu-nbd', qemu: true },
    messages: { raw: (text: string) => printed.push(text) },
    out: { flush() {} },
    objects: { provideTo() {} },
  } as unknown as Context;
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
