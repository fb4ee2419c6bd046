/** What happens when a file system is full. Needs the right to mount one. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { createImage } from '../../src/core/create.ts';
import { Graph } from '../../src/core/graph.ts';
import { DRIVERS } from '../../src/drivers.ts';
import { convert } from '../../src/jobs/convert.ts';
import { nodeHost } from '../../src/node/host.ts';
import { failureOf } from '../engine/storage.ts';
import { inFolder, peersMissing, qemuImg } from './peer.ts';

const MIB = 1 << 20;
const SPACE = 8 * MIB;

/** Runs `work` in a folder that holds 8 MiB; a reason when there can be none. */
async function onSmallDisk(work: (folder: string, graph: Graph) => Promise<void>): Promise<string | undefined> {
  return inFolder(async (folder) => {
    const point = join(folder, 'small');
    mkdirSync(point);
    const made = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${SPACE}`, 'tmpfs', point], { encoding: 'utf8' });
    if (made.status !== 0) return `cannot mount: ${made.error?.message ?? made.stderr.trim()}`;
    try {
      const graph = new Graph({ host: nodeHost({ warn() {} }), drivers: DRIVERS });
      await work(point, graph);
      expect(graph.nodes()).toEqual([]);
      return undefined;
    } finally {
      spawnSync('umount', [point]);
    }
  });
}

describe.skipIf(process.platform !== 'linux')('a full file system (skipped where none can be mounted)', () => {
  test.for(['falloc', 'full'])(
    'a new file with preallocation=%s is refused and not left behind',
    async (preallocation, context) => {
      const reason = await onSmallDisk(async (folder, graph) => {
        const filename = join(folder, 'disk.raw');
        const options = { preallocation };
        const failure = await failureOf(createImage(graph, { filename, format: 'raw', size: 20 * MIB, options }));
        expect(failure.code).toBe('ENOSPC');
        expect(existsSync(filename)).toBe(false);
        if (peersMissing === undefined) {
          const args = ['create', '-q', '-f', 'raw', '-o', `preallocation=${preallocation}`, filename, '20M'];
          expect(qemuImg(...args).stderr).toBe(`qemu-img: ${filename}: ${failure.message}\n`);
        }
      });
      if (reason !== undefined) context.skip(reason);
    },
  );

  test.for(['falloc', 'full'] as const)(
    'growing with preallocation=%s leaves the size as it was',
    async (preallocation, context) => {
      const reason = await onSmallDisk(async (folder, graph) => {
        const filename = join(folder, 'disk.raw');
        writeFileSync(filename, new Uint8Array(MIB).fill(3));
        await using disk = await graph.open(filename, { format: 'raw', writable: true });
        expect(await failureOf(disk.resize(20 * MIB, { preallocation }))).toMatchObject({ code: 'ENOSPC' });
        expect([disk.length, statSync(filename).size, statSync(filename).blocks]).toEqual([MIB, MIB, MIB / 512]);
      });
      if (reason !== undefined) context.skip(reason);
    },
  );

  test('an image whose writes fail keeps what was written, and works again when there is room', async (context) => {
    const reason = await onSmallDisk(async (folder, graph) => {
      const ballast = join(folder, 'ballast');
      writeFileSync(ballast, new Uint8Array(3 * MIB));
      const filename = join(folder, 'disk.vdi');
      await createImage(graph, { filename, format: 'vdi', size: 64 * MIB });
      const disk = await graph.open(filename, { format: 'vdi', writable: true });
      let written = 0;
      const failure = await failureOf(
        (async () => {
          for (; written < 64; written++) await disk.write(written * MIB, new Uint8Array(MIB).fill(written + 1));
        })(),
      );
      expect(failure.code).toBe('ENOSPC');
      expect(written).toBeGreaterThan(0);
      await disk.flush();
      if (peersMissing === undefined) expect(qemuImg('check', '-U', '-q', '-f', 'vdi', filename).status).toBe(0);
      rmSync(ballast);
      await disk.write(written * MIB, new Uint8Array(MIB).fill(written + 1));
      await disk.close();
      await using again = await graph.open(filename, { format: 'vdi' });
      for (let block = 0; block <= written; block++) {
        expect((await again.read(block * MIB, MIB)).every((byte) => byte === block + 1)).toBe(true);
      }
      expect(await again.check({ repair: 'none', finding() {} })).toMatchObject({ corruptions: 0, leaks: 0 });
    });
    if (reason !== undefined) context.skip(reason);
  });

  test('a conversion leaves neither the new image nor a part of it, and what had the name stays', async (context) => {
    const reason = await onSmallDisk(async (folder, graph) => {
      const source = join(folder, '..', 'source.raw');
      writeFileSync(source, new Uint8Array(16 * MIB).fill(1));
      const filename = join(folder, 'disk.vdi');
      await using disk = await graph.open(source, { format: 'raw' });
      const start = () => convert({ graph, sources: [disk], target: { filename, format: 'vdi' } });
      expect(await failureOf(start())).toMatchObject({ code: 'ENOSPC' });
      expect(readdirSync(folder)).toEqual([]);
      writeFileSync(filename, 'something else');
      expect(await failureOf(start())).toMatchObject({ code: 'ENOSPC' });
      expect(readdirSync(folder)).toEqual(['disk.vdi']);
      expect(statSync(filename).size).toBe('something else'.length);
      await disk.close();
    });
    if (reason !== undefined) context.skip(reason);
  });
});
