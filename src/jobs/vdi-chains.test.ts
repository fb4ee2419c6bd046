/** Commit and rebase of VDI differencing images, which record the state of the image below them (V-50). */
import { describe, expect, test } from 'vitest';
import { chainWorld, MIB, same } from '../../tests/support/chains.ts';
import { bytesWith, contentOf, makeImage } from '../../tests/support/job-disks.ts';
import { createImage } from '../core/create.ts';
import type { Graph } from '../core/graph.ts';
import { commit } from './commit.ts';
import { rebase } from './rebase.ts';

async function vdiChain() {
  const { graph, host } = chainWorld();
  await makeImage(graph, '/base.vdi', 'vdi', bytesWith(4 * MIB, [[0, MIB + 512]]));
  await createImage(graph, { filename: '/top.vdi', format: 'vdi', backingFile: 'base.vdi', backingFormat: 'vdi' });
  const disk = await graph.open('/top.vdi', { format: 'vdi', writable: true });
  await disk.write(512 * 3, bytesWith(MIB, [[0, MIB]], 7));
  await disk.close();
  const before = await contentOf(graph, '/top.vdi', 'vdi');
  return { graph, host, before };
}

async function writeTo(graph: Graph, filename: string): Promise<void> {
  const disk = await graph.open(filename, { format: 'vdi', writable: true });
  await disk.write(0, new Uint8Array([1]));
  await disk.close();
}

describe('VDI chains', () => {
  test.each([true, false])('a commit leaves an image that fits the changed one below (emptied: %s)', async (empty) => {
    const { graph, host, before } = await vdiChain();
    for (let round = 0; round < 2; round++) {
      const disk = await graph.open('/top.vdi', { format: 'vdi', writable: true });
      await commit(disk, { empty });
      await disk.close();
    }
    expect(same(await contentOf(graph, '/top.vdi', 'vdi'), before)).toBe(true);
    expect(same(await contentOf(graph, '/base.vdi', 'vdi'), before)).toBe(true);
    expect(host.warnings).toEqual([]);
  });

  test('a base that was changed behind the image is not committed into: EPERM', async () => {
    const { graph, host } = await vdiChain();
    await writeTo(graph, '/base.vdi');
    const disk = await graph.open('/top.vdi', { format: 'vdi', writable: true });
    await expect(commit(disk)).rejects.toMatchObject({
      code: 'EPERM',
      message: expect.stringMatching(/^Cannot write to '\/base.vdi' below '\/top.vdi'/),
    });
    await disk.close();
    expect(host.warnings.length).toBe(1);
  });

  test('a rebase to another image and to none keeps the content', async () => {
    const { graph, host, before } = await vdiChain();
    await makeImage(graph, '/other.vdi', 'vdi', bytesWith(2 * MIB, [[MIB, 600 * 1024]], 3));
    for (const backing of [
      { filename: 'other.vdi', format: 'vdi' },
      undefined,
      { filename: 'base.vdi', format: 'vdi' },
    ]) {
      const disk = await graph.open('/top.vdi', { format: 'vdi', writable: true });
      await rebase(disk, { backing });
      expect(same(await disk.read(0, disk.length), before)).toBe(true);
      await disk.close();
      expect(same(await contentOf(graph, '/top.vdi', 'vdi'), before)).toBe(true);
    }
    expect(host.warnings).toEqual([]);
  });
});
