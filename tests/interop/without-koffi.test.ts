/** The same work without the foreign-function library: slower, without holes, and with one notice of what is missing. */
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { createImage } from '../../src/core/create.ts';
import { Graph } from '../../src/core/graph.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { checksum } from '../../src/jobs/checksum.ts';
import { compare } from '../../src/jobs/compare.ts';
import { convert } from '../../src/jobs/convert.ts';
import { nodeHost } from '../../src/node/host.ts';
import { failureOf } from '../engine/storage.ts';
import { inFolder } from './peer.ts';

const MIB = 1 << 20;

function hostWithout(notices: string[]) {
  return nodeHost({
    warn() {},
    notice: (message) => notices.push(message),
    loadKoffi: () => {
      throw new Error('not installed');
    },
  });
}

/** A graph without system calls, one with them, and what the first had to say. */
function graphs() {
  const notices: string[] = [];
  const without = new Graph({ host: hostWithout(notices), drivers: DRIVERS });
  return { without, full: new Graph({ host: nodeHost({ warn() {} }), drivers: DRIVERS }), notices };
}

describe('without koffi', () => {
  test('an image is made, written, read, zeroed, discarded, resized, checked', async () => {
    await inFolder(async (folder) => {
      const { without, full, notices } = graphs();
      const filename = join(folder, 'disk.vdi');
      await createImage(without, { filename, format: 'vdi', size: 8 * MIB });
      await using disk = await without.open(filename, { format: 'vdi', writable: true });
      await disk.write(100, new Uint8Array(3 * MIB).fill(5));
      await disk.writeZeroes(MIB, MIB, { unmap: true });
      await disk.discard(2 * MIB, MIB);
      await disk.resize(16 * MIB);
      await disk.write(16 * MIB - 10, new Uint8Array(10).fill(6));
      await disk.flush();
      expect(await disk.check({ repair: 'none', finding() {} })).toMatchObject({ corruptions: 0 });
      const here = await checksum(disk);
      await disk.close();
      await using again = await full.open(filename, { format: 'vdi' });
      expect(await checksum(again)).toEqual(here);
      expect((await again.read(0, 200)).lastIndexOf(0)).toBe(99);
      expect(notices.filter((line) => line.includes('not installed'))).toHaveLength(1);
      // The images that are opened, in turn: no locks.
      expect(notices.filter((line) => line.includes('locks'))).not.toEqual([]);
    });
  });

  test.for([
    ['raw', 'vdi'],
    ['vdi', 'raw'],
    ['vdi', 'vdi'],
  ] as const)('%s becomes %s', async ([from, to]) => {
    await inFolder(async (folder) => {
      const { without, full } = graphs();
      const filename = join(folder, `source.${from}`);
      await createImage(full, { filename, format: from, size: 40 * MIB });
      await using source = await full.open(filename, { format: from, writable: true });
      for (const place of [0, 7, 8, 39]) await source.write(place * MIB + 99, new Uint8Array(100_000).fill(place + 1));
      await source.close();
      await using read = await without.open(filename, { format: from });
      const target = join(folder, `target.${to}`);
      await convert({ graph: without, sources: [read], target: { filename: target, format: to } });
      await read.close();
      await using left = await full.open(filename, { format: from });
      await using right = await full.open(target, { format: to });
      expect(await compare(left, right)).toMatchObject({ kind: 'identical' });
      // Zeroes were not written: files grow by holes on their own.
      expect(statSync(target).blocks * 512).toBeLessThan(20 * MIB);
    });
  });

  test('preallocated files are filled; locking=on is refused, auto goes on', async () => {
    await inFolder(async (folder) => {
      const { without, notices } = graphs();
      const filename = join(folder, 'disk.raw');
      const options = { preallocation: 'falloc' };
      await createImage(without, { filename, format: 'raw', size: MIB, options });
      expect(statSync(filename).blocks * 512).toBeGreaterThanOrEqual(MIB);
      expect(readFileSync(filename).every((byte) => byte === 0)).toBe(true);
      const locked = (locking: string) => without.open({ driver: 'raw', file: { driver: 'file', filename, locking } });
      expect(await failureOf(locked('on'))).toEqual({
        code: 'ENOTSUP',
        message: `Cannot lock '${filename}': no locks of open files there`,
      });
      expect(without.nodes()).toEqual([]);
      notices.length = 0;
      await (await locked('off')).close();
      expect(notices).toEqual([]);
      await (await locked('auto')).close();
      expect(notices).toEqual([`'${filename}': no locks of open files there; other processes are not kept away`]);
      expect(without.nodes()).toEqual([]);
    });
  });
});
