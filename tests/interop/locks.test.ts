/** Two processes on one image: whoever comes second is refused, whichever of us it is (BL-PERM-7, T-GEN-10). */
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { OpenOptions } from '../../src/core/disk.ts';
import { nodeHost } from '../../src/node/host.ts';
import { failureOf } from '../engine/storage.ts';
import { graphOn } from '../support/sim-disks.ts';
import { inFolder, peersMissing, qemuImg, qemuImgOk, RunningQemuIo, skipNote } from './peer.ts';

const hint = (path: string) => `Is another process using the image [${path}]?`;

async function withImage(
  format: 'raw' | 'vdi',
  work: (
    path: string,
    open: (options?: OpenOptions) => ReturnType<ReturnType<typeof graphOn>['open']>,
  ) => Promise<void>,
): Promise<void> {
  await inFolder(async (folder) => {
    const path = join(folder, `disk.${format}`);
    qemuImgOk('create', '-q', '-f', format, path, '4M');
    const graph = graphOn(nodeHost());
    await work(path, (options) => graph.open(path, { format, ...options }));
    expect(graph.nodes()).toEqual([]);
  });
}

describe.skipIf(peersMissing !== undefined)(`two processes on one image${skipNote}`, () => {
  test.each(['raw', 'vdi'] as const)(
    '%s: while we write, qemu-io may neither write nor, for an image with metadata, read',
    async (format) => {
      await withImage(format, async (path, open) => {
        const disk = await open({ writable: true });
        await expect(RunningQemuIo.open(format, path)).rejects.toThrow(/Failed to get "write" lock/);
        const reading = qemuImg('info', '-f', format, path);
        const refused = `qemu-img: Could not open '${path}': Failed to get shared "write" lock\n${hint(path)}\n`;
        // Readers of a plain file share everything; those of an image need its metadata to stay.
        expect(reading.stderr).toBe(format === 'vdi' ? refused : '');
        expect(qemuImg('info', '-U', '-f', format, path).status).toBe(0);
        await disk.close();
        await (await RunningQemuIo.open(format, path)).close();
      });
    },
  );

  test.each(['raw', 'vdi'] as const)('%s: while qemu-io writes, we may not write', async (format) => {
    await withImage(format, async (path, open) => {
      const other = await RunningQemuIo.open(format, path);
      await other.ask('write 0 512');
      const failure = await failureOf(open({ writable: true }));
      expect(failure.code).toBe('EAGAIN');
      // qemu-io lets others write to a plain file; we would not.
      expect(failure.message).toMatch(
        format === 'vdi' ? /^Failed to get "write" lock$/ : /^Failed to get shared "write" lock$/,
      );
      if (format === 'vdi') {
        expect((await failureOf(open())).message).toMatch(/^Failed to get shared "write" lock$/);
      } else await (await open()).close();
      await (await open({ forceShare: true })).close();
      await other.close();
      await (await open({ writable: true })).close();
    });
  });

  test('readers beside readers', async () => {
    await withImage('vdi', async (path, open) => {
      const disk = await open();
      const other = await RunningQemuIo.open('vdi', path, '-r');
      const third = await open();
      await third.close();
      await expect(RunningQemuIo.open('vdi', path)).rejects.toThrow(/Failed to get "write" lock/);
      await other.close();
      await disk.close();
    });
  });

  test('the hint names the image', async () => {
    await withImage('vdi', async (path, open) => {
      const other = await RunningQemuIo.open('vdi', path);
      const error = await open({ writable: true }).catch((reason: unknown) => reason);
      expect((error as { hint?: string }).hint?.split('\n')[0]).toMatch(/^Is another process using the image \[.*\]\?/);
      expect((error as { hint?: string }).hint).toContain(path);
      await other.close();
    });
  });

  test('two of us in one process are refused as two processes are', async () => {
    await withImage('raw', async (_path, open) => {
      const disk = await open({ writable: true });
      expect((await failureOf(open({ writable: true }))).message).toMatch(/^Failed to get "write" lock$/);
      const reader = await open();
      await reader.close();
      await disk.close();
    });
  });
});
